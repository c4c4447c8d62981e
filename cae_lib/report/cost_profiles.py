"""Why a step takes as long as it does: operators, and the part no attribution method can change."""

from __future__ import annotations

from collections.abc import Sequence

from cae_lib.records import Record
from cae_lib.report.cost import STEP, images_of, labels, notice, ratio, seconds, text_seconds
from cae_lib.report.cost_targets import Target, missed
from cae_lib.report.markup import NONE, Table, Text, number, show

OPERATORS = 8
PHASES = ("forward", "backward", "optimiser")


def operator_tables(record: Record, names: Sequence[str]) -> list[Table]:
    """Phases and slowest operators of one profiled step of each candidate."""
    return [_operators(record, name) for name in names]


def reasons(record: Record | None) -> Text:
    """The profiles of what missed a target, beside CLIP-FT's; a sentence if none did."""
    if record is None:
        return notice(STEP)
    found = [target for target, _ in missed(record)]
    if not found:
        return Text("No target is missed.")
    slow = [target.reference if target.at_least else target.subject for target in found]
    bounds = [_bound(record, target) for target in found if target.at_least]
    profiles = operator_tables(record, list(dict.fromkeys(["clip-ft", *slow])))
    return show(*bounds, *profiles)


def _bound(record: Record, target: Target) -> Text:
    """How much of a speed-up the shared image encoder leaves room for."""
    most = ratio(record, target.subject, images_of(target.reference))
    parts = [text_seconds(record, name) for name in (target.subject, target.reference)]
    names = [labels(record)[name] for name in (target.subject, target.reference)]
    if most is None or None in parts:
        return Text(f"{names[1]}: the image encoder was not measured alone.")
    return Text(
        f"{names[1]}: the image encoder alone takes "
        f"{number(seconds(record, images_of(target.reference)).median, 2)} of the step's "
        f"{number(seconds(record, target.reference).median, 2)} seconds. With it, no text part, "
        f"however fast, makes the step more than {number(most.median, 2)} times as fast as "
        f"{names[0]}. Without the image encoder, {number(parts[0].median, 2)} seconds stand "
        f"against {number(parts[1].median, 2)}."
    )


def _operators(record: Record, name: str) -> Table:
    found = record.results["profiles"][name]
    phases = {name: found["phases"][name] for name in PHASES if name in found["phases"]}
    rows = [[f"*{name}*", number(value, 2), _share(value, found), NONE]
            for name, value in phases.items()]  # fmt: skip
    rows += [
        [f"`{o['name']}`", number(o["seconds"], 2), _share(o["seconds"], found), str(o["calls"])]
        for o in found["operators"][:OPERATORS]
    ]
    return Table(
        name=f"tab-operators-{name}",
        caption=f"{labels(record)[name]}: phases and slowest operators of one profiled step of "
        f"{number(found['seconds'], 2)} seconds; an operator's time leaves out the operators it "
        "calls.",
        header=["part", "seconds", "%", "calls"],
        rows=rows,
    )


def _share(value: float, found: dict) -> str:
    return number(100 * value / found["seconds"], 0)
