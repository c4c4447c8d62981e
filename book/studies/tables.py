"""Tables in long form: one value a row, named by its measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

NOTHING = np.float32("nan")
"""What stands in a column of numbers that a measure does not use."""


def long_table(row: Mapping[str, Any], parts: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Put parts of a table below each other.

    Args:
        row: The columns of the table, each with its default, which also gives its type.
        parts: For some of the columns arrays of equal length, or single values.
    """
    table = pd.concat([pd.DataFrame({**row, **part}) for part in parts], ignore_index=True)
    return table.astype(pd.DataFrame(row, index=[0]).dtypes)
