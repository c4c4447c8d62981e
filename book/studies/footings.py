"""Compare losses on equal footing: all know the captions' text alone, or all know ground truth."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cae_lib import plots, results
from cae_lib.plots import METHODS

FOUR, FOUR_PLACEBO = "paper's CAE, mean of 4", "placebo of the paper's CAE, mean of 4"
FOUR_TRUTH = f"{FOUR}, ground truth"
MEANS = {
    name: [f"{kind}-{method}" for method in METHODS]
    for name, kind in ((FOUR, "cae"), (FOUR_PLACEBO, "placebo"), (FOUR_TRUTH, "truth"))
}
"""The paper's four methods as one run: the runs that its answers are the mean of."""

FROM_TEXT, WITH_TRUTH = "from text alone", "with ground truth"
LOSSES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    FROM_TEXT: {
        FOUR: (FOUR,),
        "CAE on bindings": ("dependency-binding", "cae-binding"),
        "placebo: shuffled roles": ("placebo-dependency-binding", "placebo-binding"),
        "placebo: any two words": ("wrong-dependency-binding", "wrong-binding"),
        "softmax on the same swaps": ("dependency-softmax", "softmax-binding"),
        "NegCLIP": ("spacy-negclip", "negclip"),
        "margin loss": ("spacy-margin", "hinge-negclip"),
    },
    WITH_TRUTH: {
        FOUR: (FOUR_TRUTH,),
        "CAE on bindings": ("truth-binding",),
        "placebo: shuffled roles": ("placebo-truth-binding",),
        "placebo: any two words": ("wrong-truth-binding",),
        "softmax on the same swaps": ("truth-softmax",),
        "NegCLIP": ("negclip",),
        "margin loss": ("hinge-negclip",),
    },
}
"""The runs of each loss by what it knows. The first one that is stored counts: profiles that have
not been run with the dependency parser show the paper's parser."""


def is_stored(run: str, profile: str, seeds: int) -> bool:
    """Return whether the answers of a run, or of all runs of a mean, are stored for all seeds."""
    index = results.index_of("benchmarks", profile)
    return all((run, seed) in index for run in MEANS.get(run, [run]) for seed in range(seeds))


def find_footings(profile: str, seeds: int) -> dict[str, dict[str, str]]:
    """Return the run of each loss for each footing, as far as they are stored.

    Where none of a loss's runs from text is stored, its last one is returned, so that a page trains
    it. A footing without CAE on bindings is left out.
    """
    footings = {}
    for footing, losses in LOSSES.items():
        runs = {
            loss: next((run for run in names if is_stored(run, profile, seeds)), names[-1])
            for loss, names in losses.items()
        }
        if footing == WITH_TRUTH:
            runs = {loss: run for loss, run in runs.items() if is_stored(run, profile, seeds)}
        footings[footing] = runs
    return {title: runs for title, runs in footings.items() if "CAE on bindings" in runs}


def best_trials(trials: pd.DataFrame) -> plots.Shown:
    """Return the best trial of each loss as a table.

    Args:
        trials: The table `footing` of `data/recipes/choose_settings.py`, a row for each trial.
    """
    by_loss = trials.groupby("experiment", sort=False)
    best = trials.loc[by_loss["score"].idxmax()].set_index("experiment")
    best = best.loc[[*dict.fromkeys(trials["experiment"])]]
    margins = best["margin"].where(best["weight"].notna())
    columns = {
        "trials": by_loss.size(),
        "learning rate": best["lr"].map("{:g}".format),
        "margin": margins.map("{:g}".format, na_action="ignore"),
        "λ": best["weight"].map("{:g}".format, na_action="ignore"),
        "swapped": best["swap"],
        "score": (100 * best["score"]).map("{:.1f}".format),
        "R@1": (100 * best["recall_at_1"]).map("{:.1f}".format),
        "preferred to negatives": (100 * best["against_negatives"]).map("{:.1f}".format),
    }
    return plots.table(
        pd.DataFrame(columns).fillna("").rename(plots.label).rename_axis("model"),
        "The best trial of each loss on validation captions, seed 100; score: mean of R@1 and of "
        "the share of captions preferred to their hard negatives, in %.",
    )
