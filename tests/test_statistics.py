"""The crossed test against scipy, hand-worked cases, the robust sandwich, and simulation."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, nct, spearmanr, t, ttest_rel
from statsmodels.stats.multitest import multipletests

from cae_bench.statistics import (
    MIN_NONZERO_CLUSTERS,
    VarianceComponents,
    classify,
    contrasts,
    correlations,
    holm,
    linearized_ratios,
    mean_ci,
    minimal_detectable_effect,
    seed_means_and_components,
    summarize,
    verdict,
)
from cae_bench.statistics.estimates import weighted_spearman
from cae_lib.errors import DataError

WEIGHTS = np.array([0.2, 0.5, 0.3])


def cells(groups: list[np.ndarray], weights=(1.0,), clusters: list | None = None):
    """Groups `(S, n)` with the labels of their items; by default each item has its own picture."""
    sizes = [group.shape[1] for group in groups]
    return (
        np.concatenate(groups, axis=1).astype(float),
        np.repeat(np.arange(len(groups)), sizes),
        np.asarray(weights, dtype=float),
        np.arange(sum(sizes)) if clusters is None else np.concatenate(clusters),
    )


def frame(values: np.ndarray, run: str = "a", pictures: np.ndarray | None = None) -> pd.DataFrame:
    """Answers `(S, n)` as a table, its rows in no order."""
    seed, item = (index.ravel() for index in np.indices(values.shape))
    image = item if pictures is None else np.asarray(pictures)[item]
    columns = {"seed": seed, "item": item, "picture": image, "correct": values.ravel()}
    return pd.DataFrame({"run": run} | columns).sample(frac=1, random_state=0)


def test_a_contrast_by_hand():
    # seeds 2, 3 and 4: variance 1, a third; items 5, 2, 2: variance 3, a third; nothing left
    rows = np.array([[4, 1, 1], [5, 2, 2], [6, 3, 3]])
    first, second = frame(rows + 7), frame(np.full((3, 3), 7), "b")
    result = contrasts(pd.concat([first, second]), "b", items=["item"]).iloc[0]
    variance = 1 / 3 + 1
    assert result.estimate == 3 and result.error == pytest.approx(variance**0.5)
    assert result.freedom == pytest.approx(1 / (1 / 3 / variance / 2 + (1 / variance) ** 2 / 2))
    assert result.p == pytest.approx(2 * t.sf(3 / variance**0.5, result.freedom))
    reach = t.isf(0.025, result.freedom) * variance**0.5
    assert (result.low, result.high) == pytest.approx((3 - reach, 3 + reach))
    assert (result.n, result.pictures, result.seeds, result.against) == (3, 3, 3, "b")
    # means of seeds equal, of items 1.5 and 0.5; each cell is half a point off their sum
    _, parts = seed_means_and_components(*cells([np.array([[2, 0], [1, 1]])]))
    assert (parts.by_seed, parts.by_item, parts.rest) == pytest.approx((0, 0.25, 0.5))
    assert parts.variance() == pytest.approx(0.25)


def test_freedom_by_hand_as_observed_and_as_expected():
    parts = VarianceComponents(0.1, 0.5, 0.6, 3, 4)  # in truth no variance of seeds, 0.3 of items
    assert parts.variance() == pytest.approx(0.5)
    assert parts.degrees_of_freedom() == pytest.approx(
        4
    )  # seeds as alike as half of the rest makes them
    assert parts.degrees_of_freedom(True) == pytest.approx(0.5**2 / (0.5**2 / 4 + 0.1 * 0.5 / 2))
    some = VarianceComponents(0.9, 0.5, 0.6, 3, 4)  # 0.3 of seeds; with half the rest 0.6
    assert some.degrees_of_freedom() == pytest.approx(0.6**2 / (0.5**2 / 4 + 0.2 * 0.6 / 2))
    none = VarianceComponents(0.3, 0.1, 0.6, 3, 4)  # only what is particular to seed and item
    assert none.variance() == pytest.approx(0.2)
    assert none.degrees_of_freedom(True) == pytest.approx(0.2**2 / (0.2**2 / 4 + 0.1 * 0.2 / 2))


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_without_a_difference_between_seeds_it_is_the_paired_t_test(n_seeds: int):
    first, second = np.random.default_rng(0).random((2, 1, 40)) < 0.5
    both = pd.concat([frame(np.repeat(first, n_seeds, axis=0)), frame(second, "b")])
    result = contrasts(both, "b", items=["item"], fixed="b").iloc[0]
    expected = ttest_rel(first[0].astype(float), second[0].astype(float))
    assert (result.p, result.freedom) == (pytest.approx(expected.pvalue), pytest.approx(39))


def test_a_group_of_one_item_takes_the_others_variance():
    groups = [np.array([[1, 0, 0, 0]]), np.array([[1]])]
    by_seed, parts = seed_means_and_components(*cells(groups, [0.25, 0.75]))
    assert by_seed[0] == pytest.approx(0.25 * 0.25 + 0.75)
    assert parts.by_item == pytest.approx(0.25**2 * 0.25 / 4 + 0.75**2 * 0.25)
    groups = [np.array([[1, 0, 0]]), np.array([[1, 0]])]
    for images, freedom in (
        ([3, 4], 3),
        ([2, 3], 3),
        ([1, 2], 2),
    ):  # shared with the first: 0, 1, 2
        _, parts = seed_means_and_components(*cells(groups, [0.5, 0.5], [[0, 1, 2], images]))
        assert parts.item_freedom == freedom


def test_one_picture_gives_an_estimate_and_no_interval():
    lone = mean_ci(frame(np.array([[1, 0], [1, 1]]), pictures=np.array([4, 4])), items=["item"])
    assert lone.iloc[0].estimate == 0.75
    assert lone[["low", "high", "p", "minimal_detectable_effect"]].isna().all(axis=None)
    tested = holm(pd.DataFrame({"estimate": [1.0, 0.5], "p": [0.01, np.nan]}))
    assert tested["sure"].tolist() == [1, 0] and tested["p_holm"].iloc[0] == 0.01


def test_equal_answers_are_no_difference_and_a_constant_one_is():
    for value, p in ((0, 1.0), (1, 0.0)):
        assert summarize(*seed_means_and_components(*cells([np.full((3, 5), value)])))["p"] == p


def answers(n_seeds: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Three groups whose items share pictures of unequal number, within and between groups."""
    generator = np.random.default_rng(0)
    easy = generator.normal(0, 0.5, 60)
    pictures = [generator.integers(0, 60, n) for n in (70, 40, 90)]
    return [
        generator.random((n_seeds, len(numbers))) < 0.5 + easy[numbers] for numbers in pictures
    ], pictures


