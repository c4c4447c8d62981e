"""What falls on the relation, read from the records of heat maps: the numbers behind C8."""

from __future__ import annotations

import numpy as np

from cae_lib.errors import DataError
from cae_lib.evaluation.statistics import Interval, paired_difference
from cae_lib.measurements import results
from cae_lib.report.stored import NotMeasured, require

SUITE = "heatmaps"
LAYER = "last layer"
"""The start layer of Chefer's notebook for CLIP."""

METHOD = "gradcam"
"""Of the word scores: the text's side of the rule that draws the maps."""

SHARES = ("relation's share of the picture", "relation's share of the words")


def relation_shares(run: str, profile: str, seeds: int) -> dict[str, np.ndarray]:
    """Shares `(S, n)` of the picture's relevance and of the word scores that fall on the relation.

    Raises:
        NotMeasured: A record is missing, or the profile has no scenes with known regions.
        DataError: A record holds something else.
    """
    require([run], profile, SUITE, seeds)
    picture, words = [], []
    for record in results(run, profile, SUITE, seeds):
        content = record.results
        if not content.get("n_used"):
            raise NotMeasured(content.get("reason", f"record {record.name} holds no scene"))
        try:
            picture.append(content["regions"][LAYER]["relation"])
            words.append(content["words"][METHOD]["relation"])
        except (KeyError, TypeError) as error:
            raise DataError(
                f"record {record.name} has no shares by region and word ({error!r}); compute it "
                "anew"
            ) from error
    return dict(zip(SHARES, (np.array(picture), np.array(words)), strict=True))


def relation_differences(run: str, against: str, profile: str, seeds: int) -> dict[str, Interval]:
    """Both shares minus those of another run, on the same scenes and seeds."""
    first, second = (relation_shares(each, profile, seeds) for each in (run, against))
    return {
        name: paired_difference([first[name]], [second[name]], resample_seeds=True)
        for name in SHARES
    }
