"""The last cell of every page: which code, versions, machine and data its numbers come from."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cae_lib.provenance import page_stamp

MIME = "application/vnd.cae.provenance+json"


@dataclass(frozen=True)
class Provenance:
    """A stamp as a folded list for the reader and as data for the status page."""

    content: Mapping[str, Any]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {
            MIME: dict(self.content),
            "text/html": self._html(),
            "text/plain": json.dumps(self.content, sort_keys=True),
        }

    def _html(self) -> str:
        items = "".join(
            f"<li>{html.escape(name)}: <code>{html.escape(value)}</code></li>"
            for name, value in _lines(self.content)
        )
        title = "Where these numbers come from"
        return f"<details><summary>{title}</summary><ul>{items}</ul></details>"


def provenance(profile: str, seeds: int | None = None) -> Provenance:
    """Stamp a page with the state that it ran in.

    Args:
        profile: The page's profile.
        seeds: Seeds that it averages over, if it does.
    """
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Provenance(page_stamp(profile, seeds=seeds, when=when))


def _lines(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The entries of a stamp in the reader's words."""
    dirty = {None: "no git", True: "not committed then", False: "committed"}
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines = [
        ("code (git tree of cae_lib)", f"{content['tree'][:12]}, {dirty[content['dirty']]}"),
        ("profile", content["profile"]),
        ("seeds", str(content["seeds"])),
        ("run on", content["when"]),
        ("took", f"{content['wall_seconds']} s"),
        ("device", content["device"]),
        ("versions", versions),
        ("data (manifest)", str(content["data"])),
    ]
    return [(name, value) for name, value in lines if value != "None"]
