"""The composition curve from answers made up by hand, whose slopes are known."""

from __future__ import annotations

import numpy as np
import pytest
from report.conftest import KEYS, PROFILE, SEEDS, Store, choice

from cae_lib.errors import DataError
from cae_lib.evaluation.caption_load import COUNTS, RECORD, WORLD_COUNTS, pack_loads
from cae_lib.report import composition_tables as tables
from cae_lib.report.composition_curve import composition
from cae_lib.report.composition_figures import curve_figure
from cae_lib.report.composition_items import BOTH, LENGTH, OBJECTS, chosen_subsets
from cae_lib.report.composition_verdict import direction, verdict
from cae_lib.report.runs import cae_runs
from cae_lib.report.stored import NotMeasured

N = 400
ATTRIBUTES = np.arange(N) % 5
RELATIONS = np.arange(N) // 5 % 2


def save_loads(store: Store, items: str = "abc", world: bool = True) -> None:
    """Counts of N items in every subset; the world has a relation in each."""
    words = 3 + ATTRIBUTES + 4 * RELATIONS + np.arange(N) // 10 % 3
    columns = [np.full(N, 2), ATTRIBUTES, RELATIONS, words]
    names = list(COUNTS)
    if world:
        columns += [np.full(N, 2), ATTRIBUTES, np.full(N, 1)]
        names += WORLD_COUNTS
    loads = np.stack(columns, axis=1)
    rows, digits = pack_loads([loads] * len(KEYS))
    subsets = {
        key: {"n_used": N, "n_expected": N, "items": items, "loads": part}
        for key, part in zip(KEYS, digits, strict=True)
    }
    recall = {"n_used": 50, "n_expected": 50, "items": "d", "loads": digits[0][:200]}
    content = {"counts": names, "rows": rows, "subsets": subsets, "retrieval": recall}
    store.save(RECORD, content)
    composition.cache_clear()


def save_answers(store: Store, run: str, level: float, per_attribute: float) -> None:
    """Accuracy level + per_attribute * attributes within every subset, exact but for rounding."""
    for seed in range(1 if run == "base" else SEEDS):
        parts = {}
        for place, key in enumerate(KEYS):
            correct = np.zeros(N, bool)
            for k in range(5):
                rows = np.flatnonzero(ATTRIBUTES == k)
                rows = np.random.default_rng([seed, place, k]).permutation(rows)
                correct[rows[: round((level + per_attribute * k) * len(rows))]] = True
            parts[key] = choice(key, correct)
        store.save(f"{run}/{seed}/benchmarks", parts)


@pytest.fixture
def curves(store: Store) -> Store:
    """CLIP-FT falls by 10 points an attribute, CAE by attention by 5, the others by 10."""
    save_answers(store, "base", 0.7, -0.1)
    save_answers(store, "clip-ft", 0.8, -0.1)
    for run, method in cae_runs(PROFILE).items():
        save_answers(store, run, 0.8, -0.05 if method == "attention" else -0.1)
    save_loads(store)
    yield store
    composition.cache_clear()


def test_slopes_and_differences_are_those_put_in(curves: Store) -> None:
    curve = composition(PROFILE, SEEDS)
    _, slope = curve.slopes("clip-ft", "relations", "attributes")
    assert slope.estimate == pytest.approx(-0.1, abs=1e-3)
    flatter, same = (curve.slope_gap(f"cae-{m}", "clip-ft", "relations", "attributes")[1]
                     for m in ("attention", "gradient"))  # fmt: skip
    assert flatter.estimate == pytest.approx(0.05, abs=1e-3)
    assert flatter.low > 0.04
    assert same.estimate == pytest.approx(0, abs=1e-3)
    assert not same.excludes_zero
    (with_length, words) = curve.slopes("clip-ft", "attributes", LENGTH)
    assert with_length.estimate == pytest.approx(-0.1, abs=0.01)
    assert words.estimate == pytest.approx(0, abs=0.01)


