"""Options that the benchmarks share, and the record they write."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.captions import digest
from benchmarks.timing import CLOCKS
from cae_lib.errors import ConfigError
from cae_lib.provenance import stamp
from cae_lib.records import Record, save_record
from cae_lib.report.cost import PROFILE
from cae_lib.runtime import pick_device, seed_everything


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every benchmark."""
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
    seed_everything(options.seed)
    device = pick_device(options.device)
    if options.clock == "cpu" and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise ConfigError("--clock cpu needs --device cpu --threads 1: pass both.")
    return device


def store_captions(
    name: str,
    options: argparse.Namespace,
    device: torch.device,
    captions: Path,
    model: str,
    size: int,
    results: Mapping[str, Any],
    started: float,
) -> Record:
    """Make the record of a benchmark on captions; see `store`.

    Args:
        name: of the record.
        options: of the command line.
        device: that was measured.
        captions: file of the captions.
        model: open_clip name.
        size: captions in a batch.
        results: what was measured.
        started: `time.monotonic` at the start.
    """
    found = digest(captions)
    subject = {"model": model, "batch": size, "captions": captions.name, "captions_digest": found}
    return store(name, options, device, subject, found, results, started)


def store(
    name: str,
    options: argparse.Namespace,
    device: torch.device,
    subject: Mapping[str, Any],
    data: str,
    results: Mapping[str, Any],
    started: float,
) -> Record:
    """Make the record of a benchmark and, unless told not to, write it.

    Args:
        name: of the record.
        options: of the command line.
        device: that was measured.
        subject: model and data that were measured, as part of the record's settings.
        data: digest of the data.
        results: what was measured.
        started: `time.monotonic` at the start.
    """
    config = {
        **subject,
        "rounds": options.rounds,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "seed": options.seed,
        "precision": "float32",
    }
    key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    seconds = round(time.monotonic() - started, 1)
    provenance = stamp(PROFILE, options.seed, wall_seconds=seconds, data=data)
    record = Record(name, key, config, dict(results), provenance)
    if not options.no_record:
        print(f"stored {save_record(record, PROFILE)}", flush=True)
    return record
