"""Benchmarks of composition in their official layouts, all read into the same `Choice` items."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.rows import read_json
from cae_lib.errors import ConfigError

__all__ = ["BENCHMARKS", "FOLDERS", "FURTHER", "Benchmark", "Choice", "ImageRef", "load_benchmark",
           "published"]

FOLDERS: Mapping[str, str] = {
    "aro": "aro", "order": "", "winoground": "winoground", "sugarcrepe": "sugar-crepe",
    "vl_checklist": "vl-checklist", "valse": "valse", "svo_probes": "svo-probes", "crepe": "crepe",
    "whatsup": "whatsup", "cola": "cola", "crepe_systematicity": "crepe",
    "sugarcrepe_pp": "sugarcrepe-pp", "half_truths": "half-truths", "bivlc": "bivlc",
    "negbench": "negbench", "mmvp_vlm": "mmvp-vlm",
}
"""Folder of each family below that of all data sets."""

FURTHER: tuple[str, ...] = (
    "whatsup", "cola", "crepe_systematicity", "sugarcrepe_pp", "half_truths", "bivlc", "negbench",
    "mmvp_vlm",
)
"""Families beside the paper's, read where they are there."""

BENCHMARKS: tuple[str, ...] = tuple(name for name in FOLDERS if name not in FURTHER)
"""Families of the paper's tables, which every profile has."""

_LOADERS = {"crepe_systematicity": ("crepe", "load_systematicity")}


def published(name: str) -> Mapping[str, int]:
    """The published numbers of items of a family by subset, as far as they are verified."""
    if name in _LOADERS:
        return {}
    return importlib.import_module(f"{__name__}.{name}").FAMILY.published


def load_benchmark(name: str, root: str | Path, **options: Any) -> list[Benchmark]:
    """Read one family, of `BENCHMARKS` or `FURTHER`, from a folder that holds all data sets.

    `options` are those of the family's `load`, among them `collect.Options`. Where the folder has a
    `manifest.json` with `counts`, as the small world's, these are the expected numbers of items,
    unless `expected` or `official` is given. ConfigError if the name or a subset is unknown;
    DataError if data are missing or malformed.
    """
    if name not in FOLDERS:
        raise ConfigError(f"no benchmark {name!r}. Known: {', '.join(FOLDERS)}.")
    manifest = Path(root) / "manifest.json"
    if "expected" not in options and not options.get("official") and manifest.is_file():
        options["expected"] = read_json(manifest, dict).get("counts", {}).get(name)
    module, function = _LOADERS.get(name, (name, "load"))
    module = importlib.import_module(f"{__name__}.{module}")
    return getattr(module, function)(Path(root) / FOLDERS[name], **options)
