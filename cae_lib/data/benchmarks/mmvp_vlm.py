"""MMVP-VLM: two rows that follow one another are a pair, the first one with an odd number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Choice
from cae_lib.data.benchmarks.read import Collector
from cae_lib.errors import DataError

NUMBER, KIND, STATEMENT = COLUMNS = ("Question ID", "Type", "Statement")
PROMPT = "a photo of {}"


def read(collector: Collector) -> Mapping[str, Any]:
    """Groups are the patterns, 15 pairs each; a statement is shown as "a photo of ...". Of two
    equally close pictures the official script takes the second; here a tie is wrong."""
    (path,) = collector.paths
    found = list(rows.read_csv(path, COLUMNS))
    if len(found) % 2:
        raise DataError(f"{path}: {len(found)} rows, pairs were expected. Fetch the file again.")

    def pair(_: str, both: tuple[object, object]) -> Choice:
        first, second = (rows.number(row, NUMBER) for row in both)
        kind, other = (rows.text(row, KIND) for row in both)
        if first % 2 != 1 or second != first + 1 or kind != other:
            raise rows.RowError(
                f"{first:g} of {kind!r} and {second:g} of {other!r} are no pair: an odd number and "
                "the next one of the same type were expected"
            )
        images = tuple(collector.picture(f"{kind}/{n:.0f}") for n in (first, second))
        texts = tuple(PROMPT.format(rows.text(row, STATEMENT)) for row in both)
        return Choice(images, texts, truth=0, group=kind, id=f"{first:g}")

    pairs = zip(found[::2], found[1::2], strict=True)
    collector.add_rows(
        (
            ("", f"pair ending at line {line}", (first, second))
            for (_, first), (line, second) in pairs
        ),
        pair,
    )
    return {}
