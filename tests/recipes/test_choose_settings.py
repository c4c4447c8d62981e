"""Settings are chosen on validation captions by the rules that are written down."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cae_lab import results
from cae_lab.profiles import load_profile
from cae_lab.runs import SearchSpace
from cae_lab.selection import choose_row, is_closed
from cae_lab.validation import validation_scores
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.errors import DataError
from cae_lib.methods import PAPER_METHODS
from cae_lib.training.distributed import Ranks
from cae_lib.training.objective import Objective
from data.recipes import choose_settings as choosing


@pytest.mark.parametrize(
    ("enough", "tried"),
    [
        (1.0, [0.3, 1.0]),
        (0.1, [0.03, 0.1, 0.3, 1.0]),
        (10.0, [1.0, 3.0, 10.0]),
        (1000.0, [1.0, 3.0, 10.0, 30.0, 100.0]),
    ],
)
def test_lambda_is_sought_only_around_the_smallest_that_closes_the_gap(enough: float, tried: list):
    """A gap may be a tenth of CLIP-FT's; where no lambda is enough, it is the largest."""
    rows = choosing.walk_weights(
        lambda weight: {"weight": weight, "gap": 0.1 if weight >= enough else 0.11},
        1.0,
        "gap",
        SearchSpace().weights,
    )
    assert [row["weight"] for row in rows] == tried
    assert choose_row(rows, 1.0, "gap")["weight"] == min(enough, 100.0)


def test_reversed_gap_of_any_size_counts_as_closed():
    """Where composition words score higher, no larger lambda is needed."""
    rows = [{"weight": w, "gap": gap} for w, gap in ((0.1, 0.5), (0.3, -0.4), (1.0, 0.05))]
    assert choose_row(rows, 1.0, "gap")["weight"] == 0.3
    assert is_closed(-2.0, 1.0) and not is_closed(0.11, 1.0)


@pytest.mark.parametrize(
    ("table", "profile", "settings"),
    [
        ("calibration", "mini", ("lr", "steps", "lock_image")),
        *(("sweep", profile, ("lr", "weight")) for profile in ("mini", "photo", "paired")),
        *(("binding", profile, ("margin", "weight")) for profile in ("mini", "photo", "paired")),
    ],
)
def test_configured_settings_are_those_that_were_chosen(monkeypatch, table, profile, settings):
    monkeypatch.delenv("CAE_HOME", raising=False)
    rows = results.load(table, profile, ["tuning"])
    best_rows = rows[rows["chosen"]].fillna({"weight": 0.0})
    for row in best_rows.itertuples():
        config = load_profile(profile).experiment(row.experiment)
        assert [getattr(config, name) for name in settings] == [
            getattr(row, name) for name in settings
        ], "a run with another value has another name: add it beside this one to configs"
    assert len(best_rows)


class HandEncoder:
    """An encoder of three images and texts; "c" is nearer to "b" than to "a"."""

    vectors = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8)}

    def encode_images(self, refs):
        return self.encode_texts([ref.path.name for ref in refs])

    def encode_texts(self, texts):
        return np.array([self.vectors[text] for text in texts], dtype=np.float32)


@pytest.mark.parametrize(
    ("captions", "index", "negatives", "recall", "against"),
    [
        # one of three negatives is as close as its caption, which is wrong
        ("ab", [0, 1], [["b", "a"], ["c"]], 1.0, 2 / 3),
        # two of three captions find their image, both images a caption: both directions count alike
        ("acb", [0, 0, 1], [["b"], [], []], (2 / 3 + 1) / 2, 1.0),
    ],
)
def test_validation_scores_by_hand(captions, index, negatives, recall, against):
    images, n = [Path("a"), Path("b")], len(captions)
    pairs = ImageCaptionPairs(
        images, list(captions), torch.tensor(index), "hand", n, n, negatives=negatives
    )
    scores = validation_scores(HandEncoder(), pairs)
    assert scores["recall_at_1"] == pytest.approx(recall)
    assert scores["against_negatives"] == pytest.approx(against)
    assert scores["score"] == pytest.approx((recall + against) / 2)
    assert scores["n_negatives"] == sum(map(len, negatives))
    with pytest.raises(DataError, match="hard negatives"):
        validation_scores(None, ImageCaptionPairs(images, ["a"], torch.tensor([0]), "toy", 1, 1))


