"""`cae train`."""

from __future__ import annotations

import argparse

from cae_lib.commands import options
from cae_lib.commands.options import add_arguments, allowed, option, run_of
from cae_lib.variants import BASE

SPEED = "speed and memory, which change numbers by rounding at most"


@add_arguments(
    options.RUN,
    *options.SETTINGS,
    options.ALLOW_MISSING,
    option("--checkpointing", group=SPEED, action="store_true", help="less memory, more time"),
    option("--workers", group=SPEED, type=int, metavar="N", help="processes that decode pictures"),
)
def run(parsed: argparse.Namespace) -> None:
    """Train a run, or the base model."""
    from cae_lib.commands.base import train_base
    from cae_lib.runs import train_run
    from cae_lib.training.execution import Execution

    name, overrides = run_of(parsed)
    if name == BASE:
        path = train_base(parsed.profile, **overrides)
    else:
        how = Execution(parsed.checkpointing, parsed.workers)
        with allowed(parsed):
            path = train_run(name, parsed.profile, parsed.seed, how, **overrides)
    print(f"The weights are {path}")
