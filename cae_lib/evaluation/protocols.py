"""Named rules that turn results into the numbers of a table: the benchmarks' own, the authors'.

Every result keeps the right and wrong items of each group, so that both protocols read the same
records. `official` averages as each benchmark's paper and script do; `authors` as the evaluation of
CAE's authors does (read in the code of their later work). Both judge ties strictly unless the
references' own rule is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cae_lib.data.benchmarks.aro import symmetric_relations
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.aggregates import AGGREGATES, Tree, aggregate
from cae_lib.evaluation.results import ChoiceResult

Ties = Literal["strict", "reference"]
MIN_PAIR = 25

REFERENCE_TIES: Mapping[str, str] = {"order": "argmax", "whatsup": "argmax"}
"""Families whose reference takes the first of the closest options, which is the true one there.

Elsewhere the true option comes last or the comparison is strict, so a tie is wrong either way. (For
CREPE the reference leaves it open.)
"""


@dataclass(frozen=True)
class Rule:
    """How one number comes about.

    Attributes:
        words: The rule as a page prints it.
        tree: Results to average, see `aggregate`; a single key for one result.
        by_items: Weigh the results by their items instead.
        without: Name of the list of symmetric relations to leave out, see `symmetric_relations`;
            None to average items rather than groups.
        min_items: Groups of fewer items are left out.
        digits: Round each group's accuracy so before averaging.
        metric: Take this number of the result's `metrics` instead.
    """

    words: str
    tree: Tree
    by_items: bool = False
    without: str | None = None
    min_items: int = 1
    digits: int | None = None
    metric: str | None = None


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


def _groups(key: str, words: str, **fields: object) -> Rule:
    return Rule(words, key, without=fields.pop("without", "none"), **fields)


_ITEMS = "mean over items"
_WINOGROUND = {f"winoground/{task}": Rule(_ITEMS, f"winoground/{task}")
               for task in ("text", "image", "group")}  # fmt: skip
_CREPE = {f"crepe/{kind}": _groups(f"crepe/{kind}", "mean over complexities, R@1 among 6")
          for kind in ("atom", "swap", "negate")}  # fmt: skip
_ORDER = {f"order/{name}": Rule("share first, P@1", f"order/{name}")
          for name in ("coco", "flickr30k")}  # fmt: skip
_COLA = {"cola/multi": Rule(f"{_ITEMS}, image score", "cola/multi")}

PROTOCOLS: Mapping[str, Mapping[str, Rule]] = {
    "official": {
        "aro/relation": _groups(
            "aro/relation", "mean over relations without 157 symmetric ones", without="official"
        ),
        "aro/attribution": _groups(
            "aro/attribution", f"mean over pairs with {MIN_PAIR} items", min_items=MIN_PAIR
        ),
        **_ORDER,
        **_WINOGROUND,
        "sugarcrepe": Rule("mean over all items", "sugarcrepe/*", by_items=True),
        "vl_checklist/relation": Rule("mean over files", "vl_checklist/Relation/*"),
        "vl_checklist/attribute": Rule("mean over files", "vl_checklist/Attribute/*"),
        "vl_checklist/object": Rule("mean over files", "vl_checklist/Object/*"),
        "valse": Rule("mean over instruments, valid items", "valse/*"),
        "svo_probes": Rule(
            "match against no match, mean of both accuracies", "svo_probes/all", metric="match/all"
        ),
        **_CREPE,
        "whatsup": Rule("mean over the six subsets", "whatsup/*"),
        **_COLA,
    },
    "authors": {
        "aro/relation": _groups(
            "aro/relation", "mean over relations without 160 symmetric ones, each to 4 digits",
            without="authors", digits=4,
        ),
        "aro/attribution": _groups(
            "aro/attribution", f"mean over pairs with {MIN_PAIR} items, each to 4 digits",
            min_items=MIN_PAIR, digits=4,
        ),
        **_ORDER,
        **_WINOGROUND,
        **{f"winoground/{task}/authors": Rule("mean over the 171 clean items",
                                              f"winoground/{task}/authors")
           for task in ("text", "image", "group")},
        **{name: Rule("nested mean over files", tree) for name, tree in AGGREGATES.items()},
        "svo_probes": Rule("share of rows with the true picture closer", "svo_probes/all"),
        **_CREPE,
        "whatsup/controlled": Rule("mean of A and B", "whatsup/controlled_*"),
        "whatsup/coco": Rule("mean of one and two objects", "whatsup/coco_qa_*"),
        "whatsup/vg": Rule(
            "mean of one object and, by a slip of the reference, COCO's two objects",
            ["whatsup/vg_qa_one_obj", "whatsup/coco_qa_two_obj"],
        ),
        **_COLA,
    },
}  # fmt: skip


def protocol(name: str) -> Mapping[str, Rule]:
    """The rules of a protocol by the name of the number.

    Raises:
        ConfigError: There is no such protocol.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"no protocol {name!r}. Known: {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


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
