"""Tables in long form: one value a row, named by its measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

NOTHING = np.float32("nan")
"""Stands in a column of numbers that a measure does not use."""


def long_table(row: Mapping[str, Any], parts: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Put parts, arrays of equal length or single values by column, below each other.

    `row` has a default for each column, which also gives its type.
    """
    table = pd.concat([pd.DataFrame({**row, **part}) for part in parts], ignore_index=True)
    # Arrays of the parts have types of their own, such as float64.
    return table.astype(pd.DataFrame(row, index=[0]).dtypes)
