"""Zero-shot classification before and after fine-tuning, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.statistics import mean_interval, paired_difference
from cae_lib.evaluation.zero_shot import ZeroShotResult
from cae_lib.measurements import results
from cae_lib.records import Record
from cae_lib.report.markup import NONE, Table, count, emphasised, percent
from cae_lib.report.retrieval import SETS
from cae_lib.report.runs import BASE, TUNED, label
from cae_lib.report.stored import if_measured, require

SUITE = "zero_shot"


def shares(run: str, profile: str, name: str, k: int, seeds: int) -> np.ndarray:
    """For each picture `(S, n)`, the share of its classes among the k closest."""
    found = [_result(record, name) for record in results(run, profile, SUITE, seeds)]
    return np.stack([result.shares(k) for result in found])


def _result(record: Record, name: str) -> ZeroShotResult:
    if name not in record.results:
        raise DataError(f"record {record.name} has no set {name!r}: compute it anew")
    return ZeroShotResult.from_record(record.results[name])


@if_measured
def zero_shot_table(runs: Sequence[str], profile: str, seeds: int) -> Table:
    """Top-1 and top-5 on every set, and what each run lost against CLIP and won against CLIP-FT."""
    require([BASE, TUNED, *runs], profile, SUITE, seeds)
    first = results(BASE, profile, SUITE, 1)[0].results
    rows = []
    for name in first:
        for run in runs:
            own = {k: shares(run, profile, name, k, seeds) for k in (1, 5)}
            cells = [percent(mean_interval(own[k], resample_seeds=True)) for k in own]
            for other in (BASE, TUNED):
                pointless = run == other or (run == BASE and other == TUNED)
                cells.append(NONE if pointless else _minus(own[1], shares(
                    other, profile, name, 1, seeds)))  # fmt: skip
            rows.append([SETS.get(name, name), label(run), *cells, str(own[1].shape[1])])
    classes = ", ".join(f"{SETS.get(k, k)} {part['n_classes']}" for k, part in first.items())
    return Table(
        name="tab-zero-shot",
        caption=f"Zero-shot classification in percent (classes: {classes}); "
        f"{count(seeds, 'seed')} of each trained model averaged, one CLIP; 95 % bootstrap "
        "intervals over seeds and pictures, of which there are n. Differences of top-1 in "
        "percentage points, on the same pictures; bold: the interval excludes zero.",
        header=["set", "model", "top-1", "top-5", "minus CLIP", "minus CLIP-FT", "n"],
        rows=rows,
        left=2,
    )


def _minus(first: np.ndarray, second: np.ndarray) -> str:
    found = paired_difference([first], [second], resample_seeds=True)
    return emphasised(percent(found, sign=True), found.excludes_zero)
