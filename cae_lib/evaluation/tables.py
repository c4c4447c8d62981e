"""Tables put together from several parts."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from cae_lib.errors import DataError
from cae_lib.store import ANSWERS


def concat_tables(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put tables below each other; return an empty one if there are none."""
    tables = list(tables)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def join_by_item(items: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Join the columns of `answers` to `items` by family, subset and item (`ANSWERS`).

    The order of `answers` does not matter.

    Returns:
        The rows of `items` in their order.

    Raises:
        DataError: An item is missing in one of the tables, or occurs twice.
    """
    require_unique(items)
    require_unique(answers)
    require_items(items, answers)
    require_items(answers, items)
    return items.merge(answers, on=list(ANSWERS), how="left")


def require_unique(table: pd.DataFrame) -> None:
    """Raise a DataError if an item occurs more than once in a table."""
    repeated = table[table.duplicated(list(ANSWERS))]
    if len(repeated):
        raise DataError(
            f"{_first_item(repeated)} stands more than once, and {len(repeated) - 1} further "
            "rows repeat an item: expected one row for each item, of one run and one seed."
        )


def require_items(required: pd.DataFrame, table: pd.DataFrame) -> None:
    """Raise a DataError if an item of the table `required` is missing in another table."""
    names = pd.MultiIndex.from_frame(table[list(ANSWERS)])
    missing = required[~pd.MultiIndex.from_frame(required[list(ANSWERS)]).isin(names)]
    if len(missing):
        raise DataError(
            f"{_first_item(missing)} has no counterpart, and {len(missing) - 1} further "
            "items have none: items and answers have to be of the same data. Measure again."
        )


def _first_item(table: pd.DataFrame) -> str:
    family, subset, item = table[list(ANSWERS)].iloc[0]
    return f"item {item} of {family}/{subset}"
