"""How often the 95 % intervals of `cae_bench.statistics` hold the truth, by simulation.

Usage, from the top of the repository:

    .venv/bin/python -m speed.coverage
    .venv/bin/python -m speed.coverage --tables 200 --no-record          # a quick look
    .venv/bin/python -m speed.coverage --grid                            # invented designs

Each design is one that a page uses: its items, images, groups and weights are those of the stored
tables. From the measured differences to CLIP-FT come the shares of variance by seed, image, item,
and what is left; from these, differences are drawn whose mean over all seeds, images and items
that there could be is known, and the library's interval holds it or not. Answers stay answers: a
difference is -1, 0 or 1, as often not 0 as in the records. The seeds' share is the mean over all
runs with an attribution loss; "seeds apart" makes it as large as the items'. With a single seed, as
where a weight is varied, an interval speaks of that seed. The result is the table `coverage`.

`--grid` draws from invented designs instead: `GRID_SEEDS` by `GRID_ITEMS` by `GRID_SPREADS` by
`GRID_KINDS`. It prints their coverage, lowest first, and stores nothing. Two runs of different
numbers of seeds need no design of their own: `contrasts` leaves the seeds that both have, and a
fixed model adds no variance of seeds.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import t

from cae_bench.averages import score_weights
from cae_bench.statistics import (
    ITEM_KEY,
    VarianceComponents,
    correlations,
    linearized_ratios,
    mean_ci,
    seed_means_and_components,
    summarize,
)
from cae_lab import plots, results, store
from cae_lab.profiles import load_profile
from cae_lab.provenance import current_provenance
from cae_lib.training.inputs import digest

TUNED, CAE = (
    "clip-ft",
    [f"{kind}-{name}" for kind in ("cae", "placebo") for name in plots.PAPER_METHOD_LABELS],
)
TRUTH = 0.01
"""True difference of simulated answers; that of other values is 0."""

GRID_SEEDS, GRID_ITEMS = (1, 2, 3, 5, 10), (100, 1000)

GRID_SPREADS = {"none": 0.0, "small": 0.3, "equal": 1.0, "large": 3.0}
"""Standard deviations of the true means of seeds, in standard errors of one seed over items."""

GRID_KINDS = {
    "items": (1, 0.5),
    "images": (2, 0.5),
    "unsteady": (1, 0.1),
    "answers": (1, 0.01),
}
"""Number of items that share an image, and variance of the items' true means, by kind of values.

