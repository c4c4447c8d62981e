"""Every verdict, C1 to C8, is computed from records: other records, another verdict."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cae_lib.report.runs import all_runs, hard_runs
from cae_lib.report.verdicts import judge

LEVEL = {"object": 0.14, "attribute": 0.14, "relation": 0.14}
OPEN = {"object": 0.18, "attribute": 0.11, "relation": 0.12}
NEAR = {"object": 0.5, "attribute": 0.6, "relation": 0.6}
FAR = {"object": 0.5, "attribute": 0.4, "relation": 0.4}
REFERENCES = ("base", "clip-ft", "negclip")


def all_claims_hold(store) -> None:
    """Records by which each of the eight claims is reproduced."""
    for run in all_runs("smoke"):
        better = run not in REFERENCES
        store.retrieval(run, (0.6, 0.7, 0.8) if better else (0.4, 0.6, 0.8))
        store.similarity(run, 0.05 if better else 0.2)
        store.phrases(run, NEAR if better else dict.fromkeys(NEAR, 0.5))
        store.heatmaps(run, *((0.3, 0.3) if better else (0.2, 0.2)))
    for run in hard_runs("smoke"):
        store.benchmarks(run, 0.7 if run in REFERENCES else 0.8)


CHANGES: dict[str, tuple[Callable, str]] = {
    "C1": (lambda store: store.attribution("base", LEVEL), "not"),
    "C2": (lambda store: store.attribution("cae-gradcam", OPEN), "partly"),
    "C3": (lambda store: store.benchmarks("cae-gradcam", 0.65), "partly"),
    "C4": (lambda store: store.benchmarks("negclip-cae-gradcam", 0.7), "partly"),
    "C5": (lambda store: store.retrieval("cae-gradcam", (0.2, 0.6, 0.8)), "partly"),
    "C6": (lambda store: store.similarity("cae-gradcam", 0.3), "partly"),
    "C7": (lambda store: store.phrases("cae-gradcam", FAR), "partly"),
    "C8": (lambda store: store.heatmaps("cae-gradcam", 0.3, 0.1), "partly"),
}


@pytest.mark.parametrize("claim", CHANGES)
def test_other_records_of_one_run_give_another_verdict(store, claim: str):
    all_claims_hold(store)
    before = judge(claim, "smoke", 3)
    assert before.status == "reproduced"
    change, status = CHANGES[claim]
    change(store)
    after = judge(claim, "smoke", 3)
    assert after.status == status
    assert after.reason != before.reason and after.ours != before.ours
