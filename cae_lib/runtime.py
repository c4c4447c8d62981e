"""The running process: device, files, progress, and which code, versions and machine it is. PyTorch
is imported where it is needed: a page that only reads results does without."""

from __future__ import annotations

import ast
import hashlib
import io
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import tokenize
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from cae_lib.config import paths
from cae_lib.errors import WriteError
from cae_lib.methods import methods

if TYPE_CHECKING:
    import torch

PACKAGE = Path(__file__).resolve().parent
TRAINING = "cae_lib.training.trainer"
CONFIGS, BENCHMARKS = "models/configs", "data/benchmarks"
"""Folders with data of the code."""

LAYOUTS = "data.benchmarks.table"
"""The module whose entries decide the numbers of their own benchmarks alone."""

BESIDE = ("config", "errors", "methods", "runtime", "results", "data.needs", "data.sources",
          "data.completeness")
"""Modules that decide no number by themselves."""

SETTLED = ("config", "errors", "methods", "runtime", "data.captions", "words")
"""Modules that decide no number of a run, or one that its settings and data hold."""

PACKAGES = ("torch", "open_clip_torch", "spacy", "SceneGraphParser", "numpy")

_STARTED = time.monotonic()

PROGRESS_LINES = "CAE_PROGRESS_LINES"
"""Environment variable: if set, a terminal gets new lines too, as where several processes write."""


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name ("cpu", "cuda", "cuda:1", "mps"), else a GPU when there is one. Of
    several processes started by `torchrun`, each gets a GPU of its own."""
    import torch

    if name is not None:
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local_rank = os.environ.get("LOCAL_RANK")
    return torch.device("cuda" if local_rank is None else f"cuda:{local_rank}")


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Compute on one thread while `device` is a CPU, where sums then have one order. With more
    threads a training run repeats only up to rounding, which grows from step to step."""
    import torch

    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary file to fill, which becomes `path` at the end, or is removed by an error. So
    a reader meets the old file or the new one, never half of it. WriteError, which says what to do,
    if the place cannot be written."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".tmp", ".", path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise  # only that of `torch.save` on a full disk is one of writing
        why = getattr(error, "strerror", None) or error
        raise WriteError(
            f"cannot write {path} ({why}): free some space or make the folder writable, or set "
            "CAE_HOME to a folder of your own"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file by `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def end_with_parent() -> None:
    """End this process, one of `multiprocessing`, once its parent is gone, even one killed."""
    wait = multiprocessing.parent_process().join
    threading.Thread(target=lambda: (wait(), os._exit(1)), daemon=True).start()


def format_seconds(seconds: float) -> str:
    """Write a duration as people say it: ``8 s``, ``3 min 20 s``, ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress(tqdm):
    """A bar of `total` units of work on standard error: rewritten in place on a terminal, else new
    lines, at most one in 10 s; nothing at all if `disable`."""
    monitor_interval = 0  # no thread of its own beside processes that fork

    def __init__(self, total: int, label: str, disable: bool = False) -> None:
        in_place = PROGRESS_LINES not in os.environ and sys.stderr.isatty()
        super().__init__(
            total=total, desc=label, file=None if in_place else _Lines(), dynamic_ncols=in_place,
            mininterval=0.1 if in_place else 10.0, smoothing=0, disable=disable,
        )

    def update(self, n: int = 1, **values: float) -> None:
        """Count `n` more units as done, and show values beside them."""
        if values:
            self.set_postfix(values, refresh=False)
        super().update(n)


class _Lines:
    """Standard error, with new lines in the place of carriage returns."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip("\r") + "\n")


# Where a result comes from. A number depends on the code that its measurement imports, a run on the
# code that its training imports; both are found by following imports, so that a change elsewhere
# makes nothing stale.


@cache
def training_hash(package: Path = PACKAGE, method: str | None = "all") -> str:
    """Hash the code of a run's steps: all that `TRAINING` and its attribution method import, but
    for `SETTLED`; `method` is None for a run without, "all" for whatever run."""
    names = [*methods()] if method == "all" else [method] if method else []
    starts = [TRAINING, *map(_module, names)]
    return _hash_of(imported(starts, SETTLED, package), package, CONFIGS)


def _module(method: str) -> str:
    return f"cae_lib.attribution.{method}"


@cache
def measuring_hash(modules: tuple[str, ...], families: tuple[str, ...] = (),
                   package: Path = PACKAGE) -> str:
    """Hash the code of a measurement: all that its modules (dotted names) import, but for `BESIDE`,
    with the configurations of models; and of the benchmarks that it reads, `families`, their
    entries in `LAYOUTS` and what these name, with the data beside them."""
    table = package.joinpath(*LAYOUTS.split(".")).with_suffix(".py")
    others, named = _entries(table, families)
    starts = [*modules, *(f"{LAYOUTS.rpartition('.')[0]}.{name}" for name in named)]
    known = imported(starts, (*BESIDE, LAYOUTS), package)
    folders = (CONFIGS, BENCHMARKS) if families else (CONFIGS,)
    return _hash_of(known, package, *folders, also=what_runs(table, others))


def _entries(table: Path, families: tuple[str, ...]) -> tuple[set[int], set[str]]:
    """Of the dictionary of layouts: the lines of entries other than `families`, and the names that
    these have in them, of modules beside it too."""
    others, named = set(), set()
    for entries in (node.value for node in ast.parse(table.read_bytes()).body
                    if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)):
        for key, value in zip(entries.keys, entries.values, strict=True):
            if ast.literal_eval(key) not in families:
                others |= {*range(key.lineno, value.end_lineno + 1)}
                continue
            named |= {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
            named |= {ast.literal_eval(word.value) for word in value.keywords
                      if word.arg == "loader"}
    return others, named


def imported(starts: Iterable[str], without: tuple[str, ...] = (),
             package: Path = PACKAGE) -> dict[str, Path]:
    """The modules of the package that `starts` (dotted names) import, directly or not, with these,
    and their files. `without` are beginnings of names, below the package, that are left out with
    what they import; `package` is the folder of `cae_lib`."""
    known: dict[str, Path] = {}
    names = list(starts)
    while names:
        name = names.pop().removeprefix("cae_lib.")
        path = package.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in known or name.startswith(without) or not path.is_file():
            continue
        known[name] = path
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cae_lib"):
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return known


def _hash_of(modules: dict[str, Path], package: Path, *folders: str, also: str = "") -> str:
    """Hash modules by name and what runs of them, the data files in folders of the package, and
    `also`."""
    data = {path.name: path for folder in folders for path in (package / folder).glob("*.*")
            if path.suffix in (".json", ".txt")}
    known = [(name, what_runs(path)) for name, path in sorted(modules.items())]
    known += [(name, file_hash(path)) for name, path in sorted(data.items())]
    return hashlib.sha256(repr((known, also)).encode()).hexdigest()


def what_runs(path: Path, without: Collection[int] = ()) -> str:
    """A module's lines without docstrings, comments of whole lines, empty lines, and those of the
    numbers `without`; taken by lines, since what Python makes of them depends on its version."""
    source = path.read_text(encoding="utf-8")
    lines = {number: line for number, line in enumerate(source.splitlines(), start=1)
             if number not in without}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for number in range(node.lineno, node.end_lineno + 1):
                lines.pop(number, None)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.strip() == token.string:
            lines.pop(token.start[0], None)
    return "\n".join(line.rstrip() for line in lines.values() if line.strip())


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def changed(files: Iterable[Path] = (PACKAGE,)) -> bool | None:
    """Whether files or folders of the package differ from the last commit; None without git."""
    command = ["git", "status", "--porcelain", "--", *map(str, files)]
    try:
        result = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(result.stdout) if result.returncode == 0 else None


def stamp(profile: str, seed: int | None, **extra: Any) -> dict[str, Any]:
    """Describe the state that a table was computed in, as plain JSON values without absolute paths.
    `dirty` says whether the package differed from the last commit (None without git). `seed` is
    None where several were used. `extra` are further entries, or better values for `dtype` (default
    float32) and `wall_seconds` (default: since this module was imported)."""
    return {"dirty": changed(), **circumstances(profile), "seed": seed, "dtype": "float32"} | extra


def circumstances(profile: str) -> dict[str, Any]:
    """Versions, device, profile, manifest of its sets, seconds since the start."""
    places = (paths().raw / name / "manifest.json" for name in (f"world-{profile}", profile))
    data = next((file_hash(path)[:12] for path in places if path.is_file()), None)
    return {"versions": versions(), "device": device_name(), "profile": profile, "data": data,
            "wall_seconds": round(time.monotonic() - _STARTED, 1)}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that numbers depend on."""
    known = {package: metadata.version(package) for package in PACKAGES}
    return {"python": platform.python_version()} | known


def device_name() -> str:
    """Name the GPU, or else the processor, with its number of threads where PyTorch is in use."""
    torch = sys.modules.get("torch")  # a page that only reads results does without
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads" if torch else model