def sandwich(values: list[np.ndarray], pictures: list[np.ndarray]) -> float:
    """Variance of the weighted mean of groups, with matrices (Bell and McCaffrey, 2002)."""
    y, labels = np.concatenate(values).astype(float), np.concatenate(pictures)
    group = np.repeat(np.arange(len(values)), [len(part) for part in values])
    x = (group[:, None] == np.arange(len(values))).astype(float)
    bread = np.linalg.inv(x.T @ x)
    residuals, meat = y - x @ bread @ x.T @ y, np.zeros_like(bread)
    for label in np.unique(labels):
        inside = labels == label
        size, turn = np.linalg.eigh(np.eye(inside.sum()) - x[inside] @ bread @ x[inside].T)
        score = x[inside].T @ turn @ np.diag(size**-0.5) @ turn.T @ residuals[inside]
        meat += np.outer(score, score)
    return WEIGHTS @ bread @ meat @ bread @ WEIGHTS


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_variance_is_that_of_the_corrected_sandwich(n_seeds: int):
    groups, pictures = answers(n_seeds)
    _, parts = seed_means_and_components(*cells(groups, WEIGHTS, pictures))
    assert parts.by_item == pytest.approx(sandwich([g.mean(axis=0) for g in groups], pictures))
    assert parts.item_freedom == len(np.unique(np.concatenate(pictures))) - 1
    alone = [sandwich([g[s] - g.mean(axis=0) for g in groups], pictures) for s in range(n_seeds)]
    assert parts.rest == pytest.approx(sum(alone) / max(1, n_seeds - 1))


def test_scores_weigh_strata_and_share_items():
    groups, pictures = answers(3)
    n = [len(numbers) for numbers in pictures]
    rows = frame(np.concatenate(groups, axis=1), pictures=np.concatenate(pictures))
    every = pd.DataFrame({"score": "all", "item": range(sum(n))})
    every["stratum"] = np.repeat(list("xyz"), n)
    every["weight"] = np.repeat(WEIGHTS / n, n)
    first = every[: n[0]].assign(score="only x", weight=1 / n[0])
    weights = pd.concat([every, first])
    scores = mean_ci(rows, items=["item"], weights=weights).set_index("score")
    by_seed, parts = seed_means_and_components(*cells(groups, WEIGHTS, pictures))
    assert scores.loc["all", "estimate"] == pytest.approx(by_seed.mean())
    assert scores.loc["all", "error"] == pytest.approx(parts.variance() ** 0.5)
    assert scores.loc["only x", "estimate"] == pytest.approx(groups[0].mean())
    with pytest.raises(DataError, match="999"):
        mean_ci(rows, items=["item"], weights=weights.replace({"item": {0: 999}}))
    less = pd.concat([rows, rows[rows["item"] > 0].assign(run="b")])
    with pytest.raises(DataError, match="not answered"):
        mean_ci(less, items=["item"], weights=weights)


