"""The page runner: ``cae run NAME [-p key=value ...] [--profile P]``.

A page's text is read, its parameters are checked, papermill executes it, and the outcome is
published only when it ran to its end with the page's own defaults: into the book, or for the
smoke profile into a copy of the book. Any other outcome is a variant under ``runs/``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cae_lib.config import paths, profile
from cae_lib.errors import CaeError, ConfigError
from cae_lib.pages.source import (
    Value,
    experiments_folder,
    page_names,
    page_parameters,
    parse_parameters,
    read_page,
)


def run_page(
    name: str, given: Mapping[str, str] | None = None, profile_name: str | None = None
) -> Path:
    """Run one page and store its notebook.

    Args:
        name: the page's name: its file in ``book/experiments`` without ending.
        given: parameters as text, as on the command line.
        profile_name: value of the parameter ``profile``; None leaves the page's default.

    Returns:
        Path of the stored notebook.

    Raises:
        ConfigError: no such page, profile or parameter, or a value of the wrong type.
        CaeError: a cell failed, or the outcome breaks a rule of `cae_lib.pages.check`.
    """
    _require_book_extra()
    from cae_lib.pages.execute import execute
    from cae_lib.pages.missing import what_is_missing
    from cae_lib.pages.publish import publish

    if name not in page_names():
        raise ConfigError(f"no page {name!r}; the pages are: {', '.join(page_names())}")
    notebook = read_page(experiments_folder() / f"{name}.md")
    known = page_parameters(notebook, name)
    if "profile" not in known:
        raise ConfigError(f"page {name} lacks the parameter `profile: str`")
    given = dict(given or {}) | ({} if profile_name is None else {"profile": profile_name})
    values = parse_parameters(known, given, name)
    chosen = str(values.get("profile", known["profile"].default))
    profile(chosen)
    partial = paths().runs / f"{name}-{_hash(values)}.partial.ipynb"
    executed = execute(notebook, partial, values, name)
    for line in what_is_missing(executed, chosen):
        print(line, flush=True)
    if values == {} or values == {"profile": "smoke"}:
        published = publish(executed, name, chosen)
        partial.unlink()
        return published
    variant = paths().runs / f"{name}-{_hash(values)}.ipynb"
    return partial.replace(variant)


def parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """Split the command line's ``key=value`` texts.

    Raises:
        ConfigError: a text has no "=".
    """
    pairs = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"-p {assignment}: expected key=value")
        pairs[key.strip()] = value.strip()
    return pairs


def _hash(values: Mapping[str, Value]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def _require_book_extra() -> None:
    try:
        import ipykernel  # noqa: F401
        import jupytext  # noqa: F401
        import papermill  # noqa: F401
    except ImportError as error:
        raise CaeError(
            f"running pages needs {error.name}: install the extra with "
            "`pip install 'cae-lib[book]'`, or use the environment that `make` sets up"
        ) from error
