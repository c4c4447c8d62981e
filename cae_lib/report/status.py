"""Which stored pages and records were made by the code as it is now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_lib.fingerprint import measuring_hash, tree_hash
from cae_lib.pages.publish import smoke_book
from cae_lib.pages.source import experiments_folder, page_names
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
        key: The entry of the stamp that identifies the code it depends on: "tree", all of the
            package, for a page; "code", what can change a number, for a record.
    """

    name: str
    stamp: Mapping[str, Any]
    problem: str = ""
    key: str = "tree"

    def state(self, present: Mapping[str, str]) -> str:
        """ "current", "stale", "unknown", or what is wrong with it.

        Args:
            present: The code as it is now; see `present_code`.
        """
        if not self.stamp:
            return self.problem
        if self.key in self.stamp:
            return "current" if self.stamp[self.key] == present[self.key] else "stale"
        same = self.stamp.get("tree") == present["tree"]  # an old record states nothing else
        return "current" if same else "unknown"


def present_code() -> dict[str, str]:
    """The hashes of the code as it is now, by the entry of a stamp that they compare with."""
    return {"tree": tree_hash(), "code": measuring_hash()}


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
    if not isinstance(stamp, dict) or not stamp:
        return Made(name, {}, "no stamp")
    return Made(name, stamp, key="code")


def status_table(made: list[Made], kind: str) -> Table | Text:
    """When, where and by which code each of them was made."""
    if not made:
        return Text(f"There are no stored {kind}s.")
    present = present_code()
    rows = [[f"`{item.name}`", _emphasis(item.state(present)), *_facts(item)] for item in made]
    return Table(
        name=f"tab-status-{kind}s",
        caption=f"Stored {kind}s. " + _meaning(kind, present),
        header=[kind, "state", "code", "seconds", "device"],
        rows=rows,
        left=5,
        collapsed=f"All {kind}s" if len(rows) > 12 else "",
    )


def _meaning(kind: str, present: Mapping[str, str]) -> str:
    """What the states of a table mean."""
    if kind == "page":
        return (
            f"Current: run by the code of `cae_lib` as it is now (git tree `{present['tree'][:12]}`"
            "); stale: run by other code, so what it says may differ from a new run's."
        )
    return (
        "Current: measured by the code as it is now, but for the parts of `cae_lib` that only "
        f"present results (hash `{present['code'][:12]}`); stale: measured by other code, so a new "
        "run's numbers may differ; unknown: stored without that hash, and other code since then."
    )


def _emphasis(state: str) -> str:
    return state if state == "current" else f"**{state}**"


def _facts(item: Made) -> list[str]:
    stamp = item.stamp
    code = str(stamp.get(item.key, stamp.get("tree", NONE)))[:8]
    values = [code, stamp.get("wall_seconds"), stamp.get("device")]
    return [NONE if value is None else str(value) for value in values]


def summary(found_pages: list[Made], found_records: list[Made]) -> Text:
    """How many pages and records are current, in a sentence or two."""
    present = present_code()
    sentences = []
    for made, noun in ((found_pages, "page"), (found_records, "record")):
        states = [item.state(present) for item in made]
        kinds = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        listed = listing(kinds) or "none"
        sentences.append(f"Of {count(len(made), f'stored {noun}')}: {listed}.")
    return Text(" ".join(sentences))
