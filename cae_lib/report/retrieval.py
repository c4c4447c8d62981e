"""Retrieval on the COCO and Flickr30k test sets: recalls and their differences, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cae_lib.evaluation.retrieval import KS, RetrievalResult
from cae_lib.evaluation.statistics import Interval, mean_interval, paired_difference
from cae_lib.measurements import results
from cae_lib.report.benchmark_figures import forest
from cae_lib.report.figure import Figure
from cae_lib.report.markup import Table, Text, count, emphasised, listing, number, percent
from cae_lib.report.paper import ORIENTATION
from cae_lib.report.runs import TUNED, label
from cae_lib.report.stored import NotMeasured, if_measured, require

SETS: Mapping[str, str] = {"coco": "COCO", "flickr30k": "Flickr30k"}
DIRECTIONS: Mapping[str, str] = {"text": "image to text", "image": "text to image"}
CELLS = tuple((name, direction) for name in SETS for direction in DIRECTIONS)


def stored_cells(runs: Sequence[str], profile: str, seeds: int) -> tuple[tuple[str, str], ...]:
    """Those of `CELLS` that all runs were measured on: a real set may have been left out."""
    records = [r for run in runs for r in results(run, profile, "retrieval", seeds)]
    return tuple(cell for cell in CELLS if all(cell[0] in r.results for r in records))


def hits(
    run: str, profile: str, name: str, direction: str, k: int, seeds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each query finds its answer among the first k `(S, n)`, and its picture `(n,)`.

    Raises:
        NotMeasured: The set was left out when the run was measured.
    """
    rows = []
    for record in results(run, profile, "retrieval", seeds):
        if name not in record.results:
            raise NotMeasured(f"{record.name} of the profile {profile} was measured without {name}")
        found, pictures = RetrievalResult.from_record(record.results[name]).queries(direction)
        rows.append(found[k])
    return np.stack(rows).astype(np.float64), pictures


def recall(run: str, profile: str, name: str, direction: str, k: int, seeds: int) -> Interval:
    """Recall at k with its interval over seeds and pictures."""
    found, pictures = hits(run, profile, name, direction, k, seeds)
    return mean_interval(found, clusters=pictures, resample_seeds=True)


def recall_difference(run: str, against: str, profile: str, name: str, direction: str, k: int,
                      seeds: int) -> Interval:  # fmt: skip
    """Recall at k of a run minus that of another one, on the same queries and seeds."""
    first, pictures = hits(run, profile, name, direction, k, seeds)
    second, _ = hits(against, profile, name, direction, k, seeds)
    return paired_difference([first], [second], clusters=[pictures], resample_seeds=True)


def cell_label(name: str, direction: str) -> str:
    """Set and direction in words."""
    return f"{SETS[name]}, {DIRECTIONS[direction]}"


@if_measured
def retrieval_table(runs: Sequence[str], profile: str, seeds: int, full: bool = False) -> Table:
    """Recall at 1, 5, 10, both ways, on both sets; a row a run. `full` has all intervals."""
    require(runs, profile, "retrieval", seeds)
    rows = []
    for name, direction in stored_cells(runs, profile, seeds):
        for run in runs:
            found = [recall(run, profile, name, direction, k, seeds) for k in KS]
            others = [percent(f) if full else number(100 * f.estimate, 1) for f in found[1:]]
            rows.append([cell_label(name, direction), label(run), percent(found[0]), *others,
                         str(found[0].n_items)])  # fmt: skip
    return Table(
        name="tab-retrieval-recalls" if full else "tab-retrieval",
        caption=f"Retrieval recall in percent; {count(seeds, 'seed')} of each trained model "
        "averaged, one CLIP; 95 % bootstrap intervals over seeds and pictures; n counts queries: "
        "pictures, or captions for text to image. A tie counts against the query.",
        header=["set and direction", "model", *(f"R@{k}" for k in KS), "n"],
        rows=rows,
        left=2,
    )


def retrieval_differences(
    runs: Sequence[str], profile: str, seeds: int, against: str = TUNED, ks: Sequence[int] = (1,)
) -> dict[str, dict[str, Interval]]:
    """For each run, its recalls minus those of `against`, by set, direction and k in words.

    Raises:
        NotMeasured: A record is missing.
    """
    require([*runs, against], profile, "retrieval", seeds)
    cells = stored_cells([*runs, against], profile, seeds)
    return {
        run: {
            f"{cell_label(*cell)}, R@{k}": recall_difference(run, against, profile, *cell, k, seeds)
            for cell in cells
            for k in ks
        }
        for run in runs
    }


@if_measured
def recall_forest(runs: Sequence[str], profile: str, seeds: int) -> Figure:
    """R@1 of the runs minus that of CLIP-FT, with intervals."""
    return forest(retrieval_differences(runs, profile, seeds))


@if_measured
def retrieval_difference_table(
    runs: Sequence[str], profile: str, seeds: int, against: str = TUNED
) -> Table:
    """Recalls of the runs minus those of `against`, in points; bold where it is not zero."""
    found = retrieval_differences(runs, profile, seeds, against, KS)
    rows = [
        [name, *(emphasised(percent(row[name], sign=True, lines=True), row[name].excludes_zero)
                 for row in found.values())]
        for name in next(iter(found.values()), {})
    ]  # fmt: skip
    return Table(
        name=f"tab-retrieval-minus-{against}",
        caption=f"Recall minus that of {label(against)} in percentage points, on the same queries "
        f"and seeds; {count(seeds, 'seed')} of each trained model; 95 % bootstrap intervals over "
        "seeds and pictures. Bold: the interval excludes zero.",
        header=["set, direction, recall", *(label(run) for run in found)],
        rows=rows,
    )


def orientation() -> Text:
    """What is known of the paper's scale, since its cells of Table 3 are not."""
    parts = [f"{cell_label(*cell)} {number(value, 1)}" for cell, value in ORIENTATION.items()]
    return Text(
        "The paper's cells of Table 3 could not be recovered, and none is guessed. For orientation "
        f"only, R@1 in percent of CLIP ViT-B/32 as downloaded: {listing(parts)}."
    )
