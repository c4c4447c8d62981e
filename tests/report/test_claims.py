"""The rules of the verdicts, and that changing a record changes the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from cae_lib.evaluation.statistics import Interval
from cae_lib.report.attribution import RoleScores
from cae_lib.report.claims import (
    judge_benchmarks,
    judge_deficiency,
    judge_levelling,
    levelling,
    shows_deficiency,
)
from cae_lib.report.verdicts import verdicts, verdicts_if_measured

METHODS = ("attention", "gradcam", "perturbation", "gradient")
LEVEL = {"object": 0.14, "attribute": 0.14, "relation": 0.14}
OPEN = {"object": 0.18, "attribute": 0.11, "relation": 0.12}


def flat(objects: float, attributes: float, relations: float, spread: float = 0.0) -> RoleScores:
    """Scores of 40 captions that vary by `spread` about the given means."""
    wave = spread * np.where(np.arange(40) % 2, 1.0, -1.0)
    values = {"object": objects, "attribute": attributes, "relation": relations}
    captions = {role: np.atleast_2d(value + wave) for role, value in values.items()}
    captions["object"] = captions["object"] - wave + spread * np.where(np.arange(40) % 4 < 2, 1, -1)
    return RoleScores(captions, {}, dict.fromkeys(values, 40))


@pytest.mark.parametrize(
    ("scores", "shown"),
    [
        (flat(0.25, 0.2, 0.2), True),
        (flat(0.249, 0.2, 0.2), False),
        (flat(0.30, 0.1, 0.25), False),
        (flat(0.30, 0.25, 0.1), False),
        (flat(0.30, 0.2, 0.2, spread=0.5), False),
        (flat(0.10, -0.1, 0.0), True),
    ],
    ids=["just", "too small", "relations", "attributes", "uncertain", "negative"],
)
def test_a_clear_lead(scores: RoleScores, shown: bool):
    assert shows_deficiency(scores) is shown


def test_deficiency_by_the_share_of_methods():
    yes, no = flat(0.3, 0.1, 0.1), flat(0.1, 0.1, 0.1)
    found = dict.fromkeys(METHODS, yes)
    assert judge_deficiency(found).status == "reproduced"
    assert judge_deficiency(found | {"gradient": no}).status == "reproduced"
    partly = judge_deficiency(found | {"gradient": no, "gradcam": no})
    assert partly.status == "partly"
    assert "by attention and perturbation, but not by GradCAM and gradient" in partly.reason
    assert judge_deficiency(dict.fromkeys(METHODS, no)).status == "not"
    assert judge_deficiency({}).status == "untested"


@pytest.mark.parametrize(
    ("tuned", "cae", "outcome"),
    [
        (flat(0.20, 0.1, 0.1), flat(0.15, 0.11, 0.11), "level"),
        (flat(0.20, 0.1, 0.1), flat(0.10, 0.13, 0.13), "level"),
        (flat(0.20, 0.1, 0.1), flat(0.17, 0.11, 0.11), "reduced"),
        (flat(0.20, 0.1, 0.1), flat(0.10, 0.16, 0.16), "reversed"),
        (flat(0.20, 0.1, 0.1), flat(0.20, 0.10, 0.10), "open"),
        (flat(0.20, 0.1, 0.1), flat(0.15, 0.11, 0.11, spread=0.9), "open"),
        (flat(0.10, 0.1, 0.1), flat(0.10, 0.13, 0.13), "none"),
        (flat(0.20, 0.1, 0.1), flat(0.02, 0.01, 0.01), "reduced"),
    ],
    ids=["half", "beyond", "little", "too far", "same", "uncertain", "no gap", "all scores shrink"],
)
def test_what_becomes_of_a_gap(tuned: RoleScores, cae: RoleScores, outcome: str):
    assert levelling(tuned, cae) == outcome


def test_levelling_needs_all_four_methods():
    level, same = (flat(0.2, 0.1, 0.1), flat(0.1, 0.1, 0.1)), (flat(0.2, 0.1, 0.1),) * 2
    assert judge_levelling(dict.fromkeys(METHODS, level)).status == "reproduced"
    alone = judge_levelling({"attention": level})
    assert alone.status == "partly"
    assert "GradCAM, perturbation and gradient has not been trained" in alone.reason
    assert judge_levelling(dict.fromkeys(METHODS, level) | {"gradcam": same}).status == "partly"
    assert judge_levelling(dict.fromkeys(METHODS, same)).status == "not"
    assert judge_levelling({}).status == "untested"
    none = (flat(0.1, 0.1, 0.1),) * 2
    assert judge_levelling({"attention": none}).status == "untested"


def families(won: int, lost: int, other: int) -> dict[str, Interval]:
    ends = [(0.01, 0.05)] * won + [(-0.05, -0.01)] * lost + [(-0.01, 0.05)] * other
    return {str(i): Interval(sum(e) / 2, *e, 0.95, 100, 3) for i, e in enumerate(ends)}


@pytest.mark.parametrize(
    ("won", "lost", "status"),
    [(7, 0, "reproduced"), (5, 0, "reproduced"), (4, 0, "partly"), (6, 1, "partly"),
     (1, 0, "partly"), (1, 1, "not"), (0, 0, "not"), (0, 3, "not")],
)  # fmt: skip
def test_benchmarks_by_families_won_and_lost(won: int, lost: int, status: str):
    row = families(won, lost, 7 - won - lost)
    assert judge_benchmarks(dict.fromkeys(METHODS, row)).status == status
    alone = judge_benchmarks({"attention": row}).status
    assert alone == ("partly" if status == "reproduced" else status)


def test_one_method_that_fails_spoils_whichever():
    table = dict.fromkeys(METHODS, families(7, 0, 0)) | {"gradient": families(0, 0, 7)}
    assert judge_benchmarks(table).status == "partly"
    assert judge_benchmarks({}).status == "untested"


def test_the_verdicts_follow_the_records(store):
    before = {name: verdict.status for name, verdict in verdicts("smoke").items()}
    assert before == dict.fromkeys(("C1", "C2", "C3"), "reproduced") | {"C5": "partly"} | (
        dict.fromkeys(("C4", "C6", "C7", "C8"), "untested")
    )
    store.attribution("base", LEVEL)
    assert verdicts("smoke")["C1"].status == "not"
    for method in METHODS:
        assert verdicts("smoke")["C2"].status != "not"
        store.attribution(f"cae-{method}", OPEN)
        store.benchmarks(f"cae-{method}", 0.65)
        assert verdicts("smoke")["C3"].status != "reproduced"
    assert {verdicts("smoke")[claim].status for claim in ("C2", "C3")} == {"not"}


def test_a_profile_without_records_has_no_verdicts(store):
    assert verdicts_if_measured("paper") is None


def test_a_verdict_is_told_by_word_and_class(store):
    text = verdicts("smoke")["C1"].text()._repr_markdown_()
    assert '<span class="verdict-reproduced">reproduced</span>' in text and "*The rule.*" in text
