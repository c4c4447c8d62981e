"""Which runs stand for a loss on each footing, by what is stored."""

import pandas as pd
import pytest

from book.studies import footings
from book.studies.footings import (
    FOUR,
    FROM_TEXT,
    MEANS,
    WITH_TRUTH,
    by_footing,
    find_footings,
    is_stored,
)

PARSED = ["cae-binding", "placebo-binding", "wrong-binding", "softmax-binding", "negclip"]
TRUTH = [*MEANS[footings.FOUR_TRUTH], "truth-binding", "negclip", "hinge-negclip"]


@pytest.fixture
def store(monkeypatch):
    """Return a function that says which runs are stored, each with these seeds."""

    def keep(runs, seeds=(0, 1)):
        index = {(run, seed) for run in runs for seed in seeds}
        monkeypatch.setattr(footings.results, "index_of", lambda table, profile: index)

    return keep


def test_a_mean_is_stored_if_all_of_its_runs_are_with_all_seeds(store):
    store(MEANS[FOUR])
    assert is_stored(FOUR, "mini", 2)
    assert not is_stored(FOUR, "mini", 3)
    store(MEANS[FOUR][1:])
    assert not is_stored(FOUR, "mini", 2)


def test_the_dependency_parser_comes_first_and_the_papers_parser_stands_in_for_it(store):
    store([*PARSED, "dependency-binding", "spacy-negclip"])
    runs = find_footings("mini", 2)[FROM_TEXT]
    assert runs["swap-margin loss"] == "dependency-binding"
    assert runs["placebo: shuffled roles"] == "placebo-binding"
    assert runs["NegCLIP"] == "spacy-negclip"
    assert find_footings("mini", 3)[FROM_TEXT]["swap-margin loss"] == "cae-binding"


def test_ground_truth_is_left_out_as_far_as_it_is_not_stored(store):
    store(PARSED)
    assert set(find_footings("mini", 2)) == {FROM_TEXT}
    store([*PARSED, *TRUTH])
    assert find_footings("mini", 2)[WITH_TRUTH] == {
        FOUR: footings.FOUR_TRUTH,
        "swap-margin loss": "truth-binding",
        "NegCLIP": "negclip",
        "margin loss": "hinge-negclip",
    }


def test_a_loss_without_a_run_on_a_footing_has_an_empty_row():
    gains = pd.DataFrame({"estimate": [0.1, 0.2]}, index=["a", "b"])
    rows = by_footing(gains, {FROM_TEXT: {"x": "a", "y": "b"}, WITH_TRUTH: {"y": "b"}}, ["y", "x"])
    assert rows["footing"].tolist() == [FROM_TEXT] * 2 + [WITH_TRUTH] * 2
    assert rows["model"].tolist() == ["y", "x", "y", "x"]
    assert rows["estimate"].fillna(-1).tolist() == [0.2, 0.1, 0.2, -1]