def test_weights_that_list_an_item_twice_are_refused():
    rows = frame(np.array([[1, 1, 0, 0]]))
    weights = pd.DataFrame({"score": "all", "item": range(4), "weight": 0.25, "stratum": 0})
    twice = pd.concat([weights, weights.query("item == 2"), weights.assign(score="again")])
    both = pd.concat([rows, rows.assign(run="b")])
    for function, arguments in ((mean_ci, {}), (contrasts, {"against": "b"})):
        with pytest.raises(DataError, match=r"^all: .*1 item \(2\)"):
            function(both, items=["item"], weights=twice, **arguments)


@pytest.mark.parametrize("names", ["za", "az"])
def test_each_stratum_keeps_its_own_weight_whatever_its_name_and_place(names: str):
    # two items of .4 each that are right, four of .05 each that are wrong: .8 in any order
    rows = frame(np.array([[1, 1, 0, 0, 0, 0]]))
    strata, weight = [names[0]] * 2 + [names[1]] * 4, [0.4] * 2 + [0.05] * 4
    weights = pd.DataFrame({"score": "all", "item": range(6), "weight": weight, "stratum": strata})
    for order in ([0, 1, 2, 3, 4, 5], [5, 0, 4, 1, 3, 2]):
        result = mean_ci(rows, items=["item"], weights=weights.iloc[order]).iloc[0]
        assert result.estimate == pytest.approx(0.8)
    with pytest.raises(DataError, match=names[0]):
        mean_ci(rows, items=["item"], weights=weights.assign(weight=[0.5, 0.3] + [0.05] * 4))


def of_seeds(run: str, seeds: list[int], n: int = 8) -> pd.DataFrame:
    """Answers of one run, each the number of its seed."""
    return frame(np.repeat(np.array(seeds, dtype=float)[:, None], n, axis=1), run).assign(
        seed=lambda rows: rows["correct"].astype(int)
    )


@pytest.mark.parametrize(
    ("first", "second"), [([0, 1, 2], [7, 8, 9]), ([7], [0, 1, 2]), ([0], [7])]
)
@pytest.mark.parametrize("run", ["cae-gradcam", "baseline", "data-half", "base"])
def test_runs_without_a_seed_in_common_are_no_pairs_whatever_their_names(run, first, second):
    both = pd.concat([of_seeds(run, first), of_seeds("clip-ft", second)])
    with pytest.raises(DataError, match="`fixed`") as error:
        contrasts(both, "clip-ft", items=["item"])
    for seeds in (first, second):
        assert ", ".join(map(str, seeds)) in str(error.value)
    pairs = of_pairs(np.arange(5.0), a=np.eye(5)[:3], b=np.eye(5)[:3])
    pairs.loc[pairs["run"] == "b", "seed"] += 7
    with pytest.raises(DataError, match="7, 8, 9"):
        correlations(pairs, "b")


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [([0], [0, 1, 2], [0]), ([0, 1, 2], [1], [1]), ([0, 1, 2, 3], [7, 3, 1, 2], [1, 2, 3])],
)
def test_only_seeds_that_both_runs_have_are_paired_whatever_their_order(first, second, common):
    values = np.random.default_rng(0).random((2, 8, 9))
    table = of_pairs(np.arange(9.0), a=values[0], b=values[1])
    rows = table.assign(item=table["pair"], picture=table["pair"])
    both = rows[rows["seed"].isin(first).where(rows["run"] == "a", rows["seed"].isin(second))]
    less = rows[rows["seed"].isin(common)]
    difference = (values[0] - values[1])[common]
    for function, arguments in (
        (contrasts, {"value": "score", "items": ["item"]}),
        (correlations, {"resamples": 20}),
    ):
        for order in (both, both[::-1], both.sample(frac=1, random_state=3)):
            result = function(order, "b", **arguments)
            pd.testing.assert_frame_equal(result, function(less, "b", **arguments))
        assert result["seeds"].tolist() == [len(common)]
    _, parts = seed_means_and_components(*cells([difference]))
    result = contrasts(both, "b", value="score", items=["item"])
    assert result["error"].item() == pytest.approx(parts.variance() ** 0.5)


