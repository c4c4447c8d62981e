"""Measure how far rounding alone changes a trained model: train it with other vector instructions.

    python -m data.recipes.measure_stability

Each run of `RUNS` is trained twice from one seed, with all vector instructions of the processor and
with those of AVX2 alone. Sums are then rounded differently, as on another kind of processor. The
table `stability` holds the answers of both models to all benchmark items as the share that differs,
and the accuracy of each. It is a measure of the training, not of the loss: where a small difference
grows, the training is close to unstable.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cae_lib import results, store
from cae_lib.cli import guarded
from cae_lib.config import paths
from cae_lib.evaluation.averages import average, weights
from cae_lib.keys import digest
from cae_lib.runtime import current_provenance
from cae_lib.variants import DATA

PROFILE, SEED = "mini", 0
RUNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "CLIP-FT": ("clip-ft", {}),
    "NegCLIP": ("spacy-negclip", {}),
    "margin loss": ("spacy-margin", {}),
    "CAE on bindings": ("dependency-binding", {}),
    "CAE on bindings, a quarter of λ": ("dependency-binding", {"weight": 5.0}),
    "CAE on bindings, 0.3 of the learning rate": ("dependency-binding", {"lr": 3e-4}),
    "CAE on bindings, all swaps of a caption": (
        "dependency-binding",
        {"attribution": (("swap", "phrase"),)},
    ),
}
"""A run and its changed settings, by what a table calls it."""

PROCESSORS: Mapping[str, Mapping[str, str]] = {
    "all instructions": {},
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
}
"""Environment variables that restrict the vector instructions of PyTorch and its libraries."""


def answers_of(name: str) -> pd.DataFrame:
    """Train and measure a run of `RUNS` in this process, unless that is stored."""
    run, settings = RUNS[name]
    return results.load("benchmarks", PROFILE, [run], [SEED], compute=True, **settings)


def train_on(processor: str, home: Path) -> dict[str, pd.DataFrame]:
    """Train all runs with these instructions, and return their answers.

    Args:
        processor: One of `PROCESSORS`.
        home: Folder for the weights and tables of these runs.
    """
    raw = home / "data/raw"
    if not raw.is_symlink():
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.symlink_to(paths().raw.resolve())
    environment = {**os.environ, **PROCESSORS[processor], "CAE_HOME": str(home)}
    answers = {}
    for name in RUNS:
        output = home / f"{digest(name)}.parquet"
        if not output.is_file():
            command = [sys.executable, "-m", "data.recipes.measure_stability", name, str(output)]
            subprocess.run(command, env=environment, check=True)
        answers[name] = pd.read_parquet(output)
    return answers


def compare() -> pd.DataFrame:
    """Train every run with every set of instructions, and compare the answers.

    Returns:
        A row for each run: `model`, `n` items, `changed` share of the answers, and `accuracy` (mean
        of the benchmark families) with each set of instructions.
    """
    folder = paths().build / "stability"
    tables = {name: train_on(name, folder / digest(name)) for name in PROCESSORS}
    items = results.load("items", PROFILE, [DATA])
    mean = weights(items, "family").query("score == 'mean'")
    rows = []
    for name in RUNS:
        answers = [
            table[name].set_index(list(store.ANSWERS))["correct"].sort_index()
            for table in tables.values()
        ]
        accuracy = [average(table[name], mean)["mean"] for table in tables.values()]
        rows.append(
            {
                "model": name,
                "n": len(answers[0]),
                "changed": float((answers[0] != answers[1]).mean()),
                "accuracy": accuracy[0],
                "accuracy_other": accuracy[1],
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Compare, and store the table; or, with a run and a file, train that run for `train_on`."""
    if len(sys.argv) > 1:
        name, output = sys.argv[1:]
        answers_of(name).to_parquet(output)
        return
    table = compare()
    print(table.to_string(index=False))
    store.save(
        "stability",
        DATA,
        0,
        table,
        PROFILE,
        key=digest(table.to_csv()),
        provenance=current_provenance(PROFILE, SEED),
    )
    store.collect(PROFILE)


if __name__ == "__main__":
    sys.exit(guarded(main, "the same command"))
