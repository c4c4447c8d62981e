"""From results to the numbers of a table, by the rules of a protocol.

Every result keeps the right and wrong items of each group, so that both protocols of
`protocol_rules` read the same records. Both judge ties strictly unless the references' own rule is
asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cae_lib.data.benchmarks.aro import symmetric_relations
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.aggregates import aggregate
from cae_lib.evaluation.protocol_rules import Rule, protocol
from cae_lib.evaluation.results import ChoiceResult

Ties = Literal["strict", "reference"]

REFERENCE_TIES: Mapping[str, str] = {"order": "argmax", "whatsup": "argmax"}
"""Families whose reference takes the first of the closest options, which is the true one there.

Elsewhere the true option comes last or the comparison is strict, so a tie is wrong either way. (For
CREPE the reference leaves it open.)
"""


@dataclass(frozen=True)
class Score:
    """A number of a table.

    Attributes:
        name: Its name, such as "aro/relation".
        value: The average, a fraction.
        words: The rule in words.
        n_used, n_expected: Items of all results that enter, used and expected.
        absent: Results that the rule names and that are not there.
        strata, weights: Items and weights for `statistics.weighted_interval`; empty where the
            number is no weighted mean of items.
    """

    name: str
    value: float
    words: str
    n_used: int
    n_expected: int
    absent: tuple[str, ...]
    strata: tuple[np.ndarray, ...] = ()
    weights: tuple[float, ...] = ()


def protocol_scores(
    results: Sequence[ChoiceResult], name: str = "official", ties: Ties = "strict"
) -> dict[str, Score]:
    """All numbers of a protocol for which there is a result.

    Args:
        results: Results of one model, one for each key, judged strictly.
        name: "official" or "authors".
        ties: "strict", or "reference" for the tie rule of each benchmark's reference.

    Raises:
        ConfigError: The protocol or the tie rule is unknown.
    """
    rules = protocol(name)
    if ties not in ("strict", "reference"):
        raise ConfigError(f"ties={ties!r}: expected 'strict' or 'reference'.")
    found = {}
    for score, rule in rules.items():
        try:
            found[score] = apply_rule(rule, results, score, ties)
        except DataError:
            continue
    return found


def apply_rule(
    rule: Rule, results: Sequence[ChoiceResult], name: str, ties: Ties = "strict"
) -> Score:
    """One number.

    Raises:
        DataError: No result fits the rule, or it lacks the metric, or no group qualifies.
    """
    total = aggregate(results, name, rule.tree, micro=rule.by_items)
    by_key = {result.key: result for result in results}
    facts = (name, rule.words, total.n_used, total.n_expected, total.absent)
    if rule.metric is not None:
        [result] = (by_key[key] for key in total.weights)
        if rule.metric not in result.metrics:
            raise DataError(f"{result.key}: the result has no metric {rule.metric!r}.")
        return _score(*facts, value=result.metrics[rule.metric])
    if rule.without is not None:
        [result] = (by_key[key] for key in total.weights)
        groups = _chosen_groups(rule, result)
        means = [float(group.mean()) for group in groups]
        if rule.digits is not None:
            means = [round(mean, rule.digits) for mean in means]
        weights = (1 / len(groups),) * len(groups)
        return _score(*facts, value=float(np.mean(means)), strata=groups, weights=weights)
    if ties == "reference":
        value = sum(w * _by_reference(by_key[key]) for key, w in total.weights.items())
        if value != total.value:
            return _score(*facts, value=value)
    strata = tuple(by_key[key].correct for key in total.weights)
    return _score(*facts, value=total.value, strata=strata, weights=tuple(total.weights.values()))


def _score(
    name: str,
    words: str,
    n_used: int,
    n_expected: int,
    absent: tuple[str, ...],
    *,
    value: float,
    strata: tuple[np.ndarray, ...] = (),
    weights: tuple[float, ...] = (),
) -> Score:
    return Score(name, value, words, n_used, n_expected, absent, strata, weights)


def _chosen_groups(rule: Rule, result: ChoiceResult) -> tuple[np.ndarray, ...]:
    left_out = symmetric_relations(rule.without or "none")
    groups = tuple(
        marks
        for name, marks in result.by_group().items()
        if name not in left_out and len(marks) >= rule.min_items
    )
    if not groups:
        raise DataError(f"{result.key}: no group qualifies ({rule.words}).")
    return groups


def _by_reference(result: ChoiceResult) -> float:
    """Mean over items under the reference's tie rule; the result keeps it where it differs."""
    if REFERENCE_TIES.get(result.name) != "argmax":
        return result.micro
    return result.metrics.get("argmax", result.micro)
