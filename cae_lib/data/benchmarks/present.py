"""Which parts of a benchmark are here, for whoever wants to go on without the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cae_lib.data.benchmarks import FOLDERS, crepe, sugarcrepe, valse, vl_checklist, whatsup


def _files(names: Mapping[str, int], pattern: str) -> Callable[[Path], list[str]]:
    return lambda root: [name for name in names if (root / pattern.format(name)).is_file()]


def _corpora(root: Path) -> list[str]:
    found = {path.relative_to(root / "data") for path in (root / "data").rglob("*.json")}
    names = {str(path.with_suffix("")) for path in found}
    return sorted(name for name in names if vl_checklist.EMPTY_CORPUS not in name)


_PARTS: Mapping[str, tuple[str, Callable[[Path], list[str]]]] = {
    "sugarcrepe": ("subsets", _files(sugarcrepe.OFFICIAL, "data/{}.json")),
    "vl_checklist": ("corpora", _corpora),
    "valse": ("instruments", _files(valse.OFFICIAL, "data/{}.json")),
    "crepe": ("subsets", lambda root: [
        name for name in crepe.OFFICIAL
        if any((root / "data" / "prod_hard_negatives" / name).glob("*.csv"))
    ]),
    "whatsup": ("subsets", lambda root: [
        name for name in whatsup.OFFICIAL
        if any((root / f"{name}{end}.json").is_file() for end in ("", "_dataset"))
    ]),
}


def present_parts(name: str, root: str | Path) -> dict[str, list[str]]:
    """The option of a family's `load` that names its parts, with those whose files are here.

    Empty where the family's files cannot be told apart, or none of them is here.

    Args:
        name: Family, as in `load_benchmark`.
        root: Folder that holds all data sets side by side.
    """
    if name not in _PARTS:
        return {}
    option, find = _PARTS[name]
    found = find(Path(root) / FOLDERS[name])
    return {option: found} if found else {}