def test_levels_and_gains_by_class(curves: Store) -> None:
    curve = composition(PROFILE, SEEDS)
    levels = [d.estimate for d in curve.levels("clip-ft", "attributes")]
    assert levels == pytest.approx([0.8, 0.7, 0.6, 0.45], abs=2e-3)
    gains = [g.estimate for g in curve.gains("cae-attention", "clip-ft", "attributes")]
    assert gains == pytest.approx([0, 0.05, 0.1, 0.175], abs=2e-3)
    n = curve.pooled.n
    assert curve.sizes["attributes"] == [n // 5, n // 5, n // 5, 2 * n // 5]
    assert [d is None for d in curve.levels("clip-ft", "relations")] == [False, False, True, True]


def test_only_the_families_and_once(curves: Store) -> None:
    first = {key: None for key in KEYS}
    curve = composition(PROFILE, SEEDS)
    assert curve.n_subsets == len(first) - 7  # order, Winoground text and image, SugarCrepe objects
    assert curve.groups[OBJECTS].n == 3 * N
    assert curve.groups["Winoground"].n == N
    assert chosen_subsets([]) == {}


def test_sentences_follow_the_numbers(curves: Store) -> None:
    text = repr(verdict(PROFILE, SEEDS))
    assert "Accuracy falls with what the caption states" in text
    assert "CAE makes the slope flatter with 1 of 4 methods" in text
    assert "raised by attention" in text
    assert "By those words every caption of a subset states equally many relations" in text
    sentence = tables.finding(PROFILE, SEEDS)
    assert "up with 1, down with 0 of 4 methods" in sentence
    save_answers(curves, "clip-ft", 0.3, 0.1)
    composition.cache_clear()
    text = repr(verdict(PROFILE, SEEDS))
    assert "Accuracy rises" in text
    assert "CAE lowers the slope with 4 of 4 methods" in text
    assert direction(None).startswith("neither")


def test_tables_and_figure(curves: Store) -> None:
    runs = tables.run_table(PROFILE, SEEDS)
    assert [row[0] for row in runs.rows][:2] == ["CLIP", "CLIP-FT"]
    assert runs.rows[1][2] == "–"
    assert runs.rows[2][2].startswith("**+")
    assert len(tables.level_table(PROFILE, SEEDS).rows) == 4 + 4 + 6 + 4
    assert len(tables.term_table(PROFILE, SEEDS).rows) == len(tables.TERMS) + 2
    names = [row[0] for row in tables.family_table(PROFILE, SEEDS).rows]
    assert names[-2:] == [OBJECTS, "COCO R@1"]
    assert "accuracy of CLIP-FT" in curve_figure(PROFILE, SEEDS).alt
    save_loads(curves, world=False)
    assert len(tables.term_table(PROFILE, SEEDS).rows) == len(tables.TERMS)
    assert "world" not in repr(verdict(PROFILE, SEEDS))


def test_counts_of_other_items_are_refused(curves: Store) -> None:
    save_loads(curves, items="other")
    with pytest.raises(DataError, match=r"aro/relation: 400 items, digest other.*digest abc"):
        composition(PROFILE, SEEDS)


def test_not_measured_yet(store: Store) -> None:
    composition.cache_clear()
    with pytest.raises(NotMeasured, match="caption-load"):
        composition(PROFILE, SEEDS)
    assert "Not measured yet" in repr(verdict(PROFILE, SEEDS))
    assert "Not measured yet" in repr(tables.run_table(PROFILE, SEEDS))


def test_captions_that_say_the_same_decide_nothing(curves: Store) -> None:
    loads = np.tile([2, 1, 0, 4], (N, 1))
    rows, digits = pack_loads([loads] * len(KEYS))
    content = {
        "counts": list(COUNTS), "rows": rows,
        "subsets": {key: {"n_used": N, "n_expected": N, "items": "abc", "loads": part}
                    for key, part in zip(KEYS, digits, strict=True)},
        "retrieval": {"n_used": 50, "n_expected": 50, "items": "d", "loads": digits[0][:200]},
    }  # fmt: skip
    curves.save(RECORD, content)
    composition.cache_clear()
    assert composition(PROFILE, SEEDS).slopes("clip-ft", BOTH) == [None]
    assert tables.finding(PROFILE, SEEDS) is None
    assert "too little" in repr(verdict(PROFILE, SEEDS))
    assert tables.run_table(PROFILE, SEEDS).rows[0][1] == "–"