@pytest.fixture
def choose(home: Path, monkeypatch):
    """Choose with a function in the place of training and scoring; returns the stored table."""

    def table_of_search(what: str, table: str, measured, profile: str = "smoke") -> pd.DataFrame:
        monkeypatch.setattr(choosing, "score", measured)
        assert choosing.main([what, "--profile", profile]) == 0
        return results.load(table, profile, ["tuning"])

    return table_of_search


@pytest.mark.parametrize(
    ("profile", "opened", "expected"),
    [("smoke", 0.65, (3e-4, True)), ("smoke", 0.75, (3e-4, False)), ("paper", 0.75, (1e-6, False))],
)
def test_setting_with_the_best_sum_of_both_scores_is_chosen(
    choose, profile: str, opened: float, expected: tuple, monkeypatch
):
    """Either run alone is best at another rate; with other numbers of steps, which are no choice,
    both are better. A small world is asked its benchmarks, which choose nothing."""
    kept, rates = load_profile(profile).experiment("clip-ft"), load_profile(profile).search.rates
    asked = []
    monkeypatch.setattr(
        choosing, "benchmark_scores", lambda *run, **_: asked.append(run) or {"mean": 0.5}
    )

    def measured(name: str, profile: str, lr: float, steps: int, lock_image: bool) -> dict:
        values = (0.9, 0.7, 0.4) if name == "clip-ft" else (0.4, 0.7, 0.9)
        score = dict(zip(rates, values, strict=False))
        score = opened if lock_image != kept.lock_image else score.get(lr, 0.4)
        row = {"experiment": name, "lr": lr, "steps": steps, "lock_image": lock_image}
        return row | {"weight": None, "score": score if steps == kept.steps else 1.0}

    table = choose("control", "calibration", measured, profile)
    lr, lock_image = expected
    assert len(asked) == (len(table) if profile == "smoke" else 0)
    best = table[table["chosen"]]
    assert set(best["experiment"]) == {"clip-ft", "negclip"} and len(best) == 2
    assert best["lr"].eq(lr).all() and best["lock_image"].eq(lock_image).all()
    assert best["steps"].eq(kept.steps).all()
    assert (table["steps"].nunique() == 1) == (profile == "paper"), "shares of the steps"
    others = table[table["lock_image"] != kept.lock_image]
    assert len(others) == 2 * (profile == "smoke"), "what is open already is not opened"


@pytest.mark.parametrize("gradcam_gap", [0.1, 0.0, -0.02, float("nan")])
def test_smallest_lambda_that_closes_the_gap_is_chosen_of_each_method(
    choose, capsys, gradcam_gap: float
):
    """Where CLIP-FT has no gap, nothing is trained for this method."""

    def measured(name: str, profile: str, weight: float | None = None) -> dict:
        gap = 0.1 if weight is None or weight < (3.0 if name == "cae-attention" else 0.3) else 0.0
        gaps = {f"gap_{method}": gap for method in PAPER_METHODS}
        if weight is None:
            gaps["gap_gradcam"] = gradcam_gap
        return {"experiment": name, "lr": 1e-3, "weight": weight, "score": -(weight or 0)} | gaps

    table = choose("lambda", "sweep", measured)
    expected = {f"cae-{method}": 0.3 for method in PAPER_METHODS} | {"cae-attention": 3.0}
    tried = {"cae-attention": [1, 3], "cae-gradcam": [0.1, 0.3, 1]}
    if gradcam_gap != 0.1:
        del expected["cae-gradcam"], tried["cae-gradcam"]
        assert "gradcam" in capsys.readouterr().out
        assert not table["experiment"].eq("cae-gradcam").any()
    best_weights = table[table["chosen"]].set_index("experiment")["weight"]
    assert np.isnan(best_weights["clip-ft"]) and best_weights.drop("clip-ft").to_dict() == expected
    for name, weights in tried.items():
        assert sorted(table.loc[table["experiment"] == name, "weight"]) == weights


