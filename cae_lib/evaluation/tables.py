"""Putting tables together from what a measurement gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cae_lib.errors import DataError
from cae_lib.store import ANSWERS

NOTHING = np.float32("nan")


def long_table(row: Mapping[str, Any], parts: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Parts with some columns of `row` each, arrays or single values; `row` says what stands in the
    others, and gives the types."""
    table = pd.concat([pd.DataFrame({**row, **part}) for part in parts], ignore_index=True)
    return table.astype(pd.DataFrame(row, index=[0]).dtypes)


def joined(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Tables one below the other; an empty one if there are none."""
    tables = list(frames)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def join_by_item(items: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Join the columns of `answers` to `items` by family, subset and item (`ANSWERS`).

    The result has the rows of `items` in their order; the order of `answers` means nothing.
    DataError if an item is missing in one of the tables, or stands twice.
    """
    require_unique(items)
    require_unique(answers)
    require_items(items, answers)
    require_items(answers, items)
    return items.merge(answers, on=list(ANSWERS), how="left")


def require_unique(table: pd.DataFrame) -> None:
    """Raise a DataError if an item stands more than once in a table."""
    twice = table.duplicated(list(ANSWERS))
    if twice.any():
        raise DataError(
            f"{_first_item(table[twice])} stands more than once, and {twice.sum() - 1} further "
            "rows repeat an item: expected one row for each item, of one run and one seed."
        )


def require_items(wanted: pd.DataFrame, table: pd.DataFrame) -> None:
    """Raise a DataError if an item of the table `wanted` is missing in another table."""
    found = _items_of(wanted).isin(_items_of(table))
    if not found.all():
        raise DataError(
            f"{_first_item(wanted[~found])} has no counterpart, and {(~found).sum() - 1} further "
            "items have none: items and answers have to be of the same data. Measure again."
        )


def _items_of(table: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(table[list(ANSWERS)])


def _first_item(table: pd.DataFrame) -> str:
    family, subset, item = table[list(ANSWERS)].iloc[0]
    return f"item {item} of {family}/{subset}"