A value has the variance 1 (.3 if it is an answer) within a seed; what its item does not explain is
particular to seed and item. Answers are -1, 0 or 1, and 70 % of them are 0 unless a mean is large.
"""

Held = Callable[[np.random.Generator], bool]
"""Draws one table, and says whether the interval holds the truth."""


@dataclass(frozen=True)
class Crossed:
    """Differences of seeds by items, and where their variance comes from."""

    values: np.ndarray  # (S, n), measured
    strata: np.ndarray  # (n,), as for `seed_means_and_components`
    weights: np.ndarray  # (G,)
    clusters: np.ndarray  # (n,)
    by_seed: float
    by_picture: float
    by_item: float
    rest: float

    def held(self, generator: np.random.Generator) -> bool:
        """Return whether the interval of one drawn table holds the truth."""
        n_seeds, n = self.values.shape
        pictures = generator.normal(0, self.by_picture**0.5, self.clusters.max() + 1)
        seeds = generator.normal(0, self.by_seed**0.5, (n_seeds, 1))
        values = pictures[self.clusters] + generator.normal(0, self.by_item**0.5, n)
        truth, answers = 0.0, set(np.unique(self.values)) <= {-1, 0, 1}
        if answers:
            # A difference is not 0 as often as in its stratum of the record, or more often where
            # its mean requires it; its sign is drawn so that it has this mean.
            truth = TRUTH
            mean = truth + seeds + np.clip(values, -0.8, 0.8)
            share = np.array(
                [
                    (self.values[:, self.strata == group] != 0).mean()
                    for group in range(len(self.weights))
                ]
            )[self.strata]
            sign = np.where(
                generator.random(mean.shape) < 0.5 + mean / 2 / np.maximum(share, np.abs(mean)),
                1,
                -1,
            )
            values = sign * (generator.random(mean.shape) < np.maximum(share, np.abs(mean)))
        else:
            values = seeds + values + generator.normal(0, self.rest**0.5, (n_seeds, n))
        # The interval of a single seed speaks of this seed.
        if n_seeds == 1:
            truth += seeds[0, 0] * self.weights.sum()
        found = summarize(
            *seed_means_and_components(values, self.strata, self.weights, self.clusters)
        )
        return bool(found["low"] <= truth <= found["high"])


def measured(
    values: np.ndarray, strata: np.ndarray, weight: np.ndarray, pictures: np.ndarray
) -> Crossed:
    """Return differences `(S, n)` with the shares of their variance, by moments."""
    _, clusters = np.unique(pictures, return_inverse=True)
    _, parts = seed_means_and_components(values, strata, weight, clusters)
    means = pd.DataFrame(values.T).groupby(strata).transform("mean").to_numpy().T
    # Means over seeds contain the variance of images and items, and a share of the rest.
    residual = values - means
    middle = residual.mean(axis=0)
    rest = (residual - middle).var(axis=0, ddof=1).mean() if len(values) > 1 else 0.0
    sums, sizes = (np.bincount(clusters, x) for x in (middle, np.ones(len(middle))))
    # The covariance of two items of one image is the variance of images.
    pairs = (sizes * (sizes - 1)).sum()
    picture = max(0.0, (sums**2).sum() - (middle**2).sum()) / pairs if pairs else 0.0
    item = max(0.0, middle.var() - picture - rest / len(values))
    # A seed shifts all values alike, and their weighted mean by the sum of the weights as much.
    seed = max(0.0, parts.by_seed - parts.rest) / weight.sum() ** 2
    return Crossed(values, strata, weight, clusters, seed, picture, item, rest)


def differences(
    frame: pd.DataFrame, value: str, items: list[str], numbers: pd.DataFrame | None = None
) -> Crossed:
    """Build a design of `contrasts`: CAE by GradCAM minus CLIP-FT, seed variance of all runs."""
    wide = frame.pivot(index=[*items, "picture"], columns=["run", "seed"], values=value)
    wide = wide.astype(float).reset_index()
    if numbers is None:
        numbers = wide[items].droplevel(1, axis=1).assign(stratum=0, weight=1 / len(wide))
    rows = numbers.merge(wide[items].droplevel(1, axis=1).assign(row=range(len(wide))), on=items)
    strata = pd.factorize(rows["stratum"])[0]
    weight = rows.groupby("stratum", sort=False)["weight"].sum().to_numpy()
    wide = wide.iloc[rows["row"]]
    found = {
        run: measured(
            (wide[run] - wide[TUNED]).to_numpy().T, strata, weight, wide["picture"].to_numpy()
        )
        for run in CAE
        if run in wide
    }
    # One run has too few seeds to tell how much they vary.
    apart = float(np.mean([design.by_seed for design in found.values()]))
    return replace(found["cae-gradcam"], by_seed=apart)


def leads(profile: str) -> tuple[int, Held]:
    """Return the design of the share of CLIP-FT's gap to relation words that is left: a ratio."""
    words = results.load("attribution", profile, [TUNED, "cae-gradcam"])
    words = words[(words["method"] == "gradcam") & words["role"].isin(["object", "relation"])]
    wide = words.pivot_table("score", ["caption", "run", "seed"], "role", observed=True)
    lead = (wide["object"] - wide["relation"]).unstack(["run", "seed"]).dropna()
    # (2 runs, n captions, S seeds)
    both = np.stack([lead[run].to_numpy() for run in (TUNED, "cae-gradcam")])
    n, n_seeds = both.shape[1:]
    items, seeds = both.mean(axis=2), both.mean(axis=1)
    # Two-way layout of captions and seeds, whose effects correlate between the two runs.
    left = both - items[:, :, None] - seeds[:, None] + both.mean(axis=(1, 2))[:, None, None]
    rest = np.cov(left.reshape(2, -1)) * n_seeds / (n_seeds - 1)
    parts = [both.mean(axis=(1, 2)), np.cov(items) - rest / n_seeds, np.cov(seeds) - rest / n, rest]
    # Square roots of the covariances; what was subtracted can leave a negative eigenvalue.
    roots = []
    for part in parts[1:]:
        values, vectors = np.linalg.eigh(part)
        roots.append(vectors * np.maximum(values, 0) ** 0.5)
    table = pd.DataFrame(
        {"run": "a", "seed": np.tile(range(n_seeds), n), "caption": np.repeat(range(n), n_seeds)}
    ).assign(picture=lambda rows: rows["caption"])

    def held(generator: np.random.Generator) -> bool:
        item, seed, rest = (
            np.einsum("ij,j...->i...", root, generator.normal(size=(2, *size)))
            for root, size in zip(roots, ((n, 1), (1, n_seeds), (n, n_seeds)), strict=True)
        )
        before, after = parts[0][:, None] + (item + seed + rest).reshape(2, -1)
        rows = table.assign(before=before, after=after)
        rows["left"] = linearized_ratios(rows, "after", "before")
        found = mean_ci(rows, "left", ["caption"]).iloc[0]
        return bool(found["low"] <= parts[0][1] / parts[0][0] <= found["high"])

    return n, held


