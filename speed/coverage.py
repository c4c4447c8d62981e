"""How often the 95 % intervals of `cae_lib.statistics` hold the truth, by simulation.

Usage, from the top of the repository:

    .venv/bin/python -m speed.coverage
    .venv/bin/python -m speed.coverage --tables 200 --no-record          # a quick look

Each design is one that a page uses: its items, pictures, groups and weights are those of the stored
tables. From the measured differences to CLIP-FT come the shares of variance by seed, picture, item,
and what is left; from these, differences are drawn whose mean over all seeds, pictures and items
that there could be is known, and the library's interval holds it or not. Answers stay answers: a
difference is -1, 0 or 1, as often not 0 as in the records. The seeds' share is the mean over all
rows with an attribution loss; "seeds apart" makes it as large as the items'. With a single seed, as
where a weight is varied, an interval speaks of that seed. The result is the table `coverage`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cae_lib import plots, results, store
from cae_lib.evaluation.averages import score_weights
from cae_lib.keys import digest
from cae_lib.runtime import current_provenance
from cae_lib.statistics import (
    ITEM_KEY,
    correlations,
    linearized_ratios,
    mean_ci,
    seed_means_and_components,
    summarize,
)

TUNED, CAE = (
    "clip-ft",
    [f"{kind}-{name}" for kind in ("cae", "placebo") for name in plots.PAPER_METHOD_LABELS],
)
TRUTH = 0.01
"""True difference of the simulated answers; that of other values is 0."""

Held = Callable[[np.random.Generator], bool]
"""Draws one table; whether the interval holds the truth."""


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
        """Whether the interval of one drawn table holds the truth."""
        n_seeds, n = self.values.shape
        pictures = generator.normal(0, self.by_picture**0.5, self.clusters.max() + 1)
        seeds = generator.normal(0, self.by_seed**0.5, (n_seeds, 1))
        values = pictures[self.clusters] + generator.normal(0, self.by_item**0.5, n)
        truth, answers = 0.0, set(np.unique(self.values)) <= {-1, 0, 1}
        if answers:
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
        if n_seeds == 1:
            truth += seeds[0, 0] * self.weights.sum()
        found = summarize(
            *seed_means_and_components(values, self.strata, self.weights, self.clusters)
        )
        return bool(found["low"] <= truth <= found["high"])


def measured(
    values: np.ndarray, strata: np.ndarray, weight: np.ndarray, pictures: np.ndarray
) -> Crossed:
    """Differences with the shares of their variance, by moments."""
    _, clusters = np.unique(pictures, return_inverse=True)
    _, parts = seed_means_and_components(values, strata, weight, clusters)
    means = pd.DataFrame(values.T).groupby(strata).transform("mean").to_numpy().T
    residual = values - means
    middle = residual.mean(axis=0)
    rest = (residual - middle).var(axis=0, ddof=1).mean() if len(values) > 1 else 0.0
    sums, sizes = (np.bincount(clusters, x) for x in (middle, np.ones(len(middle))))
    pairs = (sizes * (sizes - 1)).sum()
    picture = max(0.0, (sums**2).sum() - (middle**2).sum()) / pairs if pairs else 0.0
    item = max(0.0, middle.var() - picture - rest / len(values))
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
    apart = float(np.mean([design.by_seed for design in found.values()]))
    return replace(found["cae-gradcam"], by_seed=apart)


def leads(profile: str) -> tuple[int, Held]:
    """Compute the share of CLIP-FT's gap to relation words that remains: a ratio of two means."""
    words = results.load("attribution", profile, [TUNED, "cae-gradcam"])
    words = words[(words["method"] == "gradcam") & words["role"].isin(["object", "relation"])]
    wide = words.pivot_table("score", ["caption", "run", "seed"], "role", observed=True)
    lead = (wide["object"] - wide["relation"]).unstack(["run", "seed"]).dropna()
    both = np.stack([lead[run].to_numpy() for run in (TUNED, "cae-gradcam")])  # 2, n, S
    n, n_seeds = both.shape[1:]
    items, seeds = both.mean(axis=2), both.mean(axis=1)
    left = both - items[:, :, None] - seeds[:, None] + both.mean(axis=(1, 2))[:, None, None]
    rest = np.cov(left.reshape(2, -1)) * n_seeds / (n_seeds - 1)
    parts = [both.mean(axis=(1, 2)), np.cov(items) - rest / n_seeds, np.cov(seeds) - rest / n, rest]
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
    """Build a difference of Spearman's correlations, the mean over the datasets.

    Scores are normal, correlate as the measured ones do, and seeds vary as much.
    """
    pairs = results.load("similarity", profile, [TUNED, "cae-gradcam"])
    sets, n_seeds = list(pairs.groupby("set")), pairs["seed"].nunique()
    n, matrices = sets[0][1]["pair"].nunique(), []
    for _, part in sets:
        wide = part.pivot(index="pair", columns=["run", "seed"], values="score")
        gold = part.drop_duplicates("pair").set_index("pair")["gold"].loc[wide.index]
        ranks = pd.DataFrame(np.column_stack([gold, wide])).corr("spearman").to_numpy()
        matrices.append(2 * np.sin(np.pi / 6 * ranks))
    matrix = np.mean(matrices, axis=0)
    by_run = matrix[0, 1:].reshape(2, n_seeds)
    spread = np.diff(by_run, axis=0).std(ddof=1) / (1 - by_run.mean() ** 2)
    matrix[0, 1:] = matrix[1:, 0] = np.repeat(by_run.mean(axis=1), n_seeds)  # seeds alike, for now
    values, vectors = np.linalg.eigh(matrix)
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
    """Return a claim's quantity, the numbers of seeds and items, and a function that draws data."""
    items = results.load("items", profile, [results.DATA_RUN])
    if profile == "paired":
        items = items[items["subset"] == "relation"]  # places, on which its claims are judged
    answers = results.load("benchmarks", profile, [TUNED, *CAE])
    numbers = score_weights(items, "family")
    mean = differences(answers, "correct", list(ITEM_KEY), numbers.query("score == 'mean'"))
    _, parts = seed_means_and_components(mean.values, mean.strata, mean.weights, mean.clusters)
    far = replace(mean, by_seed=parts.by_item / mean.weights.sum() ** 2)
    n = mean.values.shape[1]
    yield "C3: mean of families", 3, n, mean.held
    yield "C3, seeds apart", 3, n, far.held
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


def coverage(profiles: list[str], tables: int, resamples: int, seed: int) -> pd.DataFrame:
    """For each design the share of intervals that hold the truth, with its standard error."""
    rows = []
    for name in profiles:
        for quantity, n_seeds, items, held in designs(name, resamples):
            generator = np.random.default_rng(seed)
            n = tables // 5 if "Spearman" in quantity else tables  # each a bootstrap
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
    """Simulate, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profiles", nargs="+", default=["mini", "photo", "paired"])
    parser.add_argument("--tables", type=int, default=2000, help="simulated tables a design")
    parser.add_argument("--resamples", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true", help="print, store nothing")
    options = parser.parse_args()
    settings = {name: value for name, value in vars(options).items() if name != "no_record"}
    started = time.monotonic()
    frame = coverage(options.profiles, options.tables, options.resamples, options.seed)
    if not options.no_record:
        key = digest(settings)
        spent = round(time.monotonic() - started, 1)
        made = current_provenance("mini", options.seed, wall_seconds=spent, settings=settings)
        store.save(
            "coverage", results.DATA_RUN, options.seed, frame, "mini", key=key, provenance=made
        )
        store.merge_staged("mini")


if __name__ == "__main__":
    main()