def test_losses_on_equal_footing_get_equally_many_trials(choose):
    """NegCLIP scores best with twice as many pairs, the margin loss with a lambda tried last."""
    asked: list[tuple[str, str | None]] = []

    def measured(name: str, profile: str, **settings: Any) -> dict:
        config = load_profile(profile).experiment(name, **settings)
        score = config.lr + config.margin / 10 + config.batch_size / 1e4 + config.weight / 1e6
        if name == "spacy-margin" and config.weight == 2.5:
            score += 1
        swap = dict(settings.get("attribution", ())).get("swap")
        asked.append((name, swap))
        score += swap == "phrase"
        values = {"lr": config.lr, "weight": config.weight or None, "margin": config.margin}
        return {"experiment": name, "score": score, **values}

    table = choose("footing", "footing", measured, "mini")
    trials = table[table["swap"].notna()]
    assert sorted(zip(trials["experiment"], trials["swap"], strict=True)) == sorted(
        pair for pair in asked if pair[1]
    )
    swaps = table[table["chosen"]].set_index("experiment")["swap"].dropna().to_dict()
    assert swaps == dict.fromkeys(("dependency-binding", "dependency-softmax"), "phrase")
    table = choose("equal", "footing", measured, "mini").set_index("experiment")
    counts = table.groupby(level=0).size()
    assert counts["dependency-binding"] == counts["spacy-margin"] == counts["spacy-negclip"] == 14
    assert not table.loc["spacy-negclip"].duplicated(["lr", "batch_size"]).any()
    best = table[table["chosen"]]
    pairs = load_profile("mini").experiment("spacy-negclip").batch_size
    assert best.loc["spacy-negclip", ["lr", "batch_size"]].tolist() == [3e-3, 2 * pairs]
    assert best.loc["spacy-margin", "weight"] == 2.5 and best.index.is_unique

    wider = choose("ranges", "footing", measured, "mini").set_index("experiment")
    added = wider.iloc[len(table) :]
    assert {*added.index} == {"dependency-binding", "spacy-margin", "dependency-softmax"}
    lr, pairs = load_profile("mini").experiment("spacy-margin").lr, 128
    expected = {(choosing.RATE, pairs), (lr, 2 * pairs), (choosing.RATE, 2 * pairs)}
    for _, rows in added.groupby(level=0):
        assert {*zip(rows["lr"], rows["batch_size"], strict=True)} == expected and len(rows) == 3
    best = wider[wider["chosen"]]["score"]
    assert best.sort_index().equals(wider["score"].groupby(level=0).max().drop("clip-ft"))
    assert len(choose("ranges", "footing", measured, "mini")) == len(wider), "tried once"


def test_setting_is_trained_with_a_seed_of_its_own_and_scored(home: Path, monkeypatch):
    calls = []

    def load(*words: Any, **settings: Any) -> pd.DataFrame:
        calls.append((words, settings))
        return pd.DataFrame([{"run": "cae-gradcam", "seed": 0, "score": 0.25, "gap_gradcam": 0.5}])

    monkeypatch.setattr(results, "load", load)
    row = choosing.score("cae-gradcam", "smoke", weight=0.5)
    [((table, _, runs, seeds), settings)] = calls
    assert (table, runs, seeds) == ("validation", ["cae-gradcam"], [choosing.TUNING_SEED])
    assert settings == {"compute": True, "weight": 0.5}
    expected = {"experiment": "cae-gradcam", "weight": 0.5, "score": 0.25, "gap_gradcam": 0.5}
    assert row.items() >= expected.items()
    assert choosing.TUNING_SEED not in range(load_profile("mini").seeds)


def test_candidates_can_be_trained_and_the_best_is_chosen(choose, tiny_clip):
    def measured(name: str, profile: str, **settings: Any) -> dict:
        config = load_profile("photo").experiment(name, **settings)
        Objective(tiny_clip.model, config, Ranks(), None)
        score = settings["weight"] + settings["stop_gradient"]
        return {"experiment": name, "weight": settings["weight"], "score": score}

    table = choose("candidates", "candidates", measured).set_index("candidate")
    assert set(table.index) == set(choosing.CANDIDATES)
    assert list(table.index[table["chosen"]]) == ["counterfactual, stop-gradient, 4"]
