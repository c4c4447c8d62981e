"""The last cell of every page: where its numbers come from, and whether they are the present ones.

A page shows the present numbers while the profile's stored tables, and the code that reads and
draws them, are as they were when it ran, and its cells are those of its text.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cae_lib import results
from cae_lib.pages.build import smoke_book
from cae_lib.pages.check import check_pair
from cae_lib.pages.source import experiments_folder, page_names
from cae_lib.runtime import PACKAGE, changed, circumstances, file_hash

MIME = "application/vnd.cae.provenance+json"
PRESENTING = ("results", "statistics", "plots")
"""Modules that stand between the stored tables and a page."""


@dataclass(frozen=True)
class Provenance:
    """A stamp as a folded list for the reader and as data for `states`."""

    content: Mapping[str, Any]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What a notebook stores."""
        items = "".join(f"<li>{html.escape(name)}: <code>{html.escape(str(value))}</code></li>"
                        for name, value in _lines(self.content))
        title = "Where these numbers come from"
        return {
            MIME: dict(self.content),
            "text/html": f"<details><summary>{title}</summary><ul>{items}</ul></details>",
            "text/plain": json.dumps(self.content, sort_keys=True),
        }


def provenance(profile: str, **extra: Any) -> Provenance:
    """Stamp a page with the state that it ran in.

    Args:
        profile: The page's profile.
        extra: Further entries, such as ``seeds``.
    """
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Provenance(page_stamp(profile, when=when, **extra))


def page_stamp(profile: str, **extra: Any) -> dict[str, Any]:
    """Describe the state that a page is run in: `tables` is `tables_hash`."""
    return {"tables": tables_hash(profile), "dirty": changed(), **circumstances(profile)} | extra


def tables_hash(profile: str) -> str:
    """Hash the name and key of each stored table of a profile, and `PRESENTING`."""
    code = [file_hash(PACKAGE / f"{name}.py") for name in PRESENTING]
    tables = results.made(profile)[["table", "run", "seed", "key"]].values.tolist()
    return hashlib.sha256(json.dumps([code, tables]).encode()).hexdigest()


def states(profile: str) -> pd.DataFrame:
    """For each page its `state`: "current", "stale", or what is wrong; and its stamp's entries."""
    present = tables_hash(profile)
    folder = smoke_book() / "experiments" if profile == "smoke" else experiments_folder()
    rows = []
    for name in page_names():
        state, stamp = _state(folder / f"{name}.ipynb", profile, present)
        known = {key: stamp.get(key) for key in ("when", "wall_seconds", "device")}
        rows.append({"page": name, "state": state, **known})
    return pd.DataFrame(rows)


def _state(path: Path, profile: str, present: str) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        return "not run yet", {}
    try:
        outputs = [output for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
                   for output in cell.get("outputs", [])]
        stamps = [output["data"][MIME] for output in outputs if MIME in output.get("data", {})]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "cannot be read", {}
    if not stamps:
        return "has no stamp", {}
    text = experiments_folder() / f"{path.stem}.md"
    if profile != "smoke" and check_pair(text, path):
        return "breaks a rule", stamps[-1]
    return "current" if stamps[-1].get("tables") == present else "stale", stamps[-1]


def _lines(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The entries of a stamp in the reader's words."""
    committed = {None: "no git", True: "with uncommitted changes", False: "committed"}
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines = [
        ("tables", content["tables"][:12]), ("code", committed[content["dirty"]]),
        ("profile", content["profile"]), ("seeds", content.get("seeds")),
        ("run on", content.get("when")), ("took", f"{content['wall_seconds']} s"),
        ("device", content["device"]), ("versions", versions),
        ("data (manifest)", content["data"]),
    ]
    return [(name, value) for name, value in lines if value is not None]
