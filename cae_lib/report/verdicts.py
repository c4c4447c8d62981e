"""The verdict on each claim of the paper, from the records of a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cae_lib.attribution import METHODS
from cae_lib.config import profile as find_profile
from cae_lib.errors import DataError
from cae_lib.evaluation.statistics import Interval
from cae_lib.report import families
from cae_lib.report.attribution import RoleScores, role_scores, stored_methods
from cae_lib.report.benchmarks import answers
from cae_lib.report.claims import (
    Verdict,
    judge_benchmarks,
    judge_deficiency,
    judge_hard_negatives,
    judge_levelling,
    untested,
)
from cae_lib.report.hard_negatives import hard_differences, overall_hard_differences
from cae_lib.report.paper import CLAIMS
from cae_lib.report.phrases import phrase_differences
from cae_lib.report.relation_shares import relation_differences
from cae_lib.report.retrieval import CELLS, recall_difference
from cae_lib.report.runs import BASE, TUNED, all_runs, cae_runs, label
from cae_lib.report.similarity import MEAN, correlation_differences
from cae_lib.report.stored import NotMeasured, require
from cae_lib.report.transfer_claims import (
    judge_heatmaps,
    judge_phrases,
    judge_retrieval,
    judge_similarity,
)


def base_scores(profile: str, methods: tuple[str, ...] = tuple(METHODS)) -> dict[str, RoleScores]:
    """Attribution of the base model, by each of the methods that its record holds."""
    stored = stored_methods(BASE, profile, methods, 1)
    return {method: role_scores(BASE, profile, method, 1) for method in stored}


def trained_pairs(profile: str, seeds: int) -> dict[str, tuple[RoleScores, RoleScores]]:
    """CLIP-FT and CLIP-CAE by each method that CAE was trained on."""
    return {
        method: (role_scores(TUNED, profile, method, seeds),
                 role_scores(run, profile, method, seeds))
        for run, method in cae_runs(profile).items()
    }  # fmt: skip


def trained_runs(profile: str, seeds: int) -> dict[str, dict[str, RoleScores]]:
    """For each method that CAE was trained on: CLIP, CLIP-FT and that CLIP-CAE, by label."""
    return {
        method: {label(name): role_scores(name, profile, method, seeds)
                 for name in (BASE, TUNED, run)}
        for run, method in cae_runs(profile).items()
    }  # fmt: skip


def all_by_method(profile: str, seeds: int) -> dict[str, dict[str, RoleScores]]:
    """Every run by label, read by every method that its records hold."""
    return {
        label(run): {method: role_scores(run, profile, method, seeds)
                     for method in stored_methods(run, profile, tuple(METHODS), seeds)}
        for run in all_runs(profile)
    }  # fmt: skip


def family_differences(profile: str, seeds: int) -> dict[str, dict[str, Interval]]:
    """CLIP-CAE - CLIP-FT on each family, by attribution method."""
    tuned = answers(TUNED, profile, seeds)
    return {
        method: families.family_differences(answers(run, profile, seeds), tuned)
        for run, method in cae_runs(profile).items()
    }


def overall_differences(profile: str, seeds: int) -> dict[str, Interval]:
    """CLIP-CAE - CLIP-FT in the mean over families, by attribution method."""
    tuned = answers(TUNED, profile, seeds)
    found = {method: families.overall_difference(answers(run, profile, seeds), tuned)
             for run, method in cae_runs(profile).items()}  # fmt: skip
    return {method: value for method, value in found.items() if value is not None}


def recall_differences(profile: str, seeds: int) -> dict[str, dict[tuple[str, str], Interval]]:
    """CLIP-CAE - CLIP-FT in R@1 by set and by what is retrieved, by attribution method."""
    require([TUNED, *cae_runs(profile)], profile, "retrieval", seeds)
    return {
        method: {cell: recall_difference(run, TUNED, profile, *cell, 1, seeds) for cell in CELLS}
        for run, method in cae_runs(profile).items()
    }


def spearman_differences(
    profile: str, seeds: int
) -> dict[str, tuple[Interval, dict[str, Interval]]]:
    """CLIP-CAE - CLIP-FT in Spearman's correlation: the mean over sets and each set, by method."""
    found = {}
    for run, method in cae_runs(profile).items():
        row = correlation_differences(run, TUNED, profile, seeds, "spearman")
        found[method] = row.pop(MEAN), row
    return found


def cosine_differences(profile: str, seeds: int) -> dict[str, dict[str, Interval]]:
    """CLIP-CAE - CLIP-FT in the cosine of captions to their phrases, by method."""
    return {method: phrase_differences(run, TUNED, profile, seeds)
            for run, method in cae_runs(profile).items()}  # fmt: skip


def share_differences(profile: str, seeds: int) -> dict[str, dict[str, Interval]]:
    """CLIP-CAE - CLIP-FT in what falls on the relation, in picture and words, by method."""
    return {method: relation_differences(run, TUNED, profile, seeds)
            for run, method in cae_runs(profile).items()}  # fmt: skip


def judge(claim: str, profile: str, seeds: int) -> Verdict:
    """The verdict on one claim; it is "not tested" where records of C4 to C8 are missing.

    Raises:
        DataError: A record of C1 to C3 is missing, or one that is there cannot be used.
    """
    judges: Mapping[str, Callable[[], Verdict]] = {
        "C1": lambda: judge_deficiency(base_scores(profile)),
        "C2": lambda: judge_levelling(trained_pairs(profile, seeds)),
        "C3": lambda: judge_benchmarks(family_differences(profile, seeds),
                                       overall_differences(profile, seeds)),
        "C4": lambda: judge_hard_negatives(hard_differences(profile, seeds),
                                           overall_hard_differences(profile, seeds)),
        "C5": lambda: judge_retrieval(recall_differences(profile, seeds)),
        "C6": lambda: judge_similarity(spearman_differences(profile, seeds)),
        "C7": lambda: judge_phrases(cosine_differences(profile, seeds)),
        "C8": lambda: judge_heatmaps(share_differences(profile, seeds)),
    }  # fmt: skip
    try:
        return judges[claim]()
    except NotMeasured as error:
        return untested(claim, str(error))


def verdicts(profile: str, seeds: int | None = None) -> dict[str, Verdict]:
    """The verdict on every claim, by its id.

    Args:
        profile: Whose records to read.
        seeds: Seeds of each run; by default all that the profile has.

    Raises:
        DataError: A record that the verdict on C1, C2 or C3 needs is missing.
    """
    n = find_profile(profile).seeds if seeds is None else seeds
    return {name: judge(name, profile, n) for name in CLAIMS}


def verdicts_if_measured(profile: str) -> dict[str, Verdict] | None:
    """The verdicts of a profile, or None where its records are not there."""
    try:
        return verdicts(profile)
    except DataError:
        return None
