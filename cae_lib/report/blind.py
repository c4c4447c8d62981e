"""Choosers without a picture, read from the record `blind`, in the form of a model's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cae_lib.config import profile as find_profile
from cae_lib.evaluation.bits import unpack_numbers
from cae_lib.evaluation.blind import shares
from cae_lib.evaluation.blind_record import AVERAGE, RECORD
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.records import load_record, record_path
from cae_lib.report.runs import BASE, TUNED, cae_runs, label
from cae_lib.report.stored import NotMeasured

LIKELIHOOD = "likelihood"
"""The chooser that subsets are judged by; it was picked before any result was seen."""

WORDS: Mapping[str, str] = {
    "shorter": "shorter caption",
    "longer": "longer caption",
    LIKELIHOOD: "likelier caption",
    "likelihood_per_word": "likelier per word",
}

Found = Mapping[str, Sequence[ChoiceResult]]


def chooser_label(name: str) -> str:
    """A chooser as tables name it."""
    if name.startswith(AVERAGE):
        return f"{label(name.removeprefix(AVERAGE))}, average picture"
    return WORDS.get(name, name)


def blind_results(profile: str) -> Mapping[str, Any]:
    """What the record `blind` holds.

    Raises:
        NotMeasured: There is none, or it does not tell which items share a picture.
    """
    if record_path(RECORD, profile).is_file():
        found = load_record(RECORD, profile).results
        if all("pictures" in part for part in found["subsets"].values()):
            return found
    option = f" --profile {profile}"
    everything = f"`cae reproduce{option}` and " if find_profile(profile).base else ""
    raise NotMeasured(
        f"Not measured yet in the profile {profile}: the record `{RECORD}` is missing, or does not "
        f"tell which items share a picture. "
        f"{everything}`cae evaluate {RECORD}{option}` computes it."
    )


def main_choosers(profile: str) -> list[str]:
    """The choosers of the first table: by words, and by CLIP and CLIP-FT, as far as measured."""
    models = [f"{AVERAGE}{run}" for run in (BASE, TUNED)]
    return [name for name in blind_results(profile)["choosers"] if name in WORDS or name in models]


def cae_choosers(profile: str) -> list[str]:
    """The choosers by CLIP-CAE with the average picture, as far as measured."""
    known = blind_results(profile)["choosers"]
    return [name for run in cae_runs(profile) if (name := f"{AVERAGE}{run}") in known]


def blind_answers(profile: str, chooser: str) -> dict[str, tuple[ChoiceResult]]:
    """Expected accuracy of a chooser item by item, as the results of one run by `family/subset`.

    Subsets that ask for a picture, not for a caption, are not among them.

    Raises:
        NotMeasured: There is no record.
    """
    subsets = blind_results(profile)["subsets"]
    return {
        key: (_result(found, chooser),)
        for key, found in subsets.items()
        if chooser in found["choosers"]
    }


def without_captions(profile: str) -> list[str]:
    """The subsets on which there is no choice of captions."""
    subsets = blind_results(profile)["subsets"]
    return [key for key, found in subsets.items() if not found["choosers"]]


def _result(found: Mapping[str, Any], chooser: str) -> ChoiceResult:
    correct: np.ndarray = shares(found["choosers"][chooser], found["n_used"])
    groups = found["macro_groups"]
    return ChoiceResult(
        correct=correct,
        sizes=dict(found["groups"]),
        macro_groups=None if groups is None else tuple(groups),
        ties="guessed",
        metrics={},
        pictures=unpack_numbers(found["pictures"], found["n_used"]),
        **{name: found[name] for name in ("name", "subset", "n_expected", "headline", "rule",
                                          "chance", "items", "counts")},
    )  # fmt: skip
