"""Results of choice benchmarks: right or wrong item by item, their averages, and their records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cae_lib.data.benchmarks.base import Choice
from cae_lib.errors import DataError
from cae_lib.evaluation.bits import pack_bits, pack_numbers, unpack_bits, unpack_numbers


@dataclass(frozen=True)
class ChoiceResult:
    """What one model did on one benchmark.

    Items are ordered by group and keep the benchmark's order within a group, so that the sizes of
    the groups tell which item belongs where.

    Attributes:
        name: Family of the benchmark.
        subset: Part of the family.
        correct: `(n,)` bool.
        sizes: Number of items in each group, in order.
        n_expected: Number of items that there should be.
        headline: `"micro"` or `"macro"`, the average that is printed.
        rule: Averaging rule in words.
        macro_groups: Groups of the macro average; None means all.
        chance: Accuracy of guessing.
        ties: `"strict"` or `"argmax"`, how a tie was judged.
        items: Digest of the items; results can be paired only if it is the same.
        counts: Facts about the items, see `Benchmark.counts`.
        metrics: Further numbers, for example mean rank.
        pictures: `(n,)` number of each item's picture, see `picture_numbers`: answers to items of
            one picture depend on each other.
    """

    name: str
    subset: str
    correct: np.ndarray
    sizes: Mapping[str, int]
    n_expected: int
    headline: str
    rule: str
    macro_groups: tuple[str, ...] | None
    chance: float
    ties: str
    items: str
    counts: Mapping[str, int]
    metrics: Mapping[str, float]
    pictures: np.ndarray

    @property
    def key(self) -> str:
        """Name of the score in records, `name/subset`."""
        return f"{self.name}/{self.subset}"

    @property
    def n_used(self) -> int:
        """Number of items scored."""
        return len(self.correct)

    @property
    def micro(self) -> float:
        """Mean over items (NaN without items)."""
        return float(self.correct.mean()) if self.n_used else float("nan")

    @property
    def macro(self) -> float:
        """Unweighted mean over the groups of the macro average (NaN without such a group)."""
        groups = self.by_group()
        means = [groups[name].mean() for name in self._macro_names()]
        return float(np.mean(means)) if means else float("nan")

    @property
    def value(self) -> float:
        """The headline average, a fraction."""
        return self.macro if self.headline == "macro" else self.micro

    def by_group(self) -> dict[str, np.ndarray]:
        """Right or wrong, item by item, for each group."""
        return self._split(self.correct)

    def strata(self) -> tuple[list[np.ndarray], list[float], list[np.ndarray]]:
        """Parts of the items, their weights in the headline, their pictures, for `statistics`."""
        if self.headline == "micro":
            return [self.correct], [1.0], [self.pictures]
        names, parts = self._macro_names(), (self.by_group(), self._split(self.pictures))
        groups, pictures = ([part[name] for name in names] for part in parts)
        return groups, [1 / len(names)] * len(names), pictures

    def _split(self, values: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum(list(self.sizes.values()), dtype=int)
        return {
            name: values[end - size : end]
            for (name, size), end in zip(self.sizes.items(), ends, strict=True)
        }

    def _macro_names(self) -> list[str]:
        return [n for n in self.sizes if self.macro_groups is None or n in self.macro_groups]

    def to_record(self) -> dict[str, Any]:
        """All of this as plain JSON; averages that do not exist are null."""
        groups = {
            name: {"n": len(part), "accuracy": float(part.mean())}
            for name, part in self.by_group().items()
        }
        return {
            "name": self.name,
            "subset": self.subset,
            "n_used": self.n_used,
            "n_expected": self.n_expected,
            "micro": _plain(self.micro),
            "macro": _plain(self.macro),
            "headline": self.headline,
            "rule": self.rule,
            "macro_groups": None if self.macro_groups is None else list(self.macro_groups),
            "groups": groups,
            "group_order": list(self.sizes),
            "chance": _plain(self.chance),
            "ties": self.ties,
            "items": self.items,
            "counts": dict(self.counts),
            "metrics": dict(self.metrics),
            "correct": pack_bits(self.correct),
            "pictures": pack_numbers(self.pictures),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ChoiceResult:
        """Read what `to_record` wrote.

        Raises:
            DataError: If the record does not hold a result, or its parts do not fit together.
        """
        try:
            sizes = {name: record["groups"][name]["n"] for name in record["group_order"]}
            macro_groups, chance = record["macro_groups"], record["chance"]
            correct = unpack_bits(record["correct"], record["n_used"])
            fields = ("name", "subset", "n_expected", "headline", "rule", "ties", "items")
            result = cls(
                correct=correct,
                sizes=sizes,
                macro_groups=None if macro_groups is None else tuple(macro_groups),
                chance=float("nan") if chance is None else chance,
                counts=dict(record["counts"]),
                metrics=dict(record["metrics"]),
                pictures=unpack_numbers(record["pictures"], record["n_used"]),
                **{field: record[field] for field in fields},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"record {record.get('name')}/{record.get('subset')}: not a choice result "
                f"({error!r}). Compute it anew."
            ) from error
        if sum(sizes.values()) != record["n_used"]:
            raise DataError(f"record {result.key}: groups and n_used differ. Compute it anew.")
        return result


def group_order(items: Sequence[Choice]) -> np.ndarray:
    """Positions of items sorted by group name, in the given order within a group."""
    return np.argsort(np.array([item.group for item in items], dtype=str), kind="stable")


def picture_numbers(items: Sequence[Choice], known: MutableMapping[str, int]) -> np.ndarray:
    """Number of each item's picture `(n,)`, the same for the same file whatever is cut out of it.

    An item with two pictures counts with the first, which is the right one where one is asked for.
    `known` holds the numbers that are taken, by path; new ones are added.
    """
    paths = (os.path.normpath(item.images[0].path) for item in items)
    return np.array([known.setdefault(path, len(known)) for path in paths], dtype=np.int64)


def item_key(items: Sequence[Choice]) -> str:
    """Digest (12 hex digits) of ids and texts, the same only for the same items in this order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update("\x1f".join((item.group, item.id, *item.texts, "\x1e")).encode())
    return digest.hexdigest()[:12]


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