@pytest.mark.parametrize("seeds", [[0, 1, 2], [7, 8, 9], [7]])
def test_a_fixed_model_is_compared_with_every_seed(seeds: list[int]):
    both = pd.concat([of_seeds("cae-gradcam", seeds), of_seeds("base", [0]), of_seeds("one", [7])])
    for run, seed in (("base", 0), ("one", 7)):
        for fixed in (run, ["base", "one", "not there"]):
            result = contrasts(both, {"cae-gradcam": run}, items=["item"], fixed=fixed).iloc[0]
            assert (result.estimate, result.seeds) == (np.mean(seeds) - seed, len(seeds))
            result = contrasts(both, {run: "cae-gradcam"}, items=["item"], fixed=fixed).iloc[0]
            assert (result.estimate, result.seeds) == (seed - np.mean(seeds), len(seeds))
    result = contrasts(both, {"base": "one"}, items=["item"], fixed=["base", "one"]).iloc[0]
    assert (result.estimate, result.seeds) == (-7, 1)
    several = pd.concat([of_seeds("a", [0, 1, 2]), of_seeds("b", [0, 1])])
    with pytest.raises(DataError, match="run b with seeds 0, 1.*fixed"):
        contrasts(several, "b", items=["item"], fixed="b")
    three = np.random.default_rng(0).random((3, 6))
    table = of_pairs(np.arange(6.0), a=three, b=three[:1], c=np.repeat(three[:1], 3, axis=0))
    fixed, repeated = (correlations(table, run, 20, fixed="b").set_index("run") for run in "bc")
    pd.testing.assert_series_equal(fixed.loc["a"], repeated.loc["a"])


def test_missing_values_are_named_and_not_dropped():
    both = pd.concat([frame(np.ones((3, 30))), frame(np.zeros((3, 30)), "b")], ignore_index=True)
    lost = (both["run"] == "a") & both["item"].isin([17, 4])
    on_both_sides = lost | ((both["run"] == "b") & (both["item"] == 4))
    with_one_seed = lost & (both["seed"] == 0)
    for mask in (lost, on_both_sides, with_one_seed):
        rows = both.assign(correct=both["correct"].mask(mask))
        with pytest.raises(DataError, match=r"run a.*\b4\b.*\b17\b"):
            contrasts(rows, "b", items=["item"])
        with pytest.raises(DataError, match=r"run a.*\b4\b.*\b17\b"):
            mean_ci(rows, items=["item"])


def test_items_meet_by_their_names_and_one_sided_items_are_an_error():
    values = np.array([[1.0, 2, 4, 8]])
    other = frame(values[:, ::-1], "b")
    other["item"] = other["picture"] = 3 - other["item"]
    result = contrasts(pd.concat([frame(values), other]), "b", items=["item"]).iloc[0]
    assert (result.estimate, result.error, result.n) == (0, 0, 4)
    by_role = pd.concat([frame(values).assign(role="object"), other.assign(run="a", role="other")])
    result = contrasts(by_role, "other", items=["item"], by=["run"], key="role").iloc[0]
    assert (result.run, result.role, result.against, result.n) == ("a", "object", "other", 4)
    with pytest.raises(DataError, match="picture"):  # a name of two items
        contrasts(pd.concat([frame(values), other.assign(picture=0)]), "b", items=["item"])
    for name in ("item", "seed", "picture"):
        with pytest.raises(DataError, match=name):
            mean_ci(frame(values).assign(**{name: [0, 1, 2, None]}), items=["item"])
    for lacking, whole in (("a", "b"), ("b", "a")):
        both = pd.concat([frame(values, whole), frame(values, lacking).query("item != 2")])
        with pytest.raises(DataError, match=rf"\b2\b.*run {whole}\b"):
            contrasts(both, "b", items=["item"])


MISFITS = {
    "no column picture": lambda f: f.drop(columns="picture"),
    "no column subset": lambda f: f.drop(columns="subset"),
    "no column run": lambda f: f.drop(columns="run"),
    "no subset": lambda f: f.assign(subset=f["subset"].mask(f.index == 4)),
    "no run": lambda f: f.assign(run=f["run"].mask(f.index == 4)),
    "occurs twice": lambda f: pd.concat([f, f.head(1)]),
    "not answered by every seed": lambda f: f.iloc[1:],
    "no .b. among": lambda f: f[f["run"] != "b"],
}


@pytest.mark.parametrize("message", MISFITS)
def test_tables_that_do_not_fit_are_refused(message: str):
    values = np.random.default_rng(0).random((3, 6))
    both = pd.concat([frame(values), frame(values, "b")], ignore_index=True).assign(subset="one")
    with pytest.raises(DataError, match=message):
        contrasts(MISFITS[message](both), "b", items=["item"], by=["subset"])


