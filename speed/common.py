"""Options, captions in batches, timing in turns and stored tables for the scripts here."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from cae_lab.profiles import load_profile
from cae_lab.provenance import current_provenance
from cae_lab.store import pack, packed_path, save
from cae_lab.training_set import default_tagger
from cae_lib.config import paths
from cae_lib.data.captions import load_negclip_tsv
from cae_lib.errors import ConfigError, DataError
from cae_lib.models.clip import Clip
from cae_lib.runtime import pick_device
from cae_lib.words.alignment import align

MODEL = "ViT-B-32"
"""The model of all scripts that need no trained one, with random weights."""

PROFILE = "mini"
"""The profile that the tables are stored with, although they depend on none."""

REAL_CAPTIONS = "valid_neg_clip.tsv"
SYNTHETIC_CAPTIONS = "world-mini/coco/train_neg_clip.tsv"

Work = Callable[[int], object]
"""Does the work of one round; takes the round's number."""

CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Clocks in seconds; "cpu" sums over the threads of this process, and other programs hardly disturb
it."""


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every script."""
    parser.add_argument("--captions", help="tab separated file of NegCLIP, see `captions_file`")
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
    """Set threads and seeds, and return the device."""
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device = pick_device(options.device)
    # Of several threads, or of a GPU, processor time does not say how long the work takes.
    if options.clock == "cpu" and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise ConfigError("--clock cpu needs --device cpu --threads 1: pass both.")
    return device


@dataclass(frozen=True)
class Batch:
    """Images `(B, 3, S, S)` of noise, and tokens and roles `(B, context_length)`."""

    images: Tensor
    tokens: Tensor
    roles: Tensor

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each caption, start and end token included."""
        # The end-of-text token has the largest id.
        return (self.tokens.argmax(dim=1) + 1).tolist()

    def first(self, n: int) -> Batch:
        """Return the first n pairs."""
        return Batch(self.images[:n], self.tokens[:n], self.roles[:n])


def captions_file(name: str | None) -> Path:
    """Find the named file, else NegCLIP's in `CAE_REAL_DATA`, else the synthetic captions."""
    real = Path(os.environ.get("CAE_REAL_DATA", "")) / REAL_CAPTIONS
    candidates = [Path(name)] if name else [real, paths().raw / SYNTHETIC_CAPTIONS]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(
        f"no captions: {' and '.join(map(str, candidates))} not found. Pass --captions FILE, a "
        "tab separated file of NegCLIP, or draw the synthetic scenes: "
        "python -m data.recipes.synthetic_scenes.build"
    )


def batches(
    path: Path, clip: Clip, n: int, size: int, seed: int, device: torch.device
) -> list[Batch]:
    """Draw n batches of `size` different captions each by `seed`."""
    distinct = list(
        dict.fromkeys(load_negclip_tsv(path, path.parent, missing_images="ignore").captions)
    )
    if len(distinct) < n * size:
        raise DataError(f"{path}: {len(distinct)} different captions, expected {n * size} or more.")
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(distinct), generator=generator)[: n * size]
    captions = [distinct[row] for row in rows]
    alignment = align(captions, default_tagger().tag(captions), clip.tokenizer)
    side = clip.image_size
    # The time of a step depends on the lengths of captions, but not on pixels: all batches share
    # images of noise.
    images = torch.randn(size, 3, side, side, generator=generator).to(device)
    tokens, roles = alignment.tokens.to(device), alignment.roles.to(device)
    return [
        Batch(images, tokens[start : start + size], roles[start : start + size])
        for start in range(0, n * size, size)
    ]


def interleaved(
    work: Mapping[str, Work],
    rounds: int,
    device: torch.device,
    few: Mapping[str, int] | None = None,
    clock: str = "wall",
) -> list[dict[str, float]]:
    """Measure the seconds of each candidate in each round.

    `few` are candidates that run in the first rounds only, with the number of these rounds.
    """
    measured = []
    for number in range(rounds):
        names = [name for name in work if number < (few or {}).get(name, rounds)]
        # In turns, so that a machine that slows down for a while slows all candidates; and each
        # round starts with another one.
        start = number % len(names)
        in_turn = [*names[start:], *names[:start]]
        seconds = {name: _timed(work[name], number, device, clock) for name in in_turn}
        measured.append({name: seconds[name] for name in names})
        listed = ", ".join(f"{name} {seconds[name]:.3g} s" for name in names)
        print(f"round {number + 1} of {rounds}: {listed}", flush=True)
    return measured


def _timed(work: Work, number: int, device: torch.device, clock: str) -> float:
    """Measure one piece of work, up to the end of what it started on a GPU."""
    # What the last candidate left is not collected at the expense of this one.
    gc.collect()
    _wait(device)
    start = CLOCKS[clock]()
    work(number)
    _wait(device)
    return CLOCKS[clock]() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(work: Work, device: torch.device) -> int:
    """Return the peak of bytes in tensors during round 0, above what was in use before."""
    gc.collect()
    _wait(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work(0)
        return torch.cuda.max_memory_allocated(device) - before
    # The CPU's allocator has no such counter: add up the profiler's record of all its calls.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work(0)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    in_use = peak = 0
    # Freed bytes are negative.
    for event in sorted(events, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    return peak


def seconds(rounds: Iterable[Mapping[str, float]]) -> pd.DataFrame:
    """Return the output of `interleaved` as rows: measure "seconds", candidate, round, value."""
    return pd.DataFrame(
        {"measure": "seconds", "candidate": name, "round": number, "value": value}
        for number, by_candidate in enumerate(rounds)
        for name, value in by_candidate.items()
    )


def tokens(data: Iterable[Batch]) -> pd.DataFrame:
    """Return the lengths of captions as rows: measure "tokens", round, value."""
    return pd.DataFrame(
        {"measure": "tokens", "round": number, "value": value}
        for number, batch in enumerate(data)
        for value in batch.lengths
    )


def facts(measure: str, values: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return values by candidate and name as rows: measure, candidate, name, value."""
    return pd.DataFrame(
        {"measure": measure, "candidate": candidate, "name": name, "value": value}
        for candidate, by_name in values.items()
        for name, value in by_name.items()
    )


def median_table(frame: pd.DataFrame, against: str) -> str:
    """Return median, least and largest seconds of each candidate, and its ratio to another's."""
    wide = frame[frame["measure"] == "seconds"].pivot(
        index="round", columns="candidate", values="value"
    )
    table = wide.agg(["median", "min", "max"]).T
    # The median of ratios within rounds, in which a slow machine slows both.
    table[f"/ {against}"] = wide.div(wide[against], axis=0).median() if against in wide else None
    return table.round(3).to_string()


def of_captions(path: Path, size: int) -> dict[str, Any]:
    """Return the settings that scripts on batches of captions share."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return {"model": MODEL, "batch": size, "captions": path.name, "captions_digest": digest}


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

    `subject` are further settings, the model among them; `data` is the digest of the data, and
    `started` the `time.monotonic` of the start.
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
    run, seed, found = subject["model"], options.seed, load_profile(profile)
    save(table, found, run, seed, frame, key=key, provenance=provenance)
    pack(found, [(run, seed)], [table])
    print(f"stored {packed_path(table, found)}", flush=True)
