"""The last cell of every page: where its numbers come from, and whether they are the present ones:
while the keys of the profile's stored tables are as they were when it ran, and its cells are those
of its text."""

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

from cae_lib import results
from cae_lib.pages.build import own_book
from cae_lib.pages.source import experiments_folder, page_names, read_page
from cae_lib.profiles import PROFILES
from cae_lib.runtime import environment_info, has_uncommitted_changes

MIME = "application/vnd.cae.provenance+json"


class Provenance(NamedTuple):
    """A stamp as a folded list for the reader and as data for `states`."""

    content: dict[str, Any]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What a notebook stores."""
        found = self.content
        committed = {None: "no git", True: "with uncommitted changes", False: "committed"}
        lines = {
            "tables": found["tables"][:12],
            "code": committed[found["dirty"]],
            "profile": found["profile"],
            "seeds": found.get("seeds"),
            "again by": found.get("command"),
            "run on": found["when"],
            "took": f"{found['wall_seconds']} s",
            "device": found["device"],
            "versions": ", ".join(f"{name} {text}" for name, text in found["versions"].items()),
            "data (manifest)": found["data"],
        }
        items = "".join(
            f"<li>{html.escape(name)}: <code>{html.escape(str(value))}</code></li>"
            for name, value in lines.items()
            if value is not None
        )
        return {
            MIME: found,
            "text/html": "<details><summary>Where these numbers come from</summary><ul>"
            f"{items}</ul></details>",
            "text/plain": json.dumps(found, sort_keys=True),
        }


def provenance(page: str, names: Mapping[str, Any], **extra: Any) -> Provenance:
    """Stamp a page with the state that it ran in, and with the command that runs it again.

    Args:
        page: The name of the page.
        names: Its `globals()`: the parameters that its cell declares, among them `profile`.
        **extra: Further entries, such as `seeds` where the page has no such parameter.
    """
    profile = names["profile"]
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    state = {
        "tables": tables_hash(profile),
        "dirty": has_uncommitted_changes(),
        "when": when,
        "command": command(page, names),
    }
    declared = names.get("__annotations__", {})
    seeds = {"seeds": names["seeds"]} if "seeds" in declared else {}
    return Provenance(state | environment_info(profile) | seeds | extra)


def command(page: str, names: Mapping[str, Any]) -> str:
    """Return the call of papermill that runs a page with the parameters that it has here."""
    given = [(name, names[name]) for name in names.get("__annotations__", {})]
    words = [word for name, value in given if value != "" for word in ("-p", name, str(value))]
    return shlex.join(["papermill", f"book/experiments/{page}.ipynb", "out.ipynb", *words])


def tables_hash(profile: str) -> str:
    """Hash the name and key of each stored table of a profile."""
    tables = results.made(profile)[["table", "run", "seed", "key"]].values.tolist()
    return hashlib.sha256(json.dumps(tables).encode()).hexdigest()


def states(profile: str) -> pd.DataFrame:
    """For each page its `state`: "current", "stale", or what is wrong; and its stamp's entries. A
    page is held against the tables of its own profile; a copy of the book lies apart."""
    own = PROFILES[profile].own_book is not None
    folder = own_book(profile) / "experiments" if own else experiments_folder()
    present = cache(tables_hash)
    found = {name: _state(folder / f"{name}.ipynb", own, present) for name in page_names()}
    told = ("profile", "when", "wall_seconds", "device")
    return pd.DataFrame(
        [
            {"page": name, "state": state, **{key: stamp.get(key) for key in told}}
            for name, (state, stamp) in found.items()
        ]
    )


def _state(path: Path, own: bool, present: Callable[[str], str]) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        return "not run yet", {}
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError):
        return "cannot be read", {}
    bundles = (output.get("data", {}) for cell in cells for output in cell.get("outputs", ()))
    stamps = [bundle[MIME] for bundle in bundles if MIME in bundle]
    if not stamps:
        return "has no stamp", {}
    text = read_page(experiments_folder() / f"{path.stem}.md").cells
    stored = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    if not own and stored != [(cell.cell_type, cell.source) for cell in text]:
        return "has another text", stamps[-1]
    made = stamps[-1].get("profile")
    current = made in PROFILES and stamps[-1].get("tables") == present(made)
    return "current" if current else "stale", stamps[-1]
