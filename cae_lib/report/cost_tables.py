"""The tables of the page `cost`: steps, scores, targets and operators."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cae_lib.records import Record
from cae_lib.report.cost import (
    SCORES,
    STEP,
    Spread,
    candidates,
    labels,
    memory_ratio,
    notice,
    ratio,
    seconds,
    step_bytes,
)
from cae_lib.report.cost_targets import missed, target_rows, targets_of
from cae_lib.report.markup import NONE, Table, Text, count, number, show

GIGA = 1e9
OPERATORS = 8


def conditions(record: Record | None) -> Text:
    """Machine, model, captions and the check of equality, in sentences; nothing without record."""
    if record is None:
        return Text("")
    config, found = record.config, record.results
    lengths = [length for batch in found["lengths"] for length in batch]
    longest = [max(batch) for batch in found["lengths"]]
    where = record.provenance["device"]
    if config["device"] == "cpu":
        where = f"{where.rsplit(',', 1)[0]}, {count(config['threads'], 'thread')}"
    if config["clock"] == "cpu":
        where += " (seconds of the processor, which other programs hardly disturb)"
    checks = ", ".join(f"{labels(record)[key]} {parts['scores']:.0e}"
                       for key, parts in found["equal"].items())  # fmt: skip
    return Text(
        f"Measured on {where}, in {config['precision']}: {config['model']} with random weights, "
        f"{count(config['batch'], 'caption')} a batch, {count(config['rounds'], 'round')}, a batch "
        f"of its own in each round. The {found['n_captions']} captions come from "
        f"`{config['captions']}`; they have {min(lengths)} to {max(lengths)} tokens (median "
        f"{statistics.median(lengths):g}), and the longest of a batch {min(longest)} to "
        f"{max(longest)}, against 77 of the padded context. Largest difference between scores of "
        f"the two ways to compute them, on {count(found['n_checked'], 'caption')}: {checks}."
    )


def step_table(record: Record | None) -> Table | Text:
    """Seconds, ratios and peak memory of a training step; a row a candidate."""
    if record is None:
        return notice(STEP)
    rows = []
    for name in candidates(record):
        total = record.results["fixed_bytes"] + step_bytes(record, name)
        rows.append([
            labels(record)[name], seconds(record, name).text(1),
            *(_cell(ratio(record, name, other)) for other in ("open_clip", "clip-ft")),
            number(total / GIGA, 2), number(step_bytes(record, name) / GIGA, 2),
            *_memory_cells(record, name),
        ])  # fmt: skip
    few = [n for n in candidates(record) if seconds(record, n).n < record.config["rounds"]]
    shorter = "" if not few else (
        f" ({', '.join(labels(record)[n] for n in few)}: {seconds(record, few[0]).n})"
    )  # fmt: skip
    return Table(
        name="tab-step-cost",
        caption="One training step, forward, backward and AdamW: median over "
        f"{count(record.config['rounds'], 'round')}{shorter} [least, largest]; ratios are taken "
        "within a round. Memory is the peak of one step: weights and optimiser state included, and "
        "of it what the step itself allocates, gradients and activations.",
        header=["step", "seconds", "÷ (a)", "÷ (b)", "peak memory, GB", "of it the step's, GB",
                "memory ÷ (b)", "the step's ÷ (b)"],
        rows=rows,
    )  # fmt: skip


def score_table(record: Record | None) -> Table | Text:
    """Seconds of scoring captions without training, and ratios to ours."""
    if record is None:
        return notice(SCORES)
    ours = {t.subject: t.reference for t in targets_of(record)} | {"plain-gradcam": "gradcam"}
    rows = []
    for name in candidates(record):
        reference = ours.get(name, name)
        rows.append([
            labels(record)[name], labels(record)[reference], seconds(record, name).text(2),
            _cell(ratio(record, name, reference)),
        ])  # fmt: skip
    return Table(
        name="tab-score-cost",
        caption=f"Scoring {count(record.config['batch'], 'caption')} without training: median over "
        f"{count(record.config['rounds'], 'round')} [least, largest]; ratios are taken within a "
        "round.",
        header=["scores by", "same scores as", "seconds", "÷ ours"],
        rows=rows,
        left=2,
    )


def target_table(record: Record | None) -> Table | Text:
    """Every target with what was found; nothing without record."""
    if record is None:
        return Text("")
    part = "step" if record.name == STEP else "score"
    return Table(
        name=f"tab-{part}-targets",
        caption="Targets set before the measurement, and what was found: median over rounds "
        "[least, largest]; the median decides.",
        header=["ratio", "target", "found", "met"],
        rows=target_rows(record),
        left=2,
    )


def operator_tables(record: Record, names: Sequence[str]) -> list[Table]:
    """Phases and slowest operators of one profiled step of each candidate."""
    return [_operators(record, name) for name in names]


def reasons(record: Record | None) -> Text:
    """The profiles of what missed a target, beside CLIP-FT's; a sentence if none did."""
    if record is None:
        return notice(STEP)
    slow = [t.reference if t.at_least else t.subject for t, _ in missed(record)]
    if not slow:
        return Text("No target is missed.")
    return show(*operator_tables(record, list(dict.fromkeys(["clip-ft", *slow]))))


def _memory_cells(record: Record, name: str) -> list[str]:
    """Ratio to CLIP-FT of the peak, and of the step's own part."""
    found = memory_ratio(record, name, "clip-ft")
    if found is None:
        return [NONE, NONE]
    own = step_bytes(record, name) / step_bytes(record, "clip-ft")
    return [number(found.median, 2), number(own, 2)]


def _operators(record: Record, name: str) -> Table:
    found = record.results["profiles"][name]
    rows = [[f"*{phase}*", number(value, 2), _share(value, found), NONE]
            for phase, value in found["phases"].items()]  # fmt: skip
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


def _cell(found: Spread | None) -> str:
    if found is None:
        return NONE
    return found.text() if found.n > 1 and found.low != found.high else number(found.median, 2)
