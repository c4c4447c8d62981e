"""Which stored pages and records were made by the code as it is now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_lib.pages.publish import smoke_book
from cae_lib.pages.source import experiments_folder, page_names
from cae_lib.provenance import tree_hash
from cae_lib.records import record_path
from cae_lib.report.markup import NONE, Table, Text, count, listing
from cae_lib.report.provenance import MIME


@dataclass(frozen=True)
class Made:
    """One stored page or record.

    Attributes:
        name: Its name.
        stamp: Its provenance; empty where none can be read.
        problem: Why there is none.
    """

    name: str
    stamp: Mapping[str, Any]
    problem: str = ""

    def state(self, tree: str) -> str:
        """ "current", "stale", or what is wrong with it."""
        if not self.stamp:
            return self.problem
        return "current" if self.stamp.get("tree") == tree else "stale"


def pages(profile: str) -> list[Made]:
    """The stored notebooks of a profile, but for the status page, which is being made."""
    folder = smoke_book() / "experiments" if profile == "smoke" else experiments_folder()
    names = [name for name in page_names() if name != "status"]
    return [_page(folder / f"{name}.ipynb") for name in names]


def _page(path: Path) -> Made:
    """Read the stamp of a notebook; nothing that is wrong with it is an error here."""
    if not path.is_file():
        return Made(path.stem, {}, "not run yet")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        stamps = [
            output["data"][MIME]
            for cell in cells
            for output in cell.get("outputs", [])
            if MIME in output.get("data", {})
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Made(path.stem, {}, "cannot be read")
    if not stamps or not isinstance(stamps[-1], dict):
        return Made(path.stem, {}, "has no stamp")
    return Made(path.stem, stamps[-1])


def records(profile: str) -> list[Made]:
    """The stored records of a profile."""
    folder = record_path("any", profile).parent
    found = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    return [_record(path, folder) for path in found]


def _record(path: Path, folder: Path) -> Made:
    name = str(path.relative_to(folder).with_suffix(""))
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))["provenance"]
    except (OSError, ValueError, KeyError, TypeError):
        return Made(name, {}, "cannot be read")
    return Made(name, stamp) if isinstance(stamp, dict) and stamp else Made(name, {}, "no stamp")


def status_table(made: list[Made], kind: str) -> Table | Text:
    """When, where and by which code each of them was made."""
    if not made:
        return Text(f"There are no stored {kind}s.")
    tree = tree_hash()
    rows = [[f"`{item.name}`", _emphasis(item.state(tree)), *_facts(item.stamp)] for item in made]
    return Table(
        name=f"tab-status-{kind}s",
        caption=f"Stored {kind}s. Current: made by the code of `cae_lib` as it is now (git tree "
        f"`{tree[:12]}`); stale: made by other code, so its numbers may differ from a new run's.",
        header=[kind, "state", "code", "seconds", "device"],
        rows=rows,
        left=5,
        collapsed=f"All {kind}s" if len(rows) > 12 else "",
    )


def _emphasis(state: str) -> str:
    return state if state == "current" else f"**{state}**"


def _facts(stamp: Mapping[str, Any]) -> list[str]:
    values = [str(stamp.get("tree", NONE))[:8], stamp.get("wall_seconds"), stamp.get("device")]
    return [NONE if value is None else str(value) for value in values]


def summary(found_pages: list[Made], found_records: list[Made]) -> Text:
    """How many pages and records are current, in a sentence or two."""
    tree = tree_hash()
    sentences = []
    for made, noun in ((found_pages, "page"), (found_records, "record")):
        states = [item.state(tree) for item in made]
        kinds = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        listed = listing(kinds) or "none"
        sentences.append(f"Of {count(len(made), f'stored {noun}')}: {listed}.")
    return Text(" ".join(sentences))
