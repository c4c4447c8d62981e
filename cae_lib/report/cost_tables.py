"""The tables of the page `cost`: steps, memory, scores and targets."""

from __future__ import annotations

import statistics

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
    text_seconds,
)
from cae_lib.report.cost_targets import target_rows, targets_of
from cae_lib.report.markup import NONE, Table, Text, count, number

GIGA = 1e9


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
    """Seconds and ratios of a training step; a row a candidate."""
    if record is None:
        return notice(STEP)
    rows = []
    for name in candidates(record):
        text = None if name.startswith("images") else text_seconds(record, name)
        rows.append([
            labels(record)[name], seconds(record, name).text(1),
            *(_cell(ratio(record, name, other)) for other in ("open_clip", "clip-ft")),
            NONE if text is None else text.text(1),
        ])  # fmt: skip
    few = [n for n in candidates(record) if seconds(record, n).n < record.config["rounds"]]
    shorter = "" if not few else (
        f" ({', '.join(labels(record)[n] for n in few)}: {seconds(record, few[0]).n})"
    )  # fmt: skip
    return Table(
        name="tab-step-cost",
        caption="One training step, forward, backward and AdamW: median over "
        f"{count(record.config['rounds'], 'round')}{shorter} [least, largest]. Ratios are taken "
        "within a round, and so is the difference to the image encoder alone.",
        header=["step", "seconds", "÷ (a)", "÷ (b)", "seconds without image encoder"],
        rows=rows,
    )


def memory_table(record: Record | None) -> Table | Text:
    """Peak memory of a training step; a row a candidate."""
    if record is None:
        return Text("")
    rows = []
    for name in candidates(record):
        own, fixed = step_bytes(record, name), record.results["fixed_bytes"]
        rows.append([
            labels(record)[name], number((fixed + own) / GIGA, 2),
            _cell(memory_ratio(record, name, "clip-ft")), number(own / GIGA, 2),
            _cell(memory_ratio(record, name, "clip-ft", fixed=False)),
        ])  # fmt: skip
    return Table(
        name="tab-step-memory",
        caption="Peak memory of one training step in GB: weights and optimiser state included, and "
        "of it what the step itself allocates, which is gradients and activations.",
        header=["step", "peak", "÷ (b)", "the step's part", "÷ (b)"],
        rows=rows,
    )


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


def _cell(found: Spread | None) -> str:
    if found is None:
        return NONE
    return found.text() if found.n > 1 and found.low != found.high else number(found.median, 2)
