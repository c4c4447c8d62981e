"""The verdict on each claim of the paper, from the records of a profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cae_lib.attribution import METHODS
from cae_lib.config import profile as find_profile
from cae_lib.errors import DataError
from cae_lib.evaluation.statistics import Interval
from cae_lib.report.attribution import RoleScores, role_scores, stored_methods
from cae_lib.report.benchmarks import FAMILIES, answers, family_score
from cae_lib.report.claims import (
    Verdict,
    judge_benchmarks,
    judge_deficiency,
    judge_levelling,
    untested,
)
from cae_lib.report.paper import CLAIMS
from cae_lib.report.runs import BASE, TUNED, all_runs, cae_runs, label


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
    found: dict[str, dict[str, Interval]] = {}
    for run, method in cae_runs(profile).items():
        own = answers(run, profile, seeds)
        pairs = {name: (family_score(name, own), family_score(name, tuned)) for name in FAMILIES}
        found[method] = {
            name: a.minus(b) for name, (a, b) in pairs.items() if a is not None and b is not None
        }
    return found


def verdicts(profile: str, seeds: int | None = None) -> dict[str, Verdict]:
    """The verdict on every claim, by its id.

    Args:
        profile: Whose records to read.
        seeds: Seeds of each run; by default all that the profile has.

    Raises:
        DataError: A record that a verdict needs is missing.
    """
    n = find_profile(profile).seeds if seeds is None else seeds
    judges: Mapping[str, Callable[[], Verdict]] = {
        "C1": lambda: judge_deficiency(base_scores(profile)),
        "C2": lambda: judge_levelling(trained_pairs(profile, n)),
        "C3": lambda: judge_benchmarks(family_differences(profile, n)),
    }
    return {name: judges[name]() if name in judges else untested(name) for name in CLAIMS}


def verdicts_if_measured(profile: str) -> dict[str, Verdict] | None:
    """The verdicts of a profile, or None where its records are not there."""
    try:
        return verdicts(profile)
    except DataError:
        return None
