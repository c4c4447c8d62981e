"""CREPE: the true caption of a part of a picture among hard negatives, which a column lists as
Python writes a list, or a set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Choice
from cae_lib.data.benchmarks.read import Collector

COLUMNS = ("image_id", "caption", "x", "y", "width", "height")
N_NEGATIVES = 5


def read(collector: Collector) -> Mapping[str, Any]:
    """Items of one picture, cut to its box, and the texts (caption, negatives); an item is right if
    the true caption ranks first (R@1).

    Of productivity, groups are the complexities, and five negatives are expected; but some rows
    hold a set, which is read in the order it is written in, and one of less than five is taken as
    it is and counted as `fewer_negatives`. Negatives that repeat the caption make an item wrong and
    are counted as `identical`. Of systematicity, rows whose list of valid negatives is empty ask
    nothing: they are left out, counted as `no_negatives`, and not expected either.
    """
    productive = collector.name == "crepe"
    kind = collector.subset.rpartition("/")[2]
    column = "hard_negs" if productive else f"valid_hard_negs_{kind}"
    for path in sorted(collector.paths, key=_complexity):
        complexity = path.stem.rpartition("_")[2] if productive else ""

        def choice(key: str, row: object, complexity: str = complexity) -> Choice | None:
            negatives = _negatives(row, column, productive)
            if not negatives:
                collector.counts["no_negatives"] += 1
                return None
            crop = rows.box(row, "x", "y", "width", "height")
            image = collector.picture(f"{rows.number(row, 'image_id'):.0f}", crop)
            texts = (rows.text(row, "caption"), *negatives)
            return Choice(
                (image,),
                texts,
                truth=0,
                group=complexity or collector.subset,
                id=f"{complexity}/{key}".lstrip("/"),
            )

        found = rows.read_rows(path, columns=(*COLUMNS, column))
        collector.add_rows(
            ((key, f"{where} of {path.name}", row) for key, where, row in found), choice
        )
    fewer = sum(len(item.texts) <= N_NEGATIVES for item in collector.items)
    if productive and fewer:
        collector.counts["fewer_negatives"] = fewer
    return {}


def _complexity(path: Path) -> tuple[bool, int]:
    """The number at the end of a file's name, by which files are ordered."""
    number = path.stem.rpartition("_")[2]
    return number.isdecimal(), int(number) if number.isdecimal() else 0


def _negatives(row: object, column: str, productive: bool) -> list[str]:
    negatives = rows.literal(row, column)
    if rows.text(row, column).lstrip().startswith("{"):  # a set, in which none stands twice
        return list(dict.fromkeys(negatives))
    if productive and len(negatives) != N_NEGATIVES:
        raise rows.RowError(f"has {len(negatives)} negatives, {N_NEGATIVES} were expected")
    return negatives
