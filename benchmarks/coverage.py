"""How often the 95 % intervals of `cae_lib.statistics` hold the true difference, by simulation.

Usage, from the top of the repository:

    .venv/bin/python -m benchmarks.coverage
    .venv/bin/python -m benchmarks.coverage --tables 200          # a quick look

Two models answer the same items, three seeds each. Whether an answer is right depends on the item's
picture, on the item, on the model's seed, and on a chance of its own; pictures have between one and
six items. What the models differ by on the average, over all pictures, items and seeds that there
could be, is known, so each interval holds it or not.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from cae_lib.statistics import crossed, summary

SEEDS, PICTURES, MOST_ITEMS = 3, 150, 6
GAIN = 0.03
CASES = {
    "items alone": {"picture": 0.0, "item": 0.4, "seed": 0.0},
    "items by picture": {"picture": 0.4, "item": 0.2, "seed": 0.0},
    "pictures and seeds alike": {"picture": 0.3, "item": 0.2, "seed": 0.02},
    "seeds far apart": {"picture": 0.3, "item": 0.2, "seed": 0.08},
}
"""Standard deviations of the gain in each case, in units of an answer, 0 or 1."""


def difference(
    generator: np.random.Generator, picture: float, item: float, seed: float
) -> tuple[np.ndarray, ...]:
    """One table of differences (seeds by items) of two models whose true difference is `GAIN`."""
    owner = np.repeat(np.arange(PICTURES), generator.integers(1, MOST_ITEMS + 1, PICTURES))
    n = len(owner)
    by_picture = generator.normal(0, picture, PICTURES)[owner]
    gain = GAIN + by_picture + generator.normal(0, item, n) + generator.normal(0, seed, (SEEDS, 1))
    both = np.clip(np.stack([0.5 - gain / 2, 0.5 + gain / 2]), 0, 1)
    right = generator.random(both.shape) < both
    values = right[1] * 1.0 - right[0]
    return values, np.zeros(n, dtype=int), np.ones(1), owner


def coverage(tables: int, seed: int = 0) -> pd.DataFrame:
    """For each case the share of intervals that hold the true difference, and without clusters."""
    rows = []
    for name, deviations in CASES.items():
        generator = np.random.default_rng(seed)
        held = np.zeros((tables, 2), dtype=bool)
        for number in range(tables):
            cells = difference(generator, **deviations)
            alone = (*cells[:3], np.arange(len(cells[3])))
            for column, chosen in enumerate((cells, alone)):
                found = summary(*crossed(*chosen))
                held[number, column] = found["low"] <= GAIN <= found["high"]
        rows.append({"case": name, "by picture": held[:, 0].mean(), "item by item":
                     held[:, 1].mean(), "standard error": (0.95 * 0.05 / tables) ** 0.5})
    return pd.DataFrame(rows)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=4000, help="simulated comparisons a case")
    print(coverage(parser.parse_args().tables).round(4).to_string(index=False))


if __name__ == "__main__":
    main()