def similarity(profile: str, resamples: int) -> tuple[int, Held]:
    """Return the design of a difference of Spearman's correlations, the mean over the datasets."""
    pairs = results.load("similarity", profile, [TUNED, "cae-gradcam"])
    sets, n_seeds = list(pairs.groupby("set")), pairs["seed"].nunique()
    n, matrices = sets[0][1]["pair"].nunique(), []
    for _, part in sets:
        wide = part.pivot(index="pair", columns=["run", "seed"], values="score")
        gold = part.drop_duplicates("pair").set_index("pair")["gold"].loc[wide.index]
        ranks = pd.DataFrame(np.column_stack([gold, wide])).corr("spearman").to_numpy()
        # Pearson's correlation of normal variables with this rank correlation
        matrices.append(2 * np.sin(np.pi / 6 * ranks))
    matrix = np.mean(matrices, axis=0)
    by_run = matrix[0, 1:].reshape(2, n_seeds)
    # A score plus s times the ground truth correlates with it by about s (1 - r²) more.
    spread = np.diff(by_run, axis=0).std(ddof=1) / (1 - by_run.mean() ** 2)
    # Seeds are alike here; `held` draws how they vary.
    matrix[0, 1:] = matrix[1:, 0] = np.repeat(by_run.mean(axis=1), n_seeds)
    values, vectors = np.linalg.eigh(matrix)
    # After these changes the matrix need not be positive definite.
    root = vectors * np.maximum(values, 1e-9) ** 0.5
    truth = float(np.diff(6 / np.pi * np.arcsin(by_run.mean(axis=1) / 2))[0])
    blank = pd.concat(
        [
            pd.DataFrame({"set": number, "run": run, "seed": seed, "pair": range(n)})
            for number in range(len(sets))
            for run in "ab"
            for seed in range(n_seeds)
        ]
    )

    def held(generator: np.random.Generator) -> bool:
        shift = np.concatenate([np.zeros(n_seeds), generator.normal(0, spread, n_seeds)])
        drawn = np.stack([root @ generator.normal(size=(len(root), n)) for _ in sets])
        scores = drawn[:, 1:] + shift[:, None] * drawn[:, :1]
        rows = blank.assign(
            gold=np.repeat(drawn[:, :1], 2 * n_seeds, axis=1).ravel(), score=scores.ravel()
        )
        found = correlations(
            rows, "a", resamples=resamples, bootstrap_seed=int(generator.integers(2**31))
        ).iloc[-1]
        return bool(found["low"] <= truth <= found["high"])

    return len(sets) * n, held