def differences(values: list[float], n_seeds: int = 1, pictures: list | None = None):
    """What `contrasts` gives of these differences, one each item, the same with every seed."""
    first, second = np.array([values] * n_seeds), np.zeros((n_seeds, len(values)))
    both = [frame(first, pictures=pictures), frame(second, "b", pictures)]
    return contrasts(pd.concat(both), "b", items=["item"])


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.0],
        [-1.0] * 5,
        [1.0] * 5 + [0.0] * 500,
        [0.001, 0.002, 0.003, 0.004, 0.005],
    ],
    ids=["two-alike", "five-down", "five-of-505", "five-unlike"],
)
def test_a_handful_of_pictures_gives_no_verdict(values: list[float]):
    """Fewer than six other than zero: the smallest p-value of the sign test is not below .05."""
    rows, count = differences(values, n_seeds=3), sum(value != 0 for value in values)
    assert count == 0 or binomtest(count, count).pvalue > 0.05
    assert rows["nonzero"].tolist() == [count]
    for claim, delta in itertools.product(("gain", "level", "kept"), (1e-9, 10)):
        assert classify(rows, delta, claim).tolist() == ["undecided"]
    assert verdict(rows, 10) == "undecided"
    assert holm(rows)["sure"].tolist() == [0]


@pytest.mark.parametrize(
    ("values", "delta", "word"),
    [
        ([1.0] * 6, 0.1, "supported"),
        ([-1.0] * 6 + [0.0], 0.1, "contradicted"),
        ([1.0, -1.0] * 300, 0.3, "negligible"),
        ([0.01] * 6, 0.1, "negligible"),
    ],
)
def test_six_images_are_enough(values: list[float], delta: float, word: str):
    assert binomtest(MIN_NONZERO_CLUSTERS, MIN_NONZERO_CLUSTERS).pvalue < 0.05
    assert classify(differences(values), delta).tolist() == [word]
    for pictures, count in (([0, 1, 2, 3, 4, 0], 5), ([0, 1, 2, 3, 4, 5], 6)):
        assert differences([1.0] * 12, pictures=pictures * 2)["nonzero"].item() == count
    rows = pd.concat([frame(np.eye(3, 9)), frame(np.zeros((3, 9)), "b")])  # with any seed
    assert contrasts(rows, "b", items=["item"])["nonzero"].item() == 3


def test_a_handful_of_pairs_gives_no_verdict_on_correlations():
    true_scores = np.arange(40.0)
    swapped = true_scores[None].copy()
    swapped[0, [3, 4, 8, 9]] = swapped[0, [4, 3, 9, 8]]
    table = of_pairs(
        true_scores,
        a=true_scores[None],
        same=10 * true_scores[None],
        near=swapped,
        far=-true_scores[None],
    )
    tests = correlations(table, "a", resamples=50).set_index("run")
    assert tests["nonzero"].to_dict() == {"same": 0, "near": 4, "far": 40}
    outcomes = {"same": "undecided", "near": "undecided", "far": "contradicted"}
    assert classify(tests, 0.1).to_dict() == outcomes
    assert correlations(table, resamples=50)["nonzero"].tolist() == [39] * 4  # off the commonest
    both = correlations(pd.concat([table, table.assign(set="copy")]), "a", resamples=50)
    assert both.set_index(["set", "run"]).loc[("mean", "near"), "nonzero"] == 8


def test_sets_are_resampled_independently():
    table = of_pairs(np.arange(40.0), a=np.random.default_rng(0).random((1, 40)))
    errors = correlations(pd.concat([table, table.assign(set="copy")])).set_index("set")["error"]
    assert errors["mean"] == pytest.approx(errors["sts"] / 2**0.5, rel=0.1)


def test_movable_pairs_without_a_reference_are_those_of_the_seed_with_the_most():
    apart, tied = np.arange(6.0), np.array([0.0, 0, 0, 0, 1, 2])
    for order in ([apart, tied, tied], [tied, tied, apart]):  # all but one; all but four
        table = of_pairs(np.arange(6.0), a=np.stack(order), b=np.stack([tied] * 3))
        result = correlations(table, resamples=20).set_index("run")["nonzero"]
        assert result.to_dict() == {"a": 5, "b": 2}


