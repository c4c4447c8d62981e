"""Where relevance falls, read from the records of runs: by region of the picture, by word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cae_lib.attribution import METHODS
from cae_lib.errors import DataError
from cae_lib.evaluation.heatmaps import PARTS, START_LAYERS
from cae_lib.evaluation.regions import REGIONS
from cae_lib.evaluation.statistics import Interval, mean_interval
from cae_lib.measurements import results
from cae_lib.report.relation_shares import SUITE
from cae_lib.report.stored import NotMeasured, require


@dataclass(frozen=True)
class Relevance:
    """What the records say of one run.

    Attributes:
        regions: By start layer and region, shares `(S, n)` of a picture's relevance.
        words: By method and part of the caption, shares `(S, n)` of the words' scores.
        scores: By method, the score `(S, n)` of the relation's words, in the method's unit.
        area: Mean share of the picture, by region.
        relations: The relation of each scene.
        n_expected: Scenes that there should be.
        examples: Maps and words of the drawn scenes, of seed 0.
    """

    regions: Mapping[str, Mapping[str, np.ndarray]]
    words: Mapping[str, Mapping[str, np.ndarray]]
    scores: Mapping[str, np.ndarray]
    area: Mapping[str, float]
    relations: Sequence[str]
    n_expected: int
    examples: Sequence[Mapping[str, Any]]

    @property
    def n_used(self) -> int:
        """Scenes scored."""
        return len(self.relations)


@lru_cache(maxsize=32)
def relevance(run: str, profile: str, seeds: int) -> Relevance:
    """The measurement of a run over its first `seeds` seeds.

    Raises:
        NotMeasured: A record is missing, or the profile has no scenes with known regions.
        DataError: A record holds something else, or the seeds scored different scenes.
    """
    require([run], profile, SUITE, seeds)
    records = results(run, profile, SUITE, seeds)
    contents = [record.results for record in records]
    for content in contents:
        if not content.get("n_used"):
            raise NotMeasured(content.get("reason", "no scene was scored"))
    try:
        if any(content["relations"] != contents[0]["relations"] for content in contents):
            raise DataError(f"{run}: its seeds scored different scenes; compute them anew")
        return _read(contents)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"record {records[0].name} is no measurement of relevance ({error!r}); compute it "
            "anew with `cae evaluate`"
        ) from error


def _read(contents: Sequence[Mapping[str, Any]]) -> Relevance:
    first = contents[0]
    regions = {}
    for layer in START_LAYERS:
        known = {name: np.array([c["regions"][layer][name] for c in contents])
                 for name in REGIONS if name != "rest"}  # fmt: skip
        regions[layer] = known | {"rest": np.clip(1 - sum(known.values()), 0, 1).round(4)}
    return Relevance(
        regions=regions,
        words={method: {part: np.array([c["words"][method][part] for c in contents])
                        for part in PARTS} for method in METHODS},
        scores={method: np.array([c["scores"][method] for c in contents]) for method in METHODS},
        area=first["area"],
        relations=first["relations"],
        n_expected=first["n_expected"],
        examples=first["examples"],
    )  # fmt: skip


def mean(values: np.ndarray) -> Interval:
    """Mean over scenes and seeds with its interval over both."""
    return mean_interval(values, resample_seeds=True)
