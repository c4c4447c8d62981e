"""Settings are chosen on validation captions by the rules that are written down."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY

from cae_bench.choice import weighted_items
from cae_bench.datasets import load_benchmarks
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

_spec = importlib.util.spec_from_file_location(
    "choose_settings", REPOSITORY / "data" / "recipes" / "choose_settings.py"
)
choosing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(choosing)


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
    assert [found["weight"] for found in rows] == tried
    assert choose_row(rows, 1.0, "gap")["weight"] == min(enough, 100.0)


def test_a_reversed_gap_of_any_size_counts_as_closed():
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
def test_what_is_configured_was_chosen(monkeypatch, table: str, profile: str, settings: tuple):
    """The configured settings are those of the recorded calibration, sweep, bindings."""
    monkeypatch.delenv("CAE_HOME", raising=False)
    found = results.load(table, profile, ["tuning"])
    assert found["chosen"].any()
    for row in found[found["chosen"]].fillna({"weight": 0.0}).itertuples():
        config = load_profile(profile).experiment(row.experiment)
        assert all(getattr(config, name) == getattr(row, name) for name in settings)


@pytest.mark.parametrize("settings", choosing.CANDIDATES.values(), ids=choosing.CANDIDATES)
def test_every_candidate_can_be_trained(settings, tiny_clip):
    config = load_profile("photo").experiment(choosing.COUNTERFACTUAL, **settings)
    Objective(tiny_clip.model, config, Ranks(), None)


class Fake:
    """An encoder of three images and texts; "c" is nearer to "b" than to "a"."""

    vectors = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8)}

    def encode_images(self, refs):
        return self.encode_texts([ref.path.name for ref in refs])

    def encode_texts(self, texts):
        return np.array([self.vectors[text] for text in texts], dtype=np.float32)


def test_both_directions_of_retrieval_count_alike_in_validation():
    """Two of three captions find their image, both images find a caption of theirs."""
    paths = [Path("a"), Path("b")]
    index, captions = torch.tensor([0, 0, 1]), ["a", "c", "b"]
    pairs = ImageCaptionPairs(paths, captions, index, "uneven", 3, 3, negatives=[["b"], [], []])
    assert validation_scores(Fake(), pairs)["recall_at_1"] == pytest.approx((2 / 3 + 1) / 2)


def test_validation_scores_by_hand():
    """Two captions, three negatives: one of them is as close as the caption, which is wrong."""
    pairs = ImageCaptionPairs(
        [Path("a"), Path("b")],
        ["a", "b"],
        torch.tensor([0, 1]),
        "hand",
        2,
        2,
        negatives=[["b", "a"], ["c"]],
    )
    scores = validation_scores(Fake(), pairs)
    assert (scores["recall_at_1"], scores["n_negatives"]) == (1.0, 3)
    assert scores["against_negatives"] == pytest.approx(2 / 3)
    assert scores["score"] == pytest.approx(5 / 6)


@pytest.fixture
def choose(home: Path, monkeypatch):
    """Choose with a function in the place of training and scoring; returns the stored table."""

    def chosen(what: str, table: str, measured, profile: str = "smoke") -> pd.DataFrame:
        monkeypatch.setattr(choosing, "score", measured)
        assert choosing.main([what, "--profile", profile]) == 0
        return results.load(table, profile, ["tuning"])

    return chosen


@pytest.mark.parametrize(
    ("profile", "opened", "chosen"),
    [("smoke", 0.65, (3e-4, True)), ("smoke", 0.75, (3e-4, False)), ("paper", 0.75, (1e-6, False))],
)
def test_the_setting_with_the_best_sum_of_both_scores_is_chosen(
    choose, profile: str, opened: float, chosen: tuple, monkeypatch
):
    """Either run alone is best at another rate; with other numbers of steps, which are no choice,
    both are better. A small world is asked its benchmarks, which choose nothing."""
    kept, rates = load_profile(profile).experiment("clip-ft"), load_profile(profile).search.rates
    asked = []
    monkeypatch.setattr(
        choosing,
        "benchmark_scores",
        lambda *given, **settings: asked.append(given) or {"mean": 0.5},
    )

    def measured(name: str, profile: str, lr: float, steps: int, lock_image: bool) -> dict:
        values = (0.9, 0.7, 0.4) if name == "clip-ft" else (0.4, 0.7, 0.9)
        score = dict(zip(rates, values, strict=False))
        score = opened if lock_image != kept.lock_image else score.get(lr, 0.4)
        told = {"lr": lr, "steps": steps, "lock_image": lock_image}
        score = score if steps == kept.steps else 1.0
        return {"experiment": name, **told, "weight": None, "score": score}

    table = choose("control", "calibration", measured, profile)
    lr, lock_image = chosen
    assert len(asked) == (len(table) if profile == "smoke" else 0)
    best = table[table["chosen"]]
    assert set(best["experiment"]) == {"clip-ft", "negclip"} and len(best) == 2
    assert best["lr"].eq(lr).all() and best["lock_image"].eq(lock_image).all()
    assert best["steps"].eq(kept.steps).all()
    assert (table["steps"].nunique() == 1) == (profile == "paper"), "shares of the steps"
    others = table[table["lock_image"] != kept.lock_image]
    assert len(others) == 2 * (profile == "smoke"), "what is open already is not opened"


def test_of_each_method_the_smallest_lambda_that_closes_the_gap_is_chosen(choose):
    def measured(name: str, profile: str, weight: float | None = None) -> dict:
        gap = 0.1 if weight is None or weight < (3.0 if name == "cae-attention" else 0.3) else 0.0
        gaps = {f"gap_{method}": gap for method in PAPER_METHODS}
        return {"experiment": name, "lr": 1e-3, "weight": weight, "score": -(weight or 0)} | gaps

    table = choose("lambda", "sweep", measured)
    chosen = table[table["chosen"]].set_index("experiment")["weight"]
    assert len(chosen) == 1 + len(PAPER_METHODS) and np.isnan(chosen["clip-ft"])
    assert chosen["cae-attention"] == 3.0
    assert chosen.drop(["clip-ft", "cae-attention"]).eq(0.3).all()
    tried = table.groupby("experiment")["weight"].apply(sorted)
    assert tried["cae-attention"] == [1, 3] and tried["cae-gradcam"] == [0.1, 0.3, 1]


@pytest.mark.parametrize("gap", [0.0, -0.02, float("nan")])
def test_where_clip_ft_has_no_gap_nothing_is_chosen(choose, capsys, gap: float):
    """By GradCAM it has none: nothing is trained for it, and the other methods are as ever."""
    trained = []

    def measured(name: str, profile: str, weight: float | None = None) -> dict:
        trained.append(name)
        gaps = {
            f"gap_{method}": 0.1 if weight is None or weight < 0.3 else 0.0
            for method in PAPER_METHODS
        }
        return (
            {"experiment": name, "lr": 1e-3, "weight": weight, "score": 0.5}
            | gaps
            | {"gap_gradcam": gap}
        )

    table = choose("lambda", "sweep", measured)
    assert "gradcam" in capsys.readouterr().out
    assert "cae-gradcam" not in trained and not table["experiment"].eq("cae-gradcam").any()
    chosen = table[table["chosen"]].set_index("experiment")["weight"]
    assert chosen.drop("clip-ft").to_dict() == {
        f"cae-{method}": 0.3 for method in PAPER_METHODS if method != "gradcam"
    }


def test_the_candidate_with_the_best_score_is_chosen(choose):
    def measured(
        name: str, profile: str, weight: float, stop_gradient: bool, **settings: object
    ) -> dict:
        return {"experiment": name, "weight": weight, "score": weight + stop_gradient}

    table = choose("candidates", "candidates", measured).set_index("candidate")
    assert set(table.index) == set(choosing.CANDIDATES)
    assert list(table.index[table["chosen"]]) == ["counterfactual, stop-gradient, 4"]


def test_losses_on_equal_footing_get_equally_many_trials(choose):
    """NegCLIP scores best with twice as many pairs, the margin loss with a lambda tried last."""

    def measured(name: str, profile: str, **settings: Any) -> dict:
        config = load_profile(profile).experiment(name, **settings)
        score = config.lr + config.margin / 10 + config.batch_size / 1e4 + config.weight / 1e6
        if name == "spacy-margin" and config.weight == 2.5:
            score += 1
        values = {"lr": config.lr, "weight": config.weight or None, "margin": config.margin}
        return {"experiment": name, "score": score, **values}

    choose("footing", "footing", measured, "mini")
    table = choose("equal", "footing", measured, "mini").set_index("experiment")
    counts = table.groupby(level=0).size()
    assert counts["dependency-binding"] == counts["spacy-margin"] == counts["spacy-negclip"] == 14
    assert not table.loc["spacy-negclip"].duplicated(["lr", "batch_size"]).any()
    best = table[table["chosen"]]
    pairs = load_profile("mini").experiment("spacy-negclip").batch_size
    assert best.loc["spacy-negclip", ["lr", "batch_size"]].tolist() == [3e-3, 2 * pairs]
    assert best.loc["spacy-margin", "weight"] == 2.5 and best.index.is_unique


def test_a_setting_is_trained_with_a_seed_of_its_own_and_scored(home: Path, monkeypatch):
    asked = []

    def load(
        table: str, profile: str, runs: list[str], seeds: list[int] | None = None, **settings: Any
    ) -> pd.DataFrame:
        asked.append((table, profile, runs, seeds, settings))
        return pd.DataFrame([{"run": runs[0], "seed": 0, "score": 0.25, "gap_gradcam": 0.5}])

    monkeypatch.setattr(results, "load", load)
    row = choosing.score("cae-gradcam", "smoke", weight=0.5)
    [(table, _, runs, seeds, settings)] = asked
    assert (table, runs, seeds) == ("validation", ["cae-gradcam"], [choosing.TUNING_SEED])
    assert settings == {"compute": True, "weight": 0.5}
    expected = {"experiment": "cae-gradcam", "weight": 0.5, "score": 0.25, "gap_gradcam": 0.5}
    assert row.items() >= expected.items()
    assert choosing.TUNING_SEED not in range(load_profile("mini").seeds)


def test_benchmarks_are_averaged_as_on_the_pages(home: Path, smoke_world: Path, monkeypatch):
    """A model that is right in one family of seven."""
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    items = weighted_items(load_benchmarks(load_profile("smoke").datasets))
    right = items[["family", "subset", "item"]].assign(correct=items["family"] == "aro")
    monkeypatch.setattr(
        results, "load", lambda table, *_, **__: {"items": items, "benchmarks": right}[table]
    )
    found = choosing.benchmark_scores("clip-ft", "smoke")
    assert found == pytest.approx({"mean": 1 / 7, "ARO-R": 1, "ARO-A": 1})


def test_validation_captions_need_hard_negatives() -> None:
    pairs = ImageCaptionPairs([Path("a")], ["a cat"], torch.tensor([0]), "toy", 1, 1)
    with pytest.raises(DataError, match="hard negatives"):
        validation_scores(None, pairs)
