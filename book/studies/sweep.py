"""Read what was tried of one setting of a run, and choose which values to try."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cae_lib.config import Experiment

SETTINGS = ("lr", "steps", "lock_image", "weight", "margin")
"""Settings that the tables of searches hold; NaN stands for the value that the run has anyway."""


def stored_trials(stored: pd.DataFrame, config: Experiment, varied: str = "") -> pd.DataFrame:
    """Return the stored scores of a run in which no setting other than `varied` differs.

    Args:
        stored: Scores of trials, with the name of the run in the column `experiment` and some of
            `SETTINGS` as further columns.
        config: The run as it is configured.
        varied: Name of the setting that may differ; "" for none.

    Returns:
        The rows of the first trial of each value, with the value in the column `varied`.
    """
    rows = stored[stored["experiment"] == config.name].copy()
    for name in {*SETTINGS, varied} - {""}:
        own = getattr(config, name)
        values = rows[name] if name in rows else pd.Series(own, rows.index)
        rows[name] = values.where(values.notna(), own)
        if name != varied:
            rows = rows[rows[name] == own]
    return rows.drop_duplicates(varied or ["experiment"])


def values_to_try(
    tried: Sequence[float], listed: Sequence[float], configured: float
) -> list[float]:
    """Return the stored values of a setting or, of fewer than two, the configured one's neighbours.

    Args:
        tried: The values that are stored.
        listed: The values that a search of the profile tries.
        configured: The value of the run.

    Returns:
        The stored values as they are; or the configured value with the next smaller and the next
        larger one of the list, or with two on one side if it is the smallest or the largest.
    """
    if len(tried) > 1:
        return list(tried)
    values = sorted({*listed, configured})
    first = min(max(0, values.index(configured) - 1), max(0, len(values) - 3))
    return values[first : first + 3]
