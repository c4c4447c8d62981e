"""Time of a training step of each row of a profile, as `cae train` takes it.

Usage, from the top of the repository, once the profile's base and sets are there:

    .venv/bin/python -m speed.row_cost --profile photo --threads 1 --clock cpu
    .venv/bin/python -m speed.row_cost --profile photo --rounds 2 --no-record  # a look

All rows take their own batches, models and optimisers, in turns. Where the image tower is locked,
its features are there before anything is timed. The result is the table `cost_rows` of the profile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from cae_lab.names import CLIP_FT
from cae_lab.profiles import load_profile
from cae_lab.required_data import data_digests
from cae_lab.runs import Run
from cae_lab.training_set import training_set
from cae_lib.training.trainer import TrainingRun
from speed.common import common_options, interleaved, median_table, prepare, seconds, store

WARM_UP = 2
"""Rounds that are not counted: the first steps allocate memory and the optimiser's state."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common_options(parser)
    parser.add_argument("--profile", required=True)
    options = parser.parse_args()
    started, device, work = time.monotonic(), prepare(options), {}
    profile = load_profile(options.profile)
    for name, row in profile.runs.items():
        # With other words a step is that of the plain row; without steps there is nothing to time.
        if not row.keys() & {"roles", "tagger"} and row.get("steps") != 0:
            work[name] = _steps(profile.run(name), WARM_UP + options.rounds, device)
    rounds = interleaved(work, WARM_UP + options.rounds, device, clock=options.clock)
    frame = seconds(rounds[WARM_UP:])
    print(median_table(frame, CLIP_FT), flush=True)
    config = profile.experiment(CLIP_FT)
    subject = {"model": config.model, "batch": config.batch_size, "precision": config.precision}
    data = data_digests(profile, ["benchmarks"])["benchmarks"]
    store("cost_rows", options, device, subject, data, frame, started, options.profile)


def _steps(run: Run, rounds: int, device: torch.device) -> Callable[[int], object]:
    config = run.config
    clip = run.start.load(device)
    data = training_set(
        run.profile, clip.tokenizer, clip.image_size, config.train_data, config.tagger
    )
    training = TrainingRun(config, clip, data.pairs, data.alignment, data.images)
    training.set_train_mode()
    # All batches are made beforehand, so that none is waited for while a step is timed.
    with training.prefetch(0, rounds) as source:
        batches = list(source)
    return lambda number: training.step(number, batches[number])


if __name__ == "__main__":
    main()
