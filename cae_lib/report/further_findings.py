"""What the pages beyond the paper found, a sentence each, from the records."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cae_lib.config import profile as find_profile
from cae_lib.errors import DataError
from cae_lib.report import (
    ablation,
    blind_finding,
    composition_tables,
    significance_sentences,
    when_it_helps,
)
from cae_lib.report.activation import OVERALL, RELOAD, TRAINING, control_answers, steps
from cae_lib.report.faithfulness import own_pairs
from cae_lib.report.faithfulness_claims import change
from cae_lib.report.markup import listing, number, percent
from cae_lib.report.runs import method_label

NOT_MEASURED = "Not measured yet."


def faithfulness_sentence(profile: str, seeds: int) -> str:
    """How far training on a method changes what its scores say of the model."""
    parts = []
    pairs = own_pairs(profile, seeds)
    for method, runs in pairs.items():
        shares = [run.relative(method) for run in runs]
        if None not in shares:
            before, after = (number(share.estimate, 2) for share in shares)
            parts.append(f"{method_label(method)} {before} to {after}")
    less = sum(change(*runs, method) == "less" for method, runs in pairs.items())
    shown = f" ({listing(parts)})" if parts else ""
    return (
        f"Training on a method's scores makes them say less of what the model rests on for {less} "
        f"of {len(pairs)} methods: their faithfulness as a share of what integrated gradients "
        f"reach, without and with CAE{shown}."
    )


def activation_sentence(profile: str, seeds: int) -> str:
    """What reading a model with the wrong activation does, beside what training does."""
    found = steps(control_answers(profile, seeds))
    reload, training = (found[step.name][OVERALL] for step in (RELOAD, TRAINING))
    return (
        "Reading CLIP with the wrong activation moves the mean of the families by "
        f"{percent(reload, sign=True)} points; fine-tuning by {percent(training, sign=True)}."
    )


SENTENCES: Mapping[str, Callable[[str, int], str | None]] = {
    "significance": significance_sentences.finding,
    "faithfulness": faithfulness_sentence,
    "ablation": lambda profile, _: ablation.finding(profile),
    "blind": blind_finding.finding,
    "helps": when_it_helps.finding,
    "curve": composition_tables.finding,
    "activation": activation_sentence,
}
"""By the name under which the first page shows it."""


def further_findings(profile: str) -> dict[str, str]:
    """A sentence for each page beyond the paper; one without records says so."""
    seeds = find_profile(profile).seeds
    found = {}
    for name, sentence in SENTENCES.items():
        try:
            found[name] = sentence(profile, seeds) or NOT_MEASURED
        except DataError:
            found[name] = NOT_MEASURED
    return found
