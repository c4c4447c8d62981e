"""Compare losses on equal footing: all know the captions' text alone, or all know ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from cae_lab import plots, results
from cae_lab.plots import PAPER_METHOD_LABELS

FOUR, FOUR_PLACEBO = "paper's CAE, mean of 4", "placebo of the paper's CAE, mean of 4"
FOUR_DEPENDENCY = f"{FOUR}, dependency parser"
FOUR_TRUTH = f"{FOUR}, ground truth"
FOUR_TRUTH_PLACEBO = f"{FOUR_PLACEBO}, ground truth"
MEANS = {
    name: [f"{kind}-{method}" for method in PAPER_METHOD_LABELS]
    for name, kind in (
        (FOUR, "cae"),
        (FOUR_PLACEBO, "placebo"),
        (FOUR_DEPENDENCY, "dependency"),
        (FOUR_TRUTH, "truth"),
        (FOUR_TRUTH_PLACEBO, "placebo-truth"),
    )
}
"""The runs whose mean stands for the paper's four methods, by the name of the mean."""

FROM_TEXT, WITH_TRUTH = "from text alone", "with ground truth"
LOSSES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    FROM_TEXT: {
        # Profiles that were not run with the dependency parser show the paper's parser.
        FOUR: (FOUR,),
        "its placebo: shuffled roles": (FOUR_PLACEBO,),
        "swap-margin loss": ("dependency-binding", "cae-binding"),
        "placebo: shuffled roles": ("placebo-dependency-binding", "placebo-binding"),
        "placebo: any two words": ("wrong-dependency-binding", "wrong-binding"),
        "softmax on the same swaps": ("dependency-softmax", "softmax-binding"),
        "NegCLIP": ("spacy-negclip", "negclip"),
        "margin loss": ("spacy-margin", "hinge-negclip"),
    },
    WITH_TRUTH: {
        FOUR: (FOUR_TRUTH,),
        "its placebo: shuffled roles": (FOUR_TRUTH_PLACEBO,),
        "swap-margin loss": ("truth-binding",),
        "placebo: shuffled roles": ("placebo-truth-binding",),
        "placebo: any two words": ("wrong-truth-binding",),
        "softmax on the same swaps": ("truth-softmax",),
        "NegCLIP": ("negclip",),
        "margin loss": ("hinge-negclip",),
    },
}
"""The runs of each loss by what it knows; the first one that is stored counts."""


def is_stored(run: str, profile: str, seeds: int) -> bool:
    """Return whether the answers of a run, or of all runs of a mean, are stored for all seeds."""
    return all(
        results.is_stored("benchmarks", name, seeds, profile) for name in MEANS.get(run, [run])
    )


def find_footings(profile: str, seeds: int) -> dict[str, dict[str, str]]:
    """Return the run of each loss for each footing."""
    footings = {}
    for footing, losses in LOSSES.items():
        # If none is stored, the last one, so that a page trains it.
        runs = {
            loss: next((run for run in names if is_stored(run, profile, seeds)), names[-1])
            for loss, names in losses.items()
        }
        # Not every profile has ground truth, so runs with it are not trained on demand.
        if footing == WITH_TRUTH:
            runs = {loss: run for loss, run in runs.items() if is_stored(run, profile, seeds)}
        footings[footing] = runs
    # All other losses are compared with the swap-margin loss.
    return {title: runs for title, runs in footings.items() if "swap-margin loss" in runs}


def by_footing(
    gains: pd.DataFrame, footings: Mapping[str, Mapping[str, str]], losses: Sequence[str]
) -> pd.DataFrame:
    """Return the rows of `gains`, whose index is the run, with `model` (the loss) and `footing`.

    A row is empty where a loss is not measured on a footing.
    """
    parts = [
        gains.reindex([runs.get(loss) for loss in losses]).assign(model=losses, footing=footing)
        for footing, runs in footings.items()
    ]
    return pd.concat(parts, ignore_index=True)


def describe_footings(rows: pd.DataFrame, what: str) -> str:
    """Describe a figure of the gains that `by_footing` returns, for readers who do not see it."""
    points = rows.set_index(["footing", "model"])["estimate"].mul(100)
    shown = ("swap-margin loss", "NegCLIP", "margin loss")
    gains_by_footing = (
        f"{footing}: " + ", ".join(f"{model} {points[footing, model]:+.1f}" for model in shown)
        for footing in rows["footing"].unique()
    )
    return f"{what}, with 95 % intervals. {'; '.join(gains_by_footing)}."


def best_trials(trials: pd.DataFrame) -> plots.CellOutput:
    """Return the best trial of each loss in the table `footing` of `choose_settings`."""
    by_loss = trials.groupby("experiment", sort=False)
    best = trials.loc[by_loss["score"].idxmax()].set_index("experiment")
    # in the order of the search
    best = best.loc[[*dict.fromkeys(trials["experiment"])]]
    # A run without an attribution loss has a margin in its settings, too, and does not use it.
    margins = best["margin"].where(best["weight"].notna())
    columns = {
        "trials": by_loss.size(),
        "learning rate": best["lr"].map("{:g}".format),
        "batch": best.get("batch_size", pd.Series(index=best.index)).map(
            "{:.0f}".format, na_action="ignore"
        ),
        "margin": margins.map("{:g}".format, na_action="ignore"),
        "λ": best["weight"].map("{:g}".format, na_action="ignore"),
        "swapped": best["swap"],
        "score": (100 * best["score"]).map("{:.1f}".format),
        "R@1": (100 * best["recall_at_1"]).map("{:.1f}".format),
        "preferred to negatives": (100 * best["against_negatives"]).map("{:.1f}".format),
    }
    return plots.table(
        pd.DataFrame(columns).fillna("").rename(plots.label).rename_axis("model"),
        "The best trial of each loss on validation captions. All trials use seed 100, a seed that "
        "no reported result uses. Batch: pairs in a step, to which NegCLIP adds as many. Swapped: "
        "the parts that a swap moves. These are nouns or noun "
        "phrases; for 'half', one of these two kinds is chosen at random. Score: mean "
        "of R@1 and of the share of captions preferred to their hard negatives, in %.",
    )
