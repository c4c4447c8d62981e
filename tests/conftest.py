"""Fixtures that several test files share."""

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from cae_lab.profiles import load_profile

gc.set_threshold(10_000, 10, 10)  # looking for cycles took a fifth of the time of all tests

REPOSITORY = Path(__file__).resolve().parent.parent

PAGE = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A page

```{code-cell} ipython3
:tags: [parameters]

profile: str = "mini"  # size of everything
seeds: int = 3  # runs to average
rate: float = 1e-3  # learning rate
fast: bool = False
```

```{code-cell} ipython3
import sys
import warnings

warnings.warn("only for whoever runs the page")
print(f"{profile}: {seeds} seeds at {rate}, fast: {fast}")
print(sys.executable == "PYTHON")
```

```{code-cell} ipython3
:tags: [remove-input, provenance]

1 + 1
```
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker, which begins with its share of all in order, begin with slow tests."""
    n_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = [item for item in items if item not in slow]
    share = len(others) // n_workers + 1
    items[:] = [
        item
        for n in range(n_workers)
        for item in (*slow[n::n_workers], *others[n * share : (n + 1) * share])
    ]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder that `cae_lib.config.paths` points to."""
    monkeypatch.setenv("CAE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def book_home(home: Path) -> Path:
    """A project folder with a book of one executable page, ``page``."""
    experiments = home / "book" / "experiments"
    experiments.mkdir(parents=True)
    shutil.copy(REPOSITORY / "_config.yml", home)
    shutil.copy(REPOSITORY / "book" / "experiments" / "jupytext.toml", experiments)
    shutil.copy(REPOSITORY / "book" / "references.bib", home / "book")
    shutil.copytree(REPOSITORY / "book" / "_static", home / "book" / "_static")
    page = PAGE.replace("PYTHON", sys.executable)
    (experiments / "page.md").write_text(page, encoding="utf-8")
    index = "# A book\n\nSee {cite:t}`li2024cae`.\n\n```{bibliography}\n```\n"
    (home / "book" / "index.md").write_text(index, encoding="utf-8")
    toc = "format: jb-book\nroot: index\nchapters:\n  - file: experiments/page.ipynb\n"
    (home / "book" / "_toc.yml").write_text(toc, encoding="utf-8")
    return home


@pytest.fixture
def text(book_home: Path) -> Path:
    """The text of the page `page`, in a project of its own."""
    return book_home / "book" / "experiments" / "page.md"


@pytest.fixture
def tiny_clip():
    """A clip-mini with random weights."""
    from toys import random_clip

    return random_clip()


def save_random(path: Path, seed: int) -> Path:
    """Write the weights of a random clip-mini."""
    from toys import random_clip

    from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint

    return save_checkpoint(path, random_clip(seed), CheckpointMeta("clip-mini", "quickgelu"))


@contextmanager
def shared_folder(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """Yield a folder that all workers of a test session share, to one worker at a time."""
    folder = factory.getbasetemp()
    shared = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / name
    with FileLock(f"{shared}.lock"):
        yield shared


@pytest.fixture(scope="session")
def smoke_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small world of the smoke profile, built once; each worker has its copy."""
    from data.recipes.synthetic_scenes.build import build

    with shared_folder(tmp_path_factory, "raw") as folder:
        built = build("smoke", root=folder)
        return shutil.copytree(built, tmp_path_factory.mktemp("raw") / built.name, symlinks=True)


@pytest.fixture
def smoke_home(home: Path, smoke_world: Path) -> Path:
    """A home with the smoke world and a base with random weights, where nothing is measured."""

    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    save_random(load_profile("smoke").run("base").path, seed=3)
    return home
