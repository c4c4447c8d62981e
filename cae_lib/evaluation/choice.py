"""Scoring benchmarks of choices: is the true option closer than every other one?"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Literal

import numpy as np

from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.errors import ConfigError
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.results import ChoiceResult, group_order, item_key, picture_numbers

Rule = Literal["strict", "argmax"]
ITEMS_AT_ONCE = 4096
FACTS = ("name", "subset", "n_expected", "headline", "rule", "macro_groups", "chance")


def evaluate(
    benchmark: Benchmark,
    encoder: Encoder,
    rule: Rule = "strict",
    pictures: MutableMapping[str, int] | None = None,
) -> ChoiceResult:
    """Score one benchmark by the cosine of float32 unit vectors.

    Args:
        benchmark: Items and how they are averaged.
        encoder: Encodes what it has not encoded yet.
        rule: `"strict"`: the true option has to be closer than every other one, a tie is wrong.
            Where the other rule gives another mean over items, that is kept as metric `argmax`.
            `"argmax"`: the first of the closest options has to be the true one, in the reference
            loader's order of options, so that a tie may count. Scores of 2 x 2 items are strict
            in their reference too, and are strict under either rule.
        pictures: Numbers of the pictures of other benchmarks, see `results.picture_numbers`.

    Raises:
        ConfigError: If the rule is unknown.
        DataError: If a picture cannot be read.
    """
    if rule not in ("strict", "argmax"):
        raise ConfigError(f"rule={rule!r}: expected 'strict' or 'argmax'.")
    order = group_order(benchmark.items)
    items = [benchmark.items[row] for row in order]
    scores = item_scores(items, encoder)
    if benchmark.task == "choice":
        marks = [is_right(s, item.truth, rule) for s, item in zip(scores, items, strict=True)]
    else:
        marks = [pair_scores(s)[benchmark.task] for s in scores]
    correct = np.array(marks, dtype=bool)
    groups = [item.group for item in items]
    return ChoiceResult(
        **{name: getattr(benchmark, name) for name in FACTS},
        correct=correct,
        sizes={group: groups.count(group) for group in dict.fromkeys(groups)},
        ties=rule,
        items=item_key(items),
        counts=dict(benchmark.counts),
        metrics=_rank_metrics(scores, items)
        | _joint_metrics(benchmark, correct, order)
        | _argmax_metric(benchmark, correct, scores, items),
        pictures=picture_numbers(items, {} if pictures is None else pictures),
    )


def evaluate_all(
    benchmarks: Sequence[Benchmark],
    encoder: Encoder,
    rule: Rule | Mapping[str, Rule] = "strict",
) -> list[ChoiceResult]:
    """Score several benchmarks; all their texts are sorted by length together, then encoded.

    `rule` is one for all, or one by family; a family that is not named is strict.
    """
    encoder.texts([text for b in benchmarks for item in b.items for text in item.texts])
    rules = {b.name: rule if isinstance(rule, str) else rule.get(b.name, "strict")
             for b in benchmarks}  # fmt: skip
    pictures: dict[str, int] = {}
    return [evaluate(part, encoder, rules[part.name], pictures) for part in benchmarks]


def item_scores(items: Sequence[Choice], encoder: Encoder) -> list[np.ndarray]:
    """Cosine `(number of images, number of texts)` of all options of each item, float32.

    An option that occurs twice has exactly the same score twice, so ties are exact.
    """
    shapes = [(len(item.images), len(item.texts)) for item in items]
    scores: list[np.ndarray] = [np.empty(0)] * len(items)
    for shape in sorted(set(shapes)):
        rows = [row for row, other in enumerate(shapes) if other == shape]
        for start in range(0, len(rows), ITEMS_AT_ONCE):
            part = rows[start : start + ITEMS_AT_ONCE]
            for row, score in zip(part, _cosines([items[i] for i in part], encoder), strict=True):
                scores[row] = score
    return scores


def _cosines(items: Sequence[Choice], encoder: Encoder) -> np.ndarray:
    images = encoder.images([ref for item in items for ref in item.images])
    texts = encoder.texts([text for item in items for text in item.texts])
    images = images.reshape(len(items), -1, 1, images.shape[-1])
    texts = texts.reshape(len(items), 1, -1, texts.shape[-1])
    return (images * texts).sum(axis=-1)


def is_right(scores: np.ndarray, truth: int, rule: Rule = "strict") -> bool:
    """Whether the true one of the options `scores` wins under the rule."""
    flat = scores.ravel()
    if rule == "argmax":
        return int(flat.argmax()) == truth
    return bool(flat[truth] > np.delete(flat, truth).max())


def pair_scores(scores: np.ndarray) -> dict[str, bool]:
    """Winoground's three scores from the cosines `(image, text)` of a 2 x 2 item, all strict."""
    text = bool(scores[0, 0] > scores[0, 1] and scores[1, 1] > scores[1, 0])
    image = bool(scores[0, 0] > scores[1, 0] and scores[1, 1] > scores[0, 1])
    return {"text": text, "image": image, "group": text and image}


def _argmax_metric(
    benchmark: Benchmark, correct: np.ndarray, scores: Sequence[np.ndarray], items: Sequence[Choice]
) -> dict[str, float]:
    """Mean over items under the argmax rule, where ties make it another one."""
    if benchmark.task != "choice":
        return {}
    marks = [is_right(s, item.truth, "argmax") for s, item in zip(scores, items, strict=True)]
    return {} if marks == correct.tolist() else {"argmax": float(np.mean(marks))}


def _joint_metrics(
    benchmark: Benchmark, correct: np.ndarray, order: np.ndarray
) -> dict[str, float]:
    """Share of the benchmark's sets of items in which all are right."""
    by_position = np.empty(len(order), dtype=bool)
    by_position[order] = correct
    return {
        name: float(np.mean([by_position[list(places)].all() for places in sets]))
        for name, sets in benchmark.sets.items()
        if sets
    }


def _rank_metrics(scores: Sequence[np.ndarray], items: Sequence[Choice]) -> dict[str, float]:
    """Ranks and recalls where there are more than two options; ties rank the truth last."""
    options = [(s.ravel(), item.truth) for s, item in zip(scores, items, strict=True)]
    if not options or min(s.size for s, _ in options) <= 2 or any(1 not in s.shape for s in scores):
        return {}
    ranks = np.array([(s >= s[truth]).sum() for s, truth in options])
    return {
        "mean_rank": float(ranks.mean()),
        "median_rank": float(np.floor(np.median(ranks))),
        "recall_at_3": float((ranks <= 3).mean()),
        "recall_at_5": float((ranks <= 5).mean()),
    }
