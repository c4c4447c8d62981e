"""Read what was tried of one setting of a run, and choose which values to try."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cae_lib.config import Experiment

SETTINGS = ("lr", "steps", "lock_image", "weight", "margin")
"""Settings in the tables of searches; NaN stands for the value that the run is configured with."""


def stored_trials(stored: pd.DataFrame, config: Experiment, varied: str = "") -> pd.DataFrame:
    """Return the stored trials of a run in which no setting other than `varied` differs.

    `stored` has the run in the column `experiment`, and some of `SETTINGS`. Of each value of
    `varied`, which is "" for none, the first trial is returned.
    """
    rows = stored[stored["experiment"] == config.name].copy()
    for name in {*SETTINGS, varied} - {""}:
        configured = getattr(config, name)
        # A search has no column for a setting that it did not vary.
        values = rows[name] if name in rows else pd.Series(configured, rows.index)
        rows[name] = values.where(values.notna(), configured)
        if name != varied:
            rows = rows[rows[name] == configured]
    return rows.drop_duplicates(varied or ["experiment"])


def values_to_try(
    tried: Sequence[float], listed: Sequence[float], configured: float
) -> list[float]:
    """Return the tried values or, of fewer than two, the configured one with its neighbours."""
    if len(tried) > 1:
        return list(tried)
    values = sorted({*listed, configured})
    # Three values: at an end of the list two on one side take the place of one on each.
    first = min(max(0, values.index(configured) - 1), max(0, len(values) - 3))
    return values[first : first + 3]
