"""The same answers averaged by a named protocol, so that either paper's numbers can be met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cae_lib.evaluation.protocol_rules import PROTOCOLS
from cae_lib.evaluation.protocols import Score, protocol_scores
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.report.markup import NONE, Table, count, number
from cae_lib.report.runs import label

EXPLAINED: Mapping[str, str] = {
    "official": "as each benchmark's own paper and script average it",
    "authors": "as the evaluation of CAE's authors averages it",
}


def protocol_table(
    found: Mapping[str, Mapping[str, Sequence[ChoiceResult]]], protocol: str
) -> Table:
    """Every number of a protocol for every run, mean over seeds.

    Args:
        found: Results by run, then by `family/subset`, one a seed.
        protocol: One of `PROTOCOLS`.
    """
    scores = {run: _by_seed(parts, protocol) for run, parts in found.items()}
    first = next(iter(scores.values()))[0]
    rows = []
    for name, score in first.items():
        amount = f"{score.n_used}"
        if score.n_used != score.n_expected:
            amount = f"**{score.n_used}** of {score.n_expected}"
        cells = [_cell(seeds, name) for seeds in scores.values()]
        rows.append([f"`{name}`", amount, *cells, score.words])
    missing = [name for name in PROTOCOLS[protocol] if name not in first]
    return Table(
        name=f"tab-protocol-{protocol}",
        caption=f"Accuracy in percent under the protocol *{protocol}*: "
        f"{EXPLAINED.get(protocol, protocol)}. Ties are wrong; mean over "
        f"{count(max(map(len, scores.values())), 'seed')} of each trained model, one CLIP.",
        header=["number", "n", *(label(run) for run in found), "averaging"],
        rows=rows,
        notes=[f"Not in these data: {', '.join(missing)}."] if missing else [],
        collapsed=f"Under the protocol {protocol}",
    )


def _by_seed(
    parts: Mapping[str, Sequence[ChoiceResult]], protocol: str
) -> list[Mapping[str, Score]]:
    seeds = range(len(next(iter(parts.values()))))
    return [protocol_scores([found[s] for found in parts.values()], protocol) for s in seeds]


def _cell(seeds: Sequence[Mapping[str, Score]], name: str) -> str:
    if any(name not in scores for scores in seeds):
        return NONE
    return number(100 * float(np.mean([scores[name].value for scores in seeds])), 1)
