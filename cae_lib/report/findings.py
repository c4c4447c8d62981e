"""What was found, in a few sentences that follow from the records whichever way they fall."""

from __future__ import annotations

from collections.abc import Sequence

from cae_lib.config import profile as find_profile
from cae_lib.evaluation.attribution import ROLES
from cae_lib.evaluation.statistics import Interval
from cae_lib.report import hard_negatives
from cae_lib.report.attribution import RoleScores
from cae_lib.report.benchmarks import COLUMNS as BENCHMARKS
from cae_lib.report.benchmarks import FAMILIES, Score, answers, column_score, family_score
from cae_lib.report.claims import levelling, shows_deficiency, tally
from cae_lib.report.markup import count, listing, number, percent
from cae_lib.report.retrieval import recall
from cae_lib.report.runs import BASE, TUNED, cae_runs, method_label, setting
from cae_lib.report.stored import NotMeasured
from cae_lib.report.verdicts import (
    base_scores,
    cosine_differences,
    family_differences,
    spearman_differences,
    trained_pairs,
)


def findings(profile: str) -> list[str]:
    """Sentences on deficiency, levelling, benchmarks, negatives, retrieval, texts, and limits.

    Raises:
        DataError: A record that a sentence needs is missing.
    """
    seeds = find_profile(profile).seeds
    return [
        deficiency_sentence(base_scores(profile)),
        levelling_sentence(trained_pairs(profile, seeds)),
        benchmark_sentence(profile, seeds),
        hard_negatives_sentence(profile, seeds),
        retrieval_sentence(profile, seeds),
        text_sentence(profile, seeds),
        limits_sentence(profile, seeds),
    ]


def deficiency_sentence(found: dict[str, RoleScores]) -> str:
    """Whether object words lead in the base model."""
    shown = [method for method, scores in found.items() if shows_deficiency(scores)]
    method = "attention" if "attention" in found else next(iter(found))
    scores = found[method]
    values = [number(scores.means[role].estimate, scores.decimals) for role in ROLES]
    means = listing([f"{value} on {role} words" for role, value in zip(ROLES, values, strict=True)])
    size = "all of" if len(shown) == len(found) else f"{len(shown)} of" if shown else "none of"
    return (
        "Before fine-tuning, object words get clearly more attribution than attribute and "
        f"relation words by {size} the {count(len(found), 'method')} measured; by "
        f"{method_label(method)}, the mean is {means}."
    )


def levelling_sentence(found: dict[str, tuple[RoleScores, RoleScores]]) -> str:
    """What fine-tuning with and without CAE makes of the gap."""
    if not found:
        return "No CAE run has been measured yet."
    parts = []
    for method, (tuned, cae) in found.items():
        before, after = (number(s.gap.estimate, tuned.decimals) for s in (tuned, cae))
        level = levelling(tuned, cae) == "level"
        parts.append(f"from {before} to {after} by {method_label(method)} "
                     f"({'level' if level else 'not level'} by our rule)")  # fmt: skip
    return (
        "Compared with plain fine-tuning, CAE changes the gap between object words and relation "
        f"and attribute words {listing(parts)}."
    )


def benchmark_sentence(profile: str, seeds: int) -> str:
    """On how many families CAE is better than plain fine-tuning."""
    table = family_differences(profile, seeds)
    if not table:
        return "No CAE run has been compared on the benchmarks yet."
    parts = []
    for method, families in table.items():
        won, lost, n = tally(families)
        parts.append(f"with {method_label(method)} CAE is better than plain fine-tuning on {won} "
                     f"and worse on {lost} of {count(n, 'family', 'families')}")  # fmt: skip
    return (
        f"On the composition benchmarks, {listing(parts)} (95 % intervals that exclude zero); "
        f"the mean over families is {_means(profile, seeds)}."
    )


def _means(profile: str, seeds: int) -> str:
    """Mean accuracy over families of every run."""
    parts = []
    for run, name in _names(profile).items():
        found = answers(run, profile, seeds)
        scores = [family_score(family, found) for family in FAMILIES]
        values = [score.interval().estimate for score in scores if score is not None]
        parts.append(f"{number(100 * sum(values) / len(values), 1)} % for {name}")
    return listing(parts)


def _names(profile: str) -> dict[str, str]:
    """Short names of the runs of Table 1."""
    runs = {BASE: "CLIP", TUNED: "CLIP-FT"}
    return runs | {run: f"CAE ({method_label(m)})" for run, m in cae_runs(profile).items()}


def retrieval_sentence(profile: str, seeds: int) -> str:
    """Text-to-image recall at 1 on COCO of every run."""
    runs = _names(profile)
    parts = [
        f"{percent(recall(run, profile, 'coco', 'image', 1, seeds))} for {name}"
        for run, name in runs.items()
    ]
    return f"Text-to-image R@1 on the COCO test set, in percent, is {listing(parts)}."


def hard_negatives_sentence(profile: str, seeds: int) -> str:
    """What CAE adds to NegCLIP."""
    unknown = "Whether CAE adds to hard negatives has not been measured yet."
    return hard_negatives.finding(profile, seeds) or unknown


def text_sentence(profile: str, seeds: int) -> str:
    """What CAE does to the embeddings of texts alone."""
    try:
        sets = spearman_differences(profile, seeds)
        phrases = cosine_differences(profile, seeds)
    except NotMeasured:
        return "What CAE does to the embeddings of texts has not been measured yet."
    correlations = [found[0] for found in sets.values()]
    relations = [phrases[method]["relation"] for method in sets]
    return (
        "For texts alone, CAE minus plain fine-tuning: over the "
        f"{count(len(sets), 'method')} the mean correlation with gold similarity changes by "
        f"{_range(correlations, 100, 1)} points ({_certain(correlations)}), and the cosine of a "
        f"caption to its relation phrases by {_range(relations, 1, 3)} ({_certain(relations)})."
    )


def _range(values: Sequence[Interval], scale: float, decimals: int) -> str:
    """The smallest and the largest of several estimates."""
    found = sorted(scale * value.estimate for value in values)
    return f"{number(found[0], decimals, sign=True)} to {number(found[-1], decimals, sign=True)}"


def _certain(values: Sequence[Interval]) -> str:
    """How many of several intervals lie above and below zero."""
    up, down = sum(v.low > 0 for v in values), sum(v.high < 0 for v in values)
    return f"for certain up with {up}, down with {down}"


def limits_sentence(profile: str, seeds: int) -> str:
    """What these numbers rest on."""
    found = answers(BASE, profile, 1)
    scores: list[Score] = [s for s in (column_score(c, found) for c in BENCHMARKS) if s is not None]
    items = sum(score.n_used for score in scores)
    basis = f"{count(seeds, 'seed')} of each trained model and {items} benchmark items"
    sentence = f"All this holds for {setting(profile)}, {basis}"
    if profile == "paper":
        return f"{sentence}."
    return (
        f"{sentence}: it tests the mechanism under control, and says little about the size of the "
        "effect at the paper's scale."
    )
