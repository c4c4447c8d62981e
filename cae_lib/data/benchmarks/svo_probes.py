"""What rows of SVO-Probes differ in: see its entry in `table`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cae_lib.data import rows

if TYPE_CHECKING:
    from cae_lib.data.benchmarks.read import Collector

GROUPS = ("subj", "verb", "obj")
MIXED = "mixed"


def kind(row: object) -> str:
    """The one part that the negative changes, by the flags of a row, or `MIXED`."""
    flags = [group for group in GROUPS if _flag(row, f"{group}_neg")]
    return flags[0] if len(flags) == 1 else MIXED


def headline(collector: Collector) -> dict[str, Any]:
    """The macro average runs over the kinds that are there, but for `MIXED`, which is counted."""
    present = [item.group for item in collector.items]
    collector.counts[MIXED] = present.count(MIXED)
    return {"macro_groups": tuple(group for group in GROUPS if group in present)}


def _flag(row: object, key: str) -> bool:
    word = rows.text(row, key).strip().lower()
    if word not in ("true", "false"):
        raise rows.RowError(f"field '{key}' is {word!r}, True or False was expected")
    return word == "true"
