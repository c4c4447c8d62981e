"""Retrieval on the COCO and Flickr30k test sets: recall with intervals, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cae_lib.evaluation.retrieval import KS, RetrievalResult
from cae_lib.evaluation.statistics import Interval, mean_interval
from cae_lib.experiments import results
from cae_lib.report.markup import Table, count, number, percent
from cae_lib.report.runs import label

SETS: Mapping[str, str] = {"coco": "COCO", "flickr30k": "Flickr30k"}
DIRECTIONS: Mapping[str, str] = {"text": "image to text", "image": "text to image"}


def hits(run: str, profile: str, name: str, direction: str, k: int, seeds: int) -> np.ndarray:
    """Queries `(S, n)` whose answer is among the first k; `direction` is what is retrieved."""
    rows = []
    for record in results(run, profile, "retrieval", seeds):
        result = RetrievalResult.from_record(record.results[name])
        rows.append({"text": result.text_hits, "image": result.image_hits}[direction][k])
    return np.stack(rows).astype(np.float64)


def recall(run: str, profile: str, name: str, direction: str, k: int, seeds: int) -> Interval:
    """Recall at k with its interval over seeds and queries."""
    return mean_interval(hits(run, profile, name, direction, k, seeds), resample_seeds=True)


def retrieval_table(runs: Sequence[str], profile: str, seeds: int) -> Table:
    """Recall at 1 (with interval), 5 and 10, both ways, on both sets; a row a run."""
    rows = []
    for name, title in SETS.items():
        for direction, words in DIRECTIONS.items():
            for run in runs:
                found = [recall(run, profile, name, direction, k, seeds) for k in KS]
                rows.append([
                    f"{title}, {words}", label(run), percent(found[0]),
                    *(number(100 * f.estimate, 1) for f in found[1:]), str(found[0].n_items),
                ])  # fmt: skip
    return Table(
        name="tab-retrieval",
        caption=f"Retrieval recall in percent; {count(seeds, 'seed')} of each trained model "
        "averaged, one CLIP; 95 % bootstrap intervals over seeds and queries, of which there are n "
        "(pictures for image to text, captions for text to image).",
        header=["set and direction", "model", "R@1", "R@5", "R@10", "n"],
        rows=rows,
        left=2,
    )
