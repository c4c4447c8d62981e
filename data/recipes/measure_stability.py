"""Measure how far rounding alone changes a trained model: train it again with other rounding.

    python -m data.recipes.measure_stability

Each run of `RUNS` is trained from one seed in each way of `TRAININGS`: in float32 with all vector
instructions of the processor, in float32 with those of AVX2 alone, as on an older processor, and
in bfloat16, which `precision: auto` chooses on processors that have it. The table `stability` holds
the accuracy of each model, and the share of its answers to all benchmark items that differ from
those of the first training. It is a measure of the training: where a small difference grows, the
training is close to unstable.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cae_bench.averages import score_weights, weighted_average
from cae_bench.benchmarks.base import ITEM_KEY
from cae_lab import results, store
from cae_lab.cli import run_reporting_errors
from cae_lab.names import DATA_RUN
from cae_lab.profiles import load_profile
from cae_lab.provenance import current_provenance
from cae_lib.config import paths
from cae_lib.training.inputs import digest

PROFILE, SEED = "mini", 0
RUNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "CLIP-FT": ("clip-ft", {}),
    "margin loss": ("spacy-margin", {}),
    "swap-margin loss": ("dependency-binding", {}),
    "swap-margin loss, a quarter of λ": ("dependency-binding", {"weight": 5.0}),
    "swap-margin loss, 0.3 of the learning rate": ("dependency-binding", {"lr": 3e-4}),
    "swap-margin loss, all swaps of a caption": (
        "dependency-binding",
        {"attribution": (("swap", "phrase"),)},
    ),
}
"""A run and its changed settings, by what a table calls it."""

TRAININGS: Mapping[str, tuple[Mapping[str, str], Mapping[str, Any]]] = {
    "all instructions": ({}, {"precision": "fp32"}),
    "AVX2": (
        {
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
        },
        {"precision": "fp32"},
    ),
    "bfloat16": ({}, {"precision": "bf16"}),
}
"""Environment variables and settings of each training; the others are compared with the first."""


def answers_of(run_name: str, training: str) -> pd.DataFrame:
    """Train and measure a run in this process, which has the environment of `training`."""
    run, settings = RUNS[run_name]
    settings = {**settings, **TRAININGS[training][1]}
    return results.load("benchmarks", PROFILE, [run], [SEED], compute=True, **settings)


def train_all(training: str, home: Path) -> dict[str, pd.DataFrame]:
    """Train all runs in one way, with `home` as `CAE_HOME`, and return their answers."""
    # The trainings share the data, but neither weights nor tables, which have equal names.
    raw = home / "data/raw"
    if not raw.is_symlink():
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.symlink_to(paths().raw.resolve())
    environment = {**os.environ, **TRAININGS[training][0], "CAE_HOME": str(home)}
    answers = {}
    for name in RUNS:
        output = home / f"{digest(name)}.parquet"
        if not output.is_file():
            module = "data.recipes.measure_stability"
            # Libraries read these environment variables when they are loaded.
            command = [sys.executable, "-m", module, name, training, str(output)]
            subprocess.run(command, env=environment, check=True)
        answers[name] = pd.read_parquet(output)
    return answers


def compare() -> pd.DataFrame:
    """Train every run in every way, and compare accuracy and answers with the first training's."""
    folder = paths().build / "stability"
    tables = {name: train_all(name, folder / digest(name)) for name in TRAININGS}
    items = results.load("items", PROFILE, [DATA_RUN])
    mean = score_weights(items, "family").query("score == 'mean'")
    first = tables[next(iter(TRAININGS))]
    rows = []
    for name, (training, table) in itertools.product(RUNS, tables.items()):
        before, after = (
            frame[name].set_index(list(ITEM_KEY))["correct"].sort_index()
            for frame in (first, table)
        )
        rows.append(
            {
                "model": name,
                "training": training,
                "n": len(after),
                "changed": float((before != after).mean()),
                "accuracy": weighted_average(table[name], mean)["mean"],
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Compare, and store the table."""
    # The command of `train_all`.
    if len(sys.argv) > 1:
        name, training, output = sys.argv[1:]
        answers_of(name, training).to_parquet(output)
        return
    table = compare()
    print(table.to_string(index=False))
    profile = load_profile(PROFILE)
    store.save(
        "stability",
        profile,
        DATA_RUN,
        0,
        table,
        key=digest(table.to_csv()),
        provenance=current_provenance(PROFILE, SEED),
    )
    store.pack(profile, [(DATA_RUN, 0)], ["stability"])


if __name__ == "__main__":
    sys.exit(run_reporting_errors(main, "the same command"))