def designs(profile: str, resamples: int) -> Iterator[tuple[str, int, int, Held]]:
    """Yield a claim's quantity, numbers of seeds and items, and the function that draws tables."""
    items = results.load("items", profile, [results.DATA_RUN])
    if profile == "paired":
        # Its claims are judged on these items, see `headline_weights`.
        items = items[items["subset"] == "relation"]
    answers = results.load("benchmarks", profile, [TUNED, *CAE])
    numbers = score_weights(items, "family")
    mean = differences(answers, "correct", list(ITEM_KEY), numbers.query("score == 'mean'"))
    _, parts = seed_means_and_components(mean.values, mean.strata, mean.weights, mean.clusters)
    far = replace(mean, by_seed=parts.by_item / mean.weights.sum() ** 2)
    n = mean.values.shape[1]
    yield "C3: mean of families", 3, n, mean.held
    yield "C3, seeds apart", 3, n, far.held
    # The values give the shape and how often a difference is not 0: repeated, they make six seeds.
    yield "C3, seeds apart", 6, n, replace(far, values=np.concatenate([mean.values] * 2)).held
    yield "C3, seeds apart", 1, n, replace(far, values=mean.values[:1]).held
    yield "C2: lead left", 3, *leads(profile)
    if profile == "paired":
        return
    one = "Winoground" if "Winoground" in set(numbers["score"]) else "ARO"
    family = differences(answers, "correct", list(ITEM_KEY), numbers[numbers["score"] == one])
    yield f"C3: {one}", 3, family.values.shape[1], family.held
    tuned = [TUNED, *CAE[:4]]
    ranks = results.load("retrieval", profile, tuned)
    ranks = ranks[(ranks["set"] == "coco") & (ranks["direction"] == "text to image")]
    recall = differences(ranks.assign(hit=ranks["rank"] == 1), "hit", ["query"])
    yield "C5: R@1, text to image", 3, recall.values.shape[1], recall.held
    phrases = results.load("phrases", profile, tuned).dropna(subset=["own"])
    for kind in ("relation", "attribute"):
        cosine = differences(phrases[phrases["kind"] == kind], "own", ["caption"])
        yield f"C7: cosine, {kind}", 3, cosine.values.shape[1], cosine.held
    yield "C6: mean Spearman", 3, *similarity(profile, resamples)


