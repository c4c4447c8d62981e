"""Show in the last cell of every page where its numbers come from and how to run it again.

A page is current while the keys of its profile's stored tables are as they were when it ran, and
its cells are those of its text.
"""

from __future__ import annotations

import hashlib
import html
import json
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from book.extension.build import own_book
from book.extension.source import experiments_folder, page_names, read_page
from cae_lab import results
from cae_lab.profiles import PROFILES
from cae_lab.provenance import environment_info, has_uncommitted_changes

MIME = "application/vnd.cae.provenance+json"


class Provenance(NamedTuple):
    """The state that a page ran in: a folded list for readers, and JSON for `states`."""

    content: dict[str, Any]

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """Return the representations that a notebook stores."""
        state = self.content
        committed = {None: "no git", True: "with uncommitted changes", False: "committed"}
        lines = {
            "tables": state["tables"][:12],
            "code": committed[state["dirty"]],
            "profile": state["profile"],
            "seeds": state.get("seeds"),
            "again by": state.get("command"),
            "run on": state["when"],
            "took": f"{state['wall_seconds']} s",
            "device": state["device"],
            "versions": ", ".join(f"{name} {text}" for name, text in state["versions"].items()),
            "data (manifest)": state["data"],
        }
        items = "".join(
            f"<li>{html.escape(name)}: <code>{html.escape(str(value))}</code></li>"
            for name, value in lines.items()
            if value is not None
        )
        return {
            MIME: state,
            "text/html": "<details><summary>Where these numbers come from</summary><ul>"
            f"{items}</ul></details>",
            "text/plain": json.dumps(state, sort_keys=True),
        }


def provenance(page: str, names: Mapping[str, Any], **extra: object) -> Provenance:
    """Return the state that a page, with these `globals()`, ran in, and the command for it.

    `extra` are further entries, such as `seeds` if the page has no such parameter.
    """
    profile = names["profile"]
    state = {
        "tables": tables_hash(profile),
        "dirty": has_uncommitted_changes(),
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command(page, names),
    }
    declared = names.get("__annotations__", {})
    seeds = {"seeds": names["seeds"]} if "seeds" in declared else {}
    return Provenance(state | environment_info(profile) | seeds | extra)


def command(page: str, names: Mapping[str, Any]) -> str:
    """Return the papermill command that runs a page with the parameters that it has here."""
    # Parameters are the only names that a page annotates.
    parameters = [(name, names[name]) for name in names.get("__annotations__", {})]
    words = [word for name, value in parameters if value != "" for word in ("-p", name, str(value))]
    return shlex.join(["papermill", f"book/experiments/{page}.ipynb", "out.ipynb", *words])


def tables_hash(profile: str) -> str:
    """Return the hash of the names and keys of all stored tables of a profile."""
    # A key covers all that a table depends on, so the rows need not be read.
    tables = results.provenance_table(profile)[["table", "run", "seed", "key"]].values.tolist()
    return hashlib.sha256(json.dumps(tables).encode()).hexdigest()


def states(profile: str) -> pd.DataFrame:
    """Return a row for each page of the book, or of the profile's copy: `state` and provenance.

    The state is "current", "stale", or what is wrong with the notebook.
    """
    is_copy = PROFILES[profile].own_book is not None
    folder = own_book(profile) / "experiments" if is_copy else experiments_folder()
    # A page may show another profile than the book's; most pages share one.
    hash_of = cache(tables_hash)
    rows = []
    for name in page_names():
        state, entries = _state(folder / f"{name}.ipynb", is_copy, hash_of)
        shown = {key: entries.get(key) for key in ("profile", "when", "wall_seconds", "device")}
        rows.append({"page": name, "state": state, **shown})
    return pd.DataFrame(rows)


def _state(path: Path, is_copy: bool, hash_of: Callable[[str], str]) -> tuple[str, dict[str, Any]]:
    """Return the state of a notebook and the entries of its provenance."""
    if not path.is_file():
        return "not run yet", {}
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError):
        return "cannot be read", {}
    bundles = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    stored = [bundle[MIME] for bundle in bundles if MIME in bundle]
    if not stored:
        return "has no provenance", {}
    entries = stored[-1]
    text = read_page(experiments_folder() / f"{path.stem}.md").cells
    sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    # Notebooks of a copy have a cell with the parameters of its profile.
    if not is_copy and sources != [(cell.cell_type, cell.source) for cell in text]:
        return "has another text", entries
    profile = entries.get("profile")
    current = profile in PROFILES and entries.get("tables") == hash_of(profile)
    return "current" if current else "stale", entries
