"""The runs of a study, read from records: what is missing, scores, attribution, commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cae_lib.config import experiment
from cae_lib.config import profile as find_profile
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.measurements import record_name, run_label
from cae_lib.records import record_path
from cae_lib.report import families
from cae_lib.report.attribution import RoleScores, role_scores
from cae_lib.report.benchmarks import Score, answers
from cae_lib.report.markup import Text, count
from cae_lib.report.runs import BASE, TUNED, label
from cae_lib.report.stored import NotMeasured
from cae_lib.studies import SUITES, Variant

SYMBOLS = {"lambda": "λ", "eps": "ε"}
MEAN = "mean of families"

Answers = Mapping[str, Sequence[ChoiceResult]]


def describe(variant: Variant) -> str:
    """What a variant changes, as text for tables and figures."""
    if variant.group.isdigit():
        return f"base of {variant.group} steps"
    group = SYMBOLS.get(variant.group, variant.group)
    return f"{group}: {variant.value}" if variant.value else group


def length(profile: str) -> str:
    """How long the runs of the studies are, beside those of the other pages."""
    whole = experiment(TUNED, profile)
    short = experiment(TUNED, profile, **find_profile(profile).short)
    return (
        f"{short.steps} steps of {short.batch_size} pairs where other pages have {whole.steps} of "
        f"{whole.batch_size}"
    )


def seeds_of(variant: Variant, profile: str, seeds: int | None = None) -> int:
    """Seeds of a variant that a profile has, or fewer if fewer are asked for."""
    available = min(variant.seeds, find_profile(profile).seeds)
    return available if seeds is None else min(available, seeds)


def require_variants(variants: Iterable[Variant], profile: str, seeds: int | None = None) -> None:
    """Go on only if all records of these runs are stored.

    Args:
        variants: Runs of a study.
        profile: Whose records to look for.
        seeds: At most so many seeds of each; None for all of them.

    Raises:
        NotMeasured: One is missing; the message names the commands that compute it.
    """
    runs = [(v, seed) for v in variants for seed in range(seeds_of(v, profile, seeds))]
    for suite in SUITES:
        missing = [run for run in runs if not _is_stored(*run, profile, suite)]
        if missing:
            raise NotMeasured(_message(missing, profile, suite))


def _is_stored(variant: Variant, seed: int, profile: str, suite: str) -> bool:
    name = run_label(variant.run, profile, **variant.settings)
    return record_path(record_name(name, suite, seed), profile).is_file()


def _message(missing: Sequence[tuple[Variant, int]], profile: str, suite: str) -> str:
    variant, seed = missing[0]
    everything = (
        f"`cae reproduce --profile {profile}` computes all of them; "
        if find_profile(profile).base
        else ""
    )
    first = f"{label(variant.run)}, {describe(variant)}, seed {seed}"
    alone = " and ".join(f"`{line}`" for line in commands(variant, profile, seed))
    return (
        f"Not measured yet in the profile {profile}: {count(len(missing), 'record')} of the kind "
        f"`{suite}` missing, the first is that of {first}. {everything}this one alone comes from "
        f"{alone}."
    )


def commands(variant: Variant, profile: str, seed: int = 0) -> list[str]:
    """The commands that train and measure one run, quoted for a shell; a base is only measured."""
    options = ["--profile", profile]
    options += ["--seed", str(seed)] if seed else []
    for key, value in variant.settings.items():
        options += ["--set", f"{key}={_literal(value)}"]
    train = ["cae", "train", variant.run, *options]
    evaluate = ["cae", "evaluate", variant.run, *options, "--only", ",".join(SUITES)]
    return [shlex.join(line) for line in ([evaluate] if variant.run == BASE else [train, evaluate])]


def _literal(value: Any) -> str:
    """A setting as `cae_lib.overrides.parse_overrides` reads it."""
    return value if isinstance(value, str) else repr(value).replace("'", '"')


def commands_text(variants: Iterable[Variant], profile: str) -> Text:
    """The commands of every run of a study, folded."""
    blocks = []
    for variant in variants:
        title = f"# {label(variant.run)}, {describe(variant)}"
        blocks.append("\n".join([title, *commands(variant, profile)]))
    lines = ["::::{dropdown} The commands that repeat one run", "```bash", "\n\n".join(blocks)]
    return Text("\n".join([*lines, "```", "::::"]))


def variant_answers(variant: Variant, profile: str, seeds: int | None = None) -> Answers:
    """A variant's benchmark results by `family/subset`, one a seed."""
    n = seeds_of(variant, profile, seeds)
    return answers(variant.run, profile, n, **variant.settings)


def variant_scores(
    variant: Variant, profile: str, method: str, seeds: int | None = None
) -> RoleScores:
    """What an attribution method says of a variant."""
    n = seeds_of(variant, profile, seeds)
    return role_scores(variant.run, profile, method, n, **variant.settings)


def family_scores(found: Answers) -> dict[str, Score]:
    """Scores on the unweighted mean of the families, and on each family that there is."""
    mean = families.overall_score(found)
    return ({} if mean is None else {MEAN: mean}) | families.family_scores(found)
