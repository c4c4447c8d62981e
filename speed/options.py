"""Options that the scripts here share, and the table they store."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cae_lib import results
from cae_lib.errors import ConfigError
from cae_lib.runtime import current_provenance, pick_device
from speed.captions import digest
from speed.timing import CLOCKS

PROFILE = "mini"
"""Where the tables lie, whatever the profile of the page that shows them: they depend on none."""


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every script."""
    parser.add_argument("--captions", help="tab separated file of NegCLIP; see captions.py")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="threads of the CPU; default: PyTorch's choice")
    parser.add_argument("--device", help="cpu or cuda; default: a GPU if there is one")
    parser.add_argument(
        "--clock",
        choices=sorted(CLOCKS),
        default="wall",
        help="cpu: seconds of the processors, for one thread on a machine that others use too",
    )
    parser.add_argument("--seed", type=int, default=0, help="of captions, noise and weights")
    parser.add_argument("--no-record", action="store_true", help="print only, store nothing")


def prepare(options: argparse.Namespace) -> torch.device:
    """Set threads and seeds; returns the device.

    Raises:
        ConfigError: processor time is asked for where it does not say how long the work takes.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device = pick_device(options.device)
    if options.clock == "cpu" and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise ConfigError("--clock cpu needs --device cpu --threads 1: pass both.")
    return device


def seconds(rounds: Iterable[Mapping[str, float]]) -> pd.DataFrame:
    """Return the output of `interleaved` as rows: measure "seconds", candidate, round, value."""
    return pd.DataFrame(
        {"measure": "seconds", "candidate": name, "round": number, "value": value}
        for number, found in enumerate(rounds)
        for name, value in found.items()
    )


def tokens(lengths: Iterable[Iterable[int]]) -> pd.DataFrame:
    """Lengths of captions as rows: measure "tokens", round, value."""
    return pd.DataFrame(
        {"measure": "tokens", "round": number, "value": value}
        for number, batch in enumerate(lengths)
        for value in batch
    )


def facts(measure: str, values: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Values by candidate and name as rows: measure, candidate, name, value."""
    return pd.DataFrame(
        {"measure": measure, "candidate": candidate, "name": name, "value": value}
        for candidate, found in values.items()
        for name, value in found.items()
    )


def median_table(frame: pd.DataFrame, against: str) -> str:
    """Median, least and largest seconds of each candidate, and its ratio to another one's."""
    wide = frame[frame["measure"] == "seconds"].pivot(
        index="round", columns="candidate", values="value"
    )
    found = wide.agg(["median", "min", "max"]).T
    found[f"/ {against}"] = wide.div(wide[against], axis=0).median() if against in wide else None
    return found.round(3).to_string()


def store_captions(
    table: str,
    options: argparse.Namespace,
    device: torch.device,
    captions: Path,
    model: str,
    size: int,
    frame: pd.DataFrame,
    started: float,
) -> None:
    """Store the table of a script on captions; see `store`.

    Args:
        table: Its name.
        options: Of the command line.
        device: That was measured.
        captions: File of the captions.
        model: open_clip name.
        size: Captions in a batch.
        frame: What was measured.
        started: `time.monotonic` at the start.
    """
    found = digest(captions)
    subject = {"model": model, "batch": size, "captions": captions.name, "captions_digest": found}
    store(table, options, device, subject, found, frame, started)


def store(
    table: str,
    options: argparse.Namespace,
    device: torch.device,
    subject: Mapping[str, Any],
    data: str,
    frame: pd.DataFrame,
    started: float,
    profile: str = PROFILE,
) -> None:
    """Store the table of a script, unless told not to; its run is the model's name.

    Args:
        table: Its name.
        options: Of the command line.
        device: That was measured.
        subject: Model and data that were measured, as part of the settings, and other settings.
        data: Digest of the data.
        frame: What was measured: measure, candidate, round, name, value as far as they apply.
        started: `time.monotonic` at the start.
        profile: Whose tables it stands beside.
    """
    if options.no_record:
        return
    settings = {
        "rounds": options.rounds,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "seed": options.seed,
        "precision": "float32",
        **subject,
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    spent = round(time.monotonic() - started, 1)
    provenance = current_provenance(
        profile, options.seed, wall_seconds=spent, data=data, settings=settings
    )
    results.save(
        table, subject["model"], options.seed, frame, profile, key=key, provenance=provenance
    )
    results.collect(profile)
    print(f"stored {results.file_of(table, profile)}", flush=True)