def test_a_true_difference_of_the_detectable_size_is_found_in_80_percent_of_studies():
    items_alone = VarianceComponents(0.0, 0.01**2, 0.0, 3, 100_000)
    normal = 0.01 * (1.959964 + 0.841621)
    assert minimal_detectable_effect(items_alone) == pytest.approx(normal, rel=1e-3)
    seeds_alone = VarianceComponents(3.0, 1e-12, 0.0, 3, 1000)
    size = minimal_detectable_effect(seeds_alone)
    draws = size + 3**0.5 * np.random.default_rng(0).normal(size=(20_000, 3))
    ratio = np.abs(draws.mean(axis=1)) / draws.std(axis=1, ddof=1) * 3**0.5
    assert (ratio > t.isf(0.025, 2)).mean() == pytest.approx(0.8, abs=0.02)
    mixed = VarianceComponents(0.1, 0.5, 0.6, 3, 4)  # .25 / (.0625 + .025) degrees are expected
    shift, freedom = minimal_detectable_effect(mixed) / 0.5**0.5, 0.25 / 0.0875
    assert nct.sf(t.isf(0.025, freedom), freedom, shift) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("by_seed", "by_item", "n_seeds"),
    [
        *((by_seed, 1.0, n_seeds) for by_seed in (0.1, 3.0) for n_seeds in (1, 2, 3, 5)),
        (0.0, 1.0, 3),
        (0.3, 0.0, 3),
    ],
)
def test_intervals_hold_the_truth_in_about_95_percent_of_simulated_studies(
    by_seed: float, by_item: float, n_seeds: int
):
    """Seeds answer 60 items of 30 images; all three parts vary, and the mean over seeds is 0.

    The truth of a single seed is the mean of this seed; two seeds have no interval.
    """
    generator, n_tables = np.random.default_rng(0), 500
    clusters = np.repeat(np.arange(30), 2)
    covering, with_interval = 0, 0
    for _ in range(n_tables):
        of_images = generator.normal(size=30)[clusters] + generator.normal(size=60)
        of_seeds = by_seed * generator.normal(size=(n_seeds, 1))
        values = of_seeds + by_item * of_images + generator.normal(size=(n_seeds, 60))
        means, parts = seed_means_and_components(values, np.zeros(60, int), np.ones(1), clusters)
        reach = t.isf(0.025, parts.degrees_of_freedom()) * parts.variance() ** 0.5
        truth = of_seeds[0, 0] if n_seeds == 1 else 0
        covering += abs(means.mean() - truth) <= reach  # as `summarize`, but faster
        with_interval += not np.isnan(reach)
    assert with_interval == (0 if n_seeds == 2 else n_tables)
    assert with_interval == 0 or 0.92 <= covering / with_interval <= 0.99


def test_two_seeds_have_an_estimate_and_no_interval_test_or_verdict():
    both = pd.concat([frame(np.ones((2, 9)) * [[1], [2]]), frame(np.zeros((2, 9)), "b")])
    alike = pd.concat([frame(np.zeros((2, 9))), frame(np.zeros((2, 9)), "b")])
    for rows, estimate in ((both, 1.5), (alike, 0.0)):
        result = contrasts(rows, "b", items=["item"])
        assert (result["estimate"].item(), result["seeds"].item()) == (estimate, 2)
        columns = ["low", "high", "p", "freedom", "minimal_detectable_effect"]
        assert result[columns].isna().all(axis=None)
        assert holm(result)["sure"].tolist() == [0] and verdict(result, 9.0) == "undecided"
        assert mean_ci(rows, items=["item"])[columns].isna().all(axis=None)
    pairs = of_pairs(np.arange(9.0), a=np.eye(9)[:2])
    assert correlations(pairs, resamples=20)[columns].isna().all(axis=None)


def test_holm_is_that_of_statsmodels_within_groups_whatever_the_labels_of_rows():
    p = np.random.default_rng(0).beta(0.5, 3, (2, 30))
    p[:, 5] = p[:, 7]
    tests = pd.concat(
        pd.DataFrame({"estimate": [1.0, -1.0] * 15, "p": part, "claim": claim, "nonzero": 9})
        for claim, part in zip("xy", p, strict=True)
    )
    for by, groups in ((["claim"], p), ([], [p.ravel()])):
        result = holm(tests, by=by)
        expected = np.concatenate([multipletests(part, method="holm")[1] for part in groups])
        assert result["p_holm"].to_numpy() == pytest.approx(expected, abs=1e-15)
        assert result["sure"].tolist() == [*np.sign(tests["estimate"]) * (expected < 0.05)]
        assert 0 < (expected < 0.05).sum() < 60 and result.index.equals(tests.index)


@pytest.mark.parametrize(
    ("low", "high", "gain", "level", "kept"),
    [
        (1, 9, "supported", "undecided", "supported"),
        (1, 3, "supported", "undecided", "supported"),  # the estimate is delta, 2
        (1, 2, "undecided", "undecided", "supported"),  # only its upper end is delta
        (1, 1.9, "negligible", "supported", "supported"),  # above 0, and too small
        (0, 3, "undecided", "undecided", "supported"),
        (2, 4, "supported", "contradicted", "supported"),
        (-1.9, 1.9, "negligible", "supported", "supported"),
        (-2, 1.9, "undecided", "undecided", "undecided"),
        (-3, -1, "contradicted", "undecided", "undecided"),
        (-2, -1, "undecided", "undecided", "undecided"),
        (-1.9, -1, "negligible", "supported", "supported"),
        (-9, -2, "contradicted", "contradicted", "contradicted"),
        (-3, 3, "undecided", "undecided", "undecided"),
        (np.nan, np.nan, "undecided", "undecided", "undecided"),
    ],
)
def test_words_at_the_corners_of_an_interval(low, high, gain, level, kept):
    p = np.nan if np.isnan(low) else 0.04 if low * high > 0 else 0.5
    row = pd.DataFrame(
        {"run": ["a"], "estimate": [(low + high) / 2], "low": low, "high": high, "p": p}
    )
    for claim, expected in (("gain", gain), ("level", level), ("kept", kept)):
        assert classify(row, 2, claim).tolist() == [verdict(row, 2, claim)] == [expected]


