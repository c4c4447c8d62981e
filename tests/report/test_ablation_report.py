"""The ablation: what is compared with what, the yardstick of the seed, and what the page says."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from cae_lib.errors import ConfigError
from cae_lib.evaluation.statistics import Interval
from cae_lib.measurements import run_label
from cae_lib.report import ablation, ablation_tables
from cae_lib.report.ablation import (
    finding,
    plain_of,
    reference_of,
    trials,
)
from cae_lib.report.ablation_figure import ablation_figure
from cae_lib.report.variants import MEAN
from cae_lib.report.yardstick import Yardstick, seed_limit, yardstick
from cae_lib.studies import Variant, ablations, base_variants

GAP = {"object": 0.20, "attribute": 0.10, "relation": 0.10}
LEVEL = {"object": 0.14, "attribute": 0.14, "relation": 0.14}


def save(store, variant: Variant, accuracy: float, levels: dict[str, float]) -> None:
    label = run_label(variant.run, "smoke", **variant.settings)
    store.benchmarks(label, accuracy)
    store.attribution(label, levels)
    ablation.trials.cache_clear()


@pytest.fixture
def study(store):
    """All runs: CAE is level and as good as CLIP-FT, lambda 0.1 is not level, 10 much worse."""
    for variant in (*ablations("smoke"), *base_variants("smoke")):
        if variant.run != "base":
            bad = (variant.group, variant.value) == ("lambda", "10")
            weak = (variant.group, variant.value) == ("lambda", "0.1")
            plain = variant.run == "clip-ft" or weak
            save(store, variant, 0.4 if bad else 0.6, GAP if plain else LEVEL)
    yield store
    ablation.trials.cache_clear()


def test_what_a_seed_can_do_by_hand():
    """Squares 2 and 0 over 2 + 2 degrees of freedom: variance 1/2, of a difference 1."""
    values = [np.array([0.0, 1.0, 2.0]), np.array([5.0, 5.0, 5.0])]
    assert seed_limit(values) == pytest.approx(2.776445)
    two = seed_limit([np.array([0.0, 2.0])])
    assert two == pytest.approx(12.7062 * math.sqrt(2 * 2), rel=1e-5)


def test_a_difference_has_to_exceed_both_chances():
    measure = Yardstick({MEAN: 0.01}, 2, 3)

    def exceeded(low: float, middle: float, high: float) -> bool:
        return measure.exceeded(MEAN, Interval(middle, low, high, 0.95, 9, 1))

    assert exceeded(-0.03, -0.02, -0.01)
    assert not exceeded(-0.01, 0.02, 0.05)
    assert not exceeded(0.004, 0.008, 0.012)


def test_each_run_is_compared_with_its_own_kind():
    variants = ablations("mini")
    locked = [v for v in variants if "lock_image" in v.settings]
    assert [v.run for v in locked] == ["cae-gradcam", "clip-ft"]
    assert plain_of(locked[0], variants) is locked[1]
    assert plain_of(variants[5], variants) is variants[0]
    assert reference_of(locked[0], variants) is variants[1]
    assert reference_of(variants[-1], variants) is variants[0]
    with pytest.raises(ConfigError, match="0 runs to compare cae-gradcam"):
        reference_of(variants[-2], variants[:1])


def test_trials_hold_the_differences_of_the_records(study):
    found = trials("smoke")
    by_name = {(t.variant.run, t.variant.group, t.variant.value): t for t in found}
    assert len(found) == 13 and [bool(t.change) for t in found] == [False] * 2 + [True] * 11
    bad = by_name["cae-gradcam", "lambda", "10"]
    shares = {MEAN: -0.2, "CREPE": -0.2}
    for name, share in shares.items():
        assert bad.change[name].estimate == pytest.approx(share, abs=0.05)
        assert bad.change[name].n_seeds == 1
    assert bad.gain.estimate == pytest.approx(-0.2, abs=0.03) and bad.outcome == "level"
    weak = by_name["cae-gradcam", "lambda", "0.1"]
    assert weak.outcome == "open" and weak.left.estimate == pytest.approx(1, abs=0.01)
    plain = by_name["clip-ft", "trained", "text tower only"]
    assert (plain.outcome, plain.left, plain.gain) == (None, None, None)


def test_text_tower_only_gains_over_its_like(study):
    (locked,) = (v for v in ablations("smoke") if "lock_image" in v.settings and v.run == "clip-ft")
    save(study, locked, 0.3, GAP)
    (trial,) = (t for t in trials("smoke") if t.is_cae and "lock_image" in t.variant.settings)
    assert trial.gain.estimate == pytest.approx(0.3, abs=0.03)
    assert trial.change[MEAN].estimate == pytest.approx(0, abs=0.01)


def test_what_the_page_says_follows_the_records(study):
    text = ablation_tables.judge_ablation("smoke").source
    assert "9 of 10 changed settings with CAE leave the groups level" in text
    assert "λ: 0.1 (gap not smaller for certain)." in text
    assert "with 1 of 11 changed settings: CLIP-CAE (GradCAM), λ: 10 by −" in text
    pattern = r"by −(\S+) to (\S+) points with the 10 CAE runs that level the groups"
    worst, best = map(float, re.search(pattern, text).groups())
    assert worst == pytest.approx(20, abs=3) and best == pytest.approx(0, abs=1)
    assert "points with the 1 CAE runs that do not." in text
    assert "from 6 runs of this length, CLIP-FT and CAE from each base model, with 2 seeds" in text
    table = ablation_tables.ablation_table("smoke")
    cells = {tuple(row[:2]): row for row in table.rows}
    assert cells["CLIP-CAE (GradCAM)", "λ: 10"][6].startswith("**−")
    assert cells["CLIP-CAE (GradCAM)", "scope: word"][4] == "level"
    assert "**" not in cells["CLIP-CAE (GradCAM)", "scope: word"][6]
    families = ablation_tables.family_table("smoke").rows
    assert len(families) == 12 and families[-1][0] == "*another seed*"
    alt = ablation_figure("smoke").alt
    assert "CLIP-CAE (GradCAM), λ: 0.1 100 [100, 100]" in alt and "A band marks ±" in alt
    assert "with 1 of 11 other settings" in finding("smoke")
    assert "9 of the 10 among them that keep CAE level" in finding("smoke")


def test_without_runs_of_several_seeds_the_page_says_so(home):
    assert yardstick("paper") is None and yardstick("smoke") is None
    assert "nothing here says what another seed" in ablation_tables._seed_note(None)
    assert "Not measured yet" in ablation_tables.judge_ablation("smoke").source
    assert "Not measured yet" in ablation_figure("smoke").source
    assert finding("smoke") is None
