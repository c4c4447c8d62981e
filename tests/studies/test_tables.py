"""What studies compute from stored tables and printed numbers, against numbers worked by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from book.studies import blind, claims, footings
from book.studies.footings import (
    FOUR,
    FROM_TEXT,
    MEANS,
    WITH_TRUTH,
    find_footings,
    is_stored,
)
from book.studies.sweep import stored_trials, values_to_try
from cae_bench.statistics import ITEM_KEY
from cae_lab.profiles import load_profile
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.errors import DataError

PARSED = ["cae-binding", "placebo-binding", "wrong-binding", "softmax-binding", "negclip"]
TRUTH = [*MEANS[footings.FOUR_TRUTH], "truth-binding", "negclip", "hinge-negclip"]


def test_average_picture_stands_for_every_picture(choice, benchmark_of, hand_encoder, monkeypatch):
    encoder = hand_encoder(
        {"a": [1, 0], "b": [0, 1], "c": [1, 0]},
        {"right": [0.8, 0.6], "left": [0.6, 0.8], "up": [0.0, 1.0]},
    )
    pairs = ImageCaptionPairs([Path(name) for name in "abc"], [], torch.tensor([]), "toy", 0, 0)
    items = choice(["p"], ["left", "up"]), choice(["q"], ["left", "right"])
    monkeypatch.setattr(blind, "available_training_pairs", lambda profile: pairs)
    monkeypatch.setattr(blind, "load_benchmarks", lambda profile: [benchmark_of(*items)])
    table = blind.average_image_table(encoder, load_profile("smoke"))
    assert set(table.chooser) == {"average picture"} and table.share.tolist() == [1, 0]


def test_expected_gain_is_caes_share_of_the_controls_gain(tmp_path, monkeypatch):
    """By columns, then with those of a benchmark counted once."""
    printed = tmp_path / "paper.csv"
    cae = '"CLIP-CAE, mean of 4"'
    monkeypatch.setattr(claims, "bundled_path", lambda name: printed)
    printed.write_text(f"model,A,B,Winoground\nCLIP-FT,50,60,9\nNegCLIP,60,64,\n{cae},51,62.5,1\n")
    gains = claims.printed_gains().to_dict()
    assert gains == {"CLIP-FT": 0.0, "NegCLIP": 7.0, "CLIP-CAE, mean of 4": 1.75}
    assert claims.expected_gain(0.08) == pytest.approx(0.02)
    # 1.75 of 45 wrong answers in a hundred
    assert claims.expected_addition(0.7) == pytest.approx(1.75 / 45 * 0.3)
    printed.write_text(
        f"model,A-x,A-y,B,Winoground\nCLIP-FT,50,50,50,\nNegCLIP,56,58,53,\n{cae},52,50,51,\n"
    )
    assert claims.printed_gains(by_family=True)["NegCLIP"] == pytest.approx((7 + 3) / 2)
    assert claims.expected_gain(1, by_family=True) == pytest.approx((1 + 1) / (7 + 3))


def test_runs_are_pooled_item_by_item_and_seed_by_seed():
    rows = [("a", 0, 1, 1), ("b", 0, 1, 0), ("a", 1, 1, 1), ("b", 1, 1, 1)]
    rows += [("a", 0, 2, 0), ("b", 0, 2, 0), ("c", 0, 2, 1)]
    answers = pd.DataFrame(rows, columns=["run", "seed", "item", "correct"])
    answers = answers.assign(**dict.fromkeys(set(ITEM_KEY) - {"item"}, "x"), picture="x")
    pooled = claims.average_runs(answers, {"both": ["a", "b"]})
    assert set(pooled["run"]) == {"both"}
    means = pooled.set_index(["seed", "item"])["correct"].to_dict()
    assert means == {(0, 1): 0.5, (1, 1): 1.0, (0, 2): 0.0}
    with pytest.raises(DataError, match="'both'.*answers: d, e"):
        claims.average_runs(answers, {"both": ["a", "e", "d"]})


def test_text_solves_what_either_likelihood_prefers_and_no_tie():
    """Items and families weigh alike in both parts, whatever their numbers are."""
    names = [("aro", "relation", item) for item in range(4)]
    names += [("crepe", "atom", item) for item in range(2)]
    items = pd.DataFrame(names, columns=ITEM_KEY).assign(group="", stratum="", chance=0.5)
    items["weight"] = [1 / 4] * 4 + [1 / 2] * 2
    shares = {"likelihood": [1, 0.5, 0, 0, 1, 0], "likelihood_per_word": [0, 0, 0, 1, 0, 0]}
    shares["longer"] = [1] * 6
    answers = pd.concat(items.assign(chooser=name, share=row) for name, row in shares.items())
    table = blind.weights_by_text(items, answers[["chooser", *ITEM_KEY, "share"]])
    found = table.set_index(["part", "name", "family", "item"])["weight"].unstack("name")
    for part, aro, crepe in (("solved by text alone", (0, 3), 0), ("not solved", (1, 2), 1)):
        assert found.loc[part, "ARO"].dropna().to_dict() == {("aro", item): 0.5 for item in aro}
        assert found.loc[part, "mean"].dropna().to_dict() == {
            **{("aro", item): 0.25 for item in aro},
            ("crepe", crepe): 0.5,
        }


@pytest.fixture
def store(monkeypatch):
    """Return a function that says which runs are stored, with two seeds each."""

    def keep(runs):
        index = {(run, seed) for run in runs for seed in (0, 1)}
        monkeypatch.setattr(footings.results, "index_of", lambda table, profile, suites: index)

    return keep


def test_footing_takes_the_dependency_parser_and_else_the_papers(store):
    store([*PARSED, "dependency-binding", "spacy-negclip"])
    runs = find_footings("mini", 2)
    assert set(runs) == {FROM_TEXT}, "no ground truth is stored"
    assert runs[FROM_TEXT]["swap-margin loss"] == "dependency-binding"
    assert runs[FROM_TEXT]["placebo: shuffled roles"] == "placebo-binding"
    assert runs[FROM_TEXT]["NegCLIP"] == "spacy-negclip"
    assert find_footings("mini", 3)[FROM_TEXT]["swap-margin loss"] == "cae-binding"


def test_footing_of_ground_truth_needs_all_runs_of_a_mean(store):
    store([*PARSED, *TRUTH])
    assert find_footings("mini", 2)[WITH_TRUTH] == {
        FOUR: footings.FOUR_TRUTH,
        "swap-margin loss": "truth-binding",
        "NegCLIP": "negclip",
        "margin loss": "hinge-negclip",
    }
    store(MEANS[FOUR])
    assert is_stored(FOUR, "mini", 2) and not is_stored(FOUR, "mini", 3)
    store(MEANS[FOUR][1:])
    assert not is_stored(FOUR, "mini", 2)


def test_trials_of_a_run_have_its_learning_rate_and_its_other_settings():
    config = load_profile("mini").experiment("cae-gradcam")  # λ 0.1, margin 0
    stored = pd.DataFrame([{"weight": 0.1}, {"weight": 0.3}, {"weight": 0.1, "margin": 0.05}])
    stored["experiment"] = "cae-gradcam"
    assert np.isnan(stored["margin"][0])
    assert stored_trials(stored, config, "margin")["margin"].tolist() == [0.0, 0.05]
    assert stored_trials(stored, config, "weight")["weight"].tolist() == [0.1, 0.3]
    assert stored_trials(stored, load_profile("mini").experiment("cae-attention"), "margin").empty
    config = load_profile("photo").experiment("clip-ft")
    rows = [{"experiment": "clip-ft", "lr": lr, "score": lr} for lr in (1e-4, config.lr, 1e-3)]
    assert stored_trials(pd.DataFrame(rows), config)["score"].tolist() == [config.lr]


@pytest.mark.parametrize(
    ("tried", "configured", "values"),
    [
        ([0.3, 0.1], 0.1, [0.3, 0.1]),
        ([0.0], 0.0, [0.0, 0.05, 0.1]),
        ([0.1], 0.1, [0.05, 0.1, 0.2]),
        ([], 0.2, [0.05, 0.1, 0.2]),
        ([], 0.07, [0.05, 0.07, 0.1]),
    ],
)
def test_fewer_than_two_stored_values_are_completed_by_neighbours(tried, configured, values):
    assert values_to_try(tried, (0.05, 0.1, 0.2), configured) == values