def test_gains_ask_for_holm_over_the_methods_and_equality_does_not():
    sides = {"estimate": [3, 3, 3, -3], "low": [1, 1, 1, -5], "high": [5, 5, 5, -1]}
    rows = pd.DataFrame({"run": list("abcd"), "p": [0.01, 0.03, 0.012, 0.02]} | sides)
    # times 4, 3, 2, 1 from the smallest: .04, .036 raised to .04, .04, .04
    assert classify(rows, 2).tolist() == ["supported"] * 3 + ["contradicted"]
    rows["p"] = [0.01, 0.03, 0.02, 0.02]  # .04, .06, .06, .06
    assert classify(rows, 2).tolist() == ["supported"] + ["undecided"] * 3
    assert classify(rows, 6, "level").tolist() == ["supported"] * 4
    with pytest.raises(DataError, match="unknown claim .equal.: expected one of gain, level, kept"):
        classify(rows, 2, "equal")


INTERVALS = {"s": (1, 9), "n": (-1, 1), "u": (-9, 9), "c": (-9, -1)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("s s s s", "supported"),
        ("s s s u", "supported (gradient undecided)"),
        ("n n n c", "negligible (gradient contradicted)"),
        ("s n s n", "mixed (attention, perturbation supported; GradCAM, gradient negligible)"),
        ("s u", "mixed (attention supported; GradCAM undecided)"),
        ("ss sn nn nn", "negligible (attention supported)"),
        ("sc ss ss ss", "supported (attention contradicted)"),
        ("nu su uu ss", "undecided (gradient supported)"),
        ("cu cs cn cc", "contradicted"),
    ],
)
def test_a_verdict_is_the_word_of_three_methods_of_four_each_as_weak_as_its_weakest_part(
    words: str, expected: str
):
    runs = ["cae-attention", "cae-gradcam+lr=0.1", "perturbation", "negclip-cae-gradient"]
    rows = [
        (method, *INTERVALS[part])
        for method, parts in zip(runs, words.split(), strict=False)
        for part in parts
    ]
    tests = pd.DataFrame(rows, columns=["method", "low", "high"])
    tests["estimate"], tests["p"] = tests[["low", "high"]].mean(axis=1), 0.001
    tests.loc[tests["low"] * tests["high"] < 0, "p"] = 0.9
    assert verdict(tests, 2, by="method") == expected
    assert verdict(tests, 2, by="method", decidable=False) == "not decidable here"
    assert verdict(tests[:0], 2, by="method") == verdict(None, 2) == "not tested"


def of_pairs(true_scores: np.ndarray, **scores: np.ndarray) -> pd.DataFrame:
    """A table of scores `(seeds, n)` by run, on one set."""
    pairs = {"set": "sts", "pair": range(len(true_scores)), "gold": true_scores}
    return pd.concat(
        pd.DataFrame({"run": run, "seed": seed, "score": row} | pairs)
        for run, rows in scores.items()
        for seed, row in enumerate(rows)
    )


def test_a_set_called_mean_is_not_taken_for_the_mean_of_the_sets():
    table = of_pairs(np.arange(9.0), a=np.arange(9.0)[None])
    both = pd.concat([table.assign(set="other"), table.assign(set="mean")])
    with pytest.raises(DataError, match="called 'mean'"):
        correlations(both)
    assert correlations(table.assign(set="mean"))["set"].tolist() == ["mean"]


def test_correlations_are_spearmans_and_their_intervals_shrink_with_the_pairs():
    generator = np.random.default_rng(0)
    true_scores = generator.integers(0, 5, 400).astype(float)
    a, b = true_scores + generator.normal(0, 2, (3, 400)), generator.normal(0, 2, (3, 400))
    table = of_pairs(true_scores, a=a, b=b)
    result = correlations(table).set_index("run")
    expected = np.mean([spearmanr(column, true_scores).statistic for column in a])
    assert result.loc["a", "estimate"] == pytest.approx(expected)
    assert (result.loc["a", "n"], result.loc["a", "seeds"]) == (400, 3)
    gain = correlations(table, against="b").iloc[0]
    assert gain.estimate == pytest.approx(expected - result.loc["b", "estimate"])
    assert gain.low > 0 and gain.p < 0.02
    few = correlations(table[table["pair"] < 100]).set_index("run").loc["a"]
    assert few.high - few.low > 1.5 * (result.loc["a", "high"] - result.loc["a", "low"])
    two = correlations(pd.concat([table, table.assign(set="copy")])).set_index("set")["estimate"]
    assert two["mean"].tolist() == pytest.approx(two["sts"].tolist())
    with pytest.raises(DataError, match="do not share their pairs"):
        correlations(table.iloc[1:])
    with pytest.raises(DataError, match="no run 'c' among a, b"):
        correlations(table, "c")