def grid_tables(
    kind: str, spread: float, shape: tuple[int, int, int], generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw values `(T, S, n)` of T tables, S seeds, n items, and the seeds' true means `(T, S)`."""
    (tables, n_seeds, n), (per_image, by_item) = shape, GRID_KINDS[kind]
    total = 0.3 if kind == "answers" else 1.0
    items = generator.normal(0, by_item**0.5, (tables, 1, n))
    error = total / n
    if per_image > 1:
        # Half of an item's variance is its image's.
        images = generator.normal(0, by_item**0.5, (tables, 1, n // per_image))
        items = (items + np.repeat(images, per_image, axis=2)) / 2**0.5
        error += (per_image - 1) * by_item / 2 / n
    seeds = generator.normal(0, spread * error**0.5, (tables, n_seeds, 1))
    if kind != "answers":
        rest = generator.normal(0, (total - by_item) ** 0.5, shape)
        return seeds + items + rest, seeds[..., 0]
    mean = seeds + np.clip(items, -0.3, 0.3)
    # As in `Crossed.held`: how often a value is not 0, and then its sign.
    share = np.maximum(total, np.abs(mean))
    sign = np.where(generator.random(shape) < 0.5 + mean / 2 / share, 1.0, -1.0)
    return sign * (generator.random(shape) < share), seeds[..., 0]


def grid_intervals(values: np.ndarray, per_image: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of T tables `(T, S, n)` and half the widths of their intervals.

    `per_image` items in a row share an image.
    """
    tables, n_seeds, n = values.shape
    by_seed = values.mean(axis=2)
    # `seed_means_and_components` for all tables at once, as a call for each would be slow.
    residuals = (values - by_seed[..., None]).reshape(tables, n_seeds, -1, per_image).sum(axis=3)
    residuals /= n * (1 - per_image / n) ** 0.5
    by_image = residuals.mean(axis=1)
    rest = ((residuals - by_image[:, None]) ** 2).sum(axis=(1, 2)) / max(1, n_seeds - 1)
    spread = by_seed.var(axis=1, ddof=1) if n_seeds > 1 else np.zeros(tables)
    parts = [
        VarianceComponents(*row, n_seeds, n // per_image - 1)
        for row in zip(spread, (by_image**2).sum(axis=1), rest, strict=True)
    ]
    error = np.array([part.variance() for part in parts]) ** 0.5
    half = t.isf(0.025, np.array([part.degrees_of_freedom() for part in parts])) * error
    # The library's own interval of the first table guards against a difference.
    images = np.repeat(np.arange(n // per_image), per_image)
    table = values[0], np.zeros(n, int), np.ones(1), images
    first = pd.Series(summarize(*seed_means_and_components(*table)))[["estimate", "low"]]
    means = by_seed.mean(axis=1)
    np.testing.assert_allclose([means[0], means[0] - half[0]], first.astype(float))
    return means, half


def grid(tables: int, seed: int, at_once: int = 250) -> pd.DataFrame:
    """Simulate the invented designs; coverage is NaN where no table has an interval."""
    rows = []
    for kind, n_seeds, n, (size, spread) in itertools.product(
        GRID_KINDS, GRID_SEEDS, GRID_ITEMS, GRID_SPREADS.items()
    ):
        generator, given, held = np.random.default_rng(seed), 0, 0
        for _ in range(0, tables, at_once):
            values, truths = grid_tables(kind, spread, (at_once, n_seeds, n), generator)
            means, half = grid_intervals(values, GRID_KINDS[kind][0])
            # One seed speaks of itself.
            truth = truths[:, 0] if n_seeds == 1 else 0.0
            given += int(np.isfinite(half).sum())
            held += int((np.abs(means - truth) <= half).sum())
        share = held / given if given else np.nan
        rows.append((kind, n_seeds, n, size, given, share))
    columns = ["kind", "n_seeds", "items", "spread", "intervals", "coverage"]
    return pd.DataFrame(rows, columns=columns)


def coverage(profiles: list[str], tables: int, resamples: int, seed: int) -> pd.DataFrame:
    """Return the share of intervals that hold the truth, by design, with its standard error."""
    rows = []
    for name in profiles:
        for quantity, n_seeds, items, held in designs(name, resamples):
            generator = np.random.default_rng(seed)
            # Each interval of a correlation is a bootstrap.
            n = tables // 5 if "Spearman" in quantity else tables
            share = float(np.mean([held(generator) for _ in range(n)]))
            rows.append(
                {
                    "world": name,
                    "quantity": quantity,
                    "n_seeds": n_seeds,
                    "items": items,
                    "tables": n,
                    "coverage": share,
                    "error": (share * (1 - share) / n) ** 0.5,
                }
            )
            print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profiles", nargs="+", default=["mini", "photo", "paired"])
    parser.add_argument("--tables", type=int, default=2000, help="simulated tables a design")
    parser.add_argument("--resamples", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true", help="print, store nothing")
    parser.add_argument("--grid", action="store_true", help="invented designs; store nothing")
    options = parser.parse_args()
    if options.grid:
        print(grid(options.tables, options.seed).sort_values("coverage").to_string(index=False))
        return
    settings = {
        name: value for name, value in vars(options).items() if name not in ("no_record", "grid")
    }
    started = time.monotonic()
    frame = coverage(options.profiles, options.tables, options.resamples, options.seed)
    if not options.no_record:
        key = digest(settings)
        spent = round(time.monotonic() - started, 1)
        made = current_provenance("mini", options.seed, wall_seconds=spent, settings=settings)
        profile = load_profile("mini")
        run = results.DATA_RUN, options.seed
        store.save("coverage", profile, *run, frame, key=key, provenance=made)
        store.pack(profile, [run], ["coverage"])


if __name__ == "__main__":
    main()
