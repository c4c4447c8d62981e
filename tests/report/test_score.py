"""Scores: an interval is drawn once for the same answers, and anew for others."""

from __future__ import annotations

import numpy as np

from cae_lib.evaluation.statistics import paired_difference, weighted_interval
from cae_lib.report import benchmarks
from cae_lib.report.benchmarks import Score

PICTURES = [np.arange(40) // 2, np.arange(60) % 30]


def score(seed: int, weights: tuple[float, float] = (0.5, 0.5), pictures=PICTURES) -> Score:
    generator = np.random.default_rng(seed)
    strata = [generator.random((3, n)) < 0.6 for n in (40, 60)]
    return Score(strata, list(weights), pictures, 100, 100, 0.5)


def test_intervals_are_those_of_the_bootstrap_over_pictures():
    first, second = score(1), score(2)
    settings = {"clusters": PICTURES, "resample_seeds": True}
    assert first.interval() == weighted_interval(first.strata, first.weights, **settings)
    plain = paired_difference(first.strata, second.strata, first.weights, **settings)
    assert first.minus(second) == plain
    assert score(1, pictures=[np.arange(40), np.arange(40, 100)]).interval() != first.interval()
    assert second.minus(first).estimate == -plain.estimate
    assert score(1, (0.2, 0.8)).interval() != first.interval()


def test_the_same_answers_are_drawn_once(monkeypatch):
    known = score(3).interval(), score(3).minus(score(4))
    monkeypatch.setattr(benchmarks, "weighted_interval", None)
    monkeypatch.setattr(benchmarks, "paired_difference", None)
    assert (score(3).interval(), score(3).minus(score(4))) == known