def test_pairs_meet_their_gold_and_sets_their_seeds_by_name():
    true_scores = np.arange(12.0)
    table = of_pairs(
        true_scores, a=np.stack([true_scores, -true_scores]), b=np.stack([true_scores, true_scores])
    )
    for rows in (table, table[::-1], table.sample(frac=1, random_state=0)):
        result = correlations(rows, resamples=10).set_index("run")["estimate"]
        assert result.to_dict() == pytest.approx({"a": 0, "b": 1})
    with pytest.raises(DataError, match="gold"):
        correlations(table.assign(gold=table["gold"].where(table["run"] == "a", 3.0)))
    with pytest.raises(DataError, match="gold"):
        correlations(table.assign(gold=table["gold"].where(table["pair"] != 2)))
    with pytest.raises(DataError, match="twice"):
        correlations(pd.concat([table, table.iloc[:1]]), resamples=10)
    with pytest.raises(DataError):
        correlations(table.iloc[:0])
    constant = correlations(table.assign(score=0.0), resamples=10)
    assert constant[["estimate", "p"]].isna().all(axis=None)
    other = table.assign(set="other")
    for wrong in (
        other.assign(seed=other["seed"] + 1),
        other[other["run"] == "a"],
        other[other["seed"] == 0],
    ):
        with pytest.raises(DataError, match="sets"):
            correlations(pd.concat([table, wrong]), resamples=10)


def test_a_correlation_varies_by_pairs_and_by_seeds():
    true_scores = np.array([0.0, 0, 1, 0, 2])  # without variance in some samples
    scores = np.array([[1.0, 2, 3, 5, 4], [2.0, 1, 3, 4, 5]])
    table = of_pairs(true_scores, a=scores)
    counts = np.random.default_rng(0).multinomial(5, np.full(5, 0.2), size=50)
    draws = np.stack([weighted_spearman(row, true_scores, counts) for row in scores])
    repeated = [
        spearmanr(np.repeat(scores[0], c), np.repeat(true_scores, c)).statistic for c in counts
    ]
    np.testing.assert_allclose(draws[0], repeated)
    assert np.isnan(draws).any()
    draws = draws[:, ~np.isnan(draws[0])]
    kept = (draws.shape[1] - 1) / 49  # where nothing varied, the mean stands in
    whole = np.array([spearmanr(row, true_scores).statistic for row in scores])
    parts = VarianceComponents(
        whole.var(ddof=1),
        draws.mean(axis=0).var(ddof=1) * kept,
        (draws[0] - draws[1]).var(ddof=1) / 2 * kept,
        2,
        4,
    )
    result = correlations(table, resamples=50).iloc[0]
    assert result["error"] ** 2 == pytest.approx(parts.variance())
    one = correlations(table[table["seed"] == 0], resamples=50).iloc[0]
    assert one["error"] ** 2 == pytest.approx(draws[0].var(ddof=1) * kept)
    assert (one["freedom"], one["n"], one["seeds"]) == (pytest.approx(4), 5, 1)
    assert one["high"] - one["estimate"] == pytest.approx(t.isf(0.025, 4) * one["error"])
    three = scores[[0, 1, 0]]
    gain = correlations(of_pairs(true_scores, a=three, same=three), "same", resamples=50).iloc[0]
    assert gain[["estimate", "low", "high", "p"]].tolist() == [0, 0, 0, 1]


def test_a_ratio_has_the_mean_and_the_spread_of_a_ratio_of_means():
    generator = np.random.default_rng(0)
    bottom = generator.normal(2, 1, (2000, 60))
    top = 0.5 * bottom + generator.normal(0, 1, bottom.shape)
    table = frame(top[:1]).sort_values("item").rename(columns={"correct": "top"})
    table = table.assign(bottom=bottom[0])
    table["ratio"] = linearized_ratios(table, "top", "bottom")
    result = mean_ci(table, "ratio", ["item"]).iloc[0]
    assert result["estimate"] == pytest.approx(top[0].mean() / bottom[0].mean())
    assert result["error"] == pytest.approx((top.mean(1) / bottom.mean(1)).std(), rel=0.25)
    runs = pd.DataFrame({"run": list("aabb"), "top": [1.0, 3, 1, 1], "bottom": [4.0, 4, 1, 3]})
    # of each run its own, 1/2 + (top - bottom / 2) / mean
    assert linearized_ratios(runs, "top", "bottom").tolist() == [0.25, 0.75, 0.75, 0.25]
