"""Faithfulness of word scores, read from records: areas, agreement, randomisation, an example.

The unit is the caption. Captions are resampled together for all methods, runs and seeds, so that
differences are paired; seeds are resampled as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cae_lib.attribution import METHODS
from cae_lib.errors import DataError
from cae_lib.evaluation.faithfulness import INTEGRATED
from cae_lib.measurements import results
from cae_lib.records import Record
from cae_lib.report.attribution import LEVEL, Draws, mean_draws
from cae_lib.report.runs import TUNED, cae_runs, method_label

SUITE = "faithfulness"
SCORERS = (*METHODS, INTEGRATED)
PARTS = ("curves", "agreement", "randomisation", "example", "integrated", "n_captions")


def scorer_label(scorer: str) -> str:
    """An attribution method, or the reference, as text."""
    return "integrated gradients" if scorer == INTEGRATED else method_label(scorer)


def ratio(top: Draws, bottom: Draws) -> Draws | None:
    """A ratio sample by sample; None where the lower one may be zero or less."""
    if bottom.estimate <= 0 or np.quantile(bottom.samples, (1 - LEVEL) / 2) <= 0:
        return None
    return Draws(top.estimate / bottom.estimate, top.samples / bottom.samples,
                 top.n_items, top.n_seeds)  # fmt: skip


@dataclass(frozen=True)
class Areas:
    """Areas under the curves of one run by one method, `(S, C)` each.

    Attributes:
        deletion: With the highest scores masked first.
        insertion: With the highest scores brought back first.
        random: In random orders, the same both ways.
        whole: S of the captions as they are.
        empty: S with every word masked.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    random: np.ndarray
    whole: np.ndarray
    empty: np.ndarray

    @cached_property
    def faithfulness(self) -> Draws | None:
        """Insertion area minus deletion area, as a share of what all words together are worth.

        0 is what a random order gets. None where masking all words does not lower S for certain.
        """
        return self._share(self.insertion - self.deletion)

    @cached_property
    def deletion_lead(self) -> Draws | None:
        """How much further S falls than in a random order, as a share likewise."""
        return self._share(self.random - self.deletion)

    @cached_property
    def insertion_lead(self) -> Draws | None:
        """How much sooner S comes back than in a random order, as a share likewise."""
        return self._share(self.insertion - self.random)

    def _share(self, values: np.ndarray) -> Draws | None:
        return ratio(mean_draws(values), mean_draws(self.whole - self.empty))


@dataclass(frozen=True)
class Faithfulness:
    """Everything that the records of one run say of its faithfulness.

    Attributes:
        records: One a seed.
    """

    records: Sequence[Mapping[str, Any]]

    @property
    def n_captions(self) -> int:
        """Captions scored."""
        return self.records[0]["n_captions"]

    @property
    def n_seeds(self) -> int:
        """Seeds."""
        return len(self.records)

    @property
    def stages(self) -> list[str]:
        """Stages of the randomisation, from the top of the tower down."""
        return list(self.records[0]["randomisation"]["stages"])

    @property
    def block_stages(self) -> list[str]:
        """Those of them that randomise blocks."""
        return self.stages[1:-1]

    def areas(self, scorer: str) -> Areas:
        """Areas by one method."""
        parts = [record["curves"] for record in self.records]
        own = [part["methods"][scorer] for part in parts]
        return Areas(
            deletion=_rows(part["deletion"]["area"] for part in own),
            insertion=_rows(part["insertion"]["area"] for part in own),
            random=_rows(part["random"]["area"] for part in parts),
            whole=_rows(part["whole"] for part in parts),
            empty=_rows(part["empty"] for part in parts),
        )

    def relative(self, scorer: str) -> Draws | None:
        """Faithfulness of a method's scores as a share of that of integrated gradients.

        A model that rests on more words at once leaves less to gain by any order of the words. The
        reference is measured on the same model, so this share does not fall for that reason alone.
        None where the reference does no better than chance for certain.
        """
        own, reference = self.areas(scorer), self.areas(INTEGRATED)
        return ratio(mean_draws(own.insertion - own.deletion),
                     mean_draws(reference.insertion - reference.deletion))  # fmt: skip

    def curve(self, scorer: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean curve `(G,)` of the first seed, with its standard error; "random" for chance."""
        content = self.records[0]["curves"]
        part = content["random"] if scorer == "random" else content["methods"][scorer][kind]
        return np.array(part["mean"]), np.array(part["error"])

    def agreement(self, first: str, second: str) -> Draws:
        """Mean rank correlation of a caption's word scores by two methods."""
        found = [record["agreement"] for record in self.records]
        key = next(key for key in (f"{first}/{second}", f"{second}/{first}") if key in found[0])
        return mean_draws(_rows(part[key] for part in found))

    def randomised(self, method: str, stage: str) -> Draws:
        """Mean rank correlation with the scores that a stage of the randomisation leaves."""
        parts = [record["randomisation"]["methods"][method][stage] for record in self.records]
        return mean_draws(_rows(parts))

    def example(self, scorer: str) -> np.ndarray:
        """Scores `(W,)` of the example's words, averaged over seeds."""
        return _rows(record["example"]["scores"][scorer] for record in self.records).mean(axis=0)


def faithfulness(run: str, profile: str, seeds: int) -> Faithfulness:
    """What the records of a run hold, over its first `seeds` seeds.

    Raises:
        DataError: A record is missing or lacks a part, or seeds differ in their captions.
    """
    records = results(run, profile, SUITE, seeds)
    found = [_checked(record) for record in records]
    if len({part["n_captions"] for part in found}) > 1:
        raise DataError(f"{run}: its seeds scored different captions; compute them anew")
    return Faithfulness(found)


def own_pairs(profile: str, seeds: int) -> dict[str, tuple[Faithfulness, Faithfulness]]:
    """CLIP-FT and CLIP-CAE, by the method that CAE was trained on."""
    tuned = faithfulness(TUNED, profile, seeds)
    return {
        method: (tuned, faithfulness(run, profile, seeds))
        for run, method in cae_runs(profile).items()
    }


def _checked(record: Record) -> Mapping[str, Any]:
    missing = [name for name in PARTS if name not in record.results]
    lacking = [s for s in SCORERS if s not in record.results.get("curves", {}).get("methods", {})]
    if missing or lacking:
        raise DataError(
            f"record {record.name} lacks {', '.join(missing or lacking)}: run `make reproduce` "
            "again"
        )
    return record.results


def _rows(parts: Any) -> np.ndarray:
    """Lists of numbers and None as an array `(S, C)` with NaN."""
    return np.array([[np.nan if v is None else v for v in part] for part in parts], dtype=float)
