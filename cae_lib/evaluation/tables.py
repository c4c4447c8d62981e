"""Putting tables together from what a measurement gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

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
