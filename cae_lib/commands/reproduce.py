"""`cae reproduce`: data, base, runs, measurements, pages, book. The jobs are those of
`cae_lib.grid`; on a laptop a few processes that stay go through them, elsewhere Snakemake does
(`cae_lib.commands.workflow`)."""

from __future__ import annotations

import argparse
import time
from functools import partial

from cae_lib import grid
from cae_lib.commands.jobs import run_jobs
from cae_lib.commands.options import GRID, ON, PROFILE, allowed, chosen, takes
from cae_lib.commands.plan import require
from cae_lib.commands.workflow import run_workflow
from cae_lib.profiles import find_profile
from cae_lib.runtime import format_seconds


@takes(PROFILE, *GRID, ON)
def run(parsed: argparse.Namespace) -> None:
    """Run all jobs, each one only as far as it is not done yet; safe to interrupt and repeat."""
    name, choice = parsed.profile, chosen(parsed)
    engine = parsed.on or ("local" if find_profile(name).real else "pool")
    with allowed(parsed):
        require(name)
        if engine == "pool":
            run_here(name, choice)
        else:
            run_workflow(name, choice, engine, parsed.allow_missing)


def run_here(name: str, choice: grid.Choice) -> None:
    """Go through the grid in a few processes that stay, and tell what took how long."""
    from cae_lib.commands.perform import perform

    jobs, took, steps = grid.grid(name, choice), {}, []
    start = before = time.monotonic()
    for step in grid.levels(jobs):
        took |= run_jobs({label: partial(perform, name, choice, label, jobs[label])
                          for label in step})
        stages = ", ".join(sorted({label.partition("/")[0] for label in step}))
        now = time.monotonic()
        steps.append(f"  {len(step)} of {stages}: {format_seconds(now - before)}")
        before = now
    print(f"All steps took {format_seconds(before - start)}:", *steps, "The slowest:", sep="\n")
    for label, outcome in sorted(took.items(), key=lambda item: -item[1].seconds)[:5]:
        print(f"  {label}: {format_seconds(outcome.seconds)}")
    known = find_profile(name)
    if known.studies_apart and not (known.real or choice.studies):
        done = {variant.run for variant in grid.rows_of(name, choice)}
        rows = sorted(known.runs.keys() - done)
        print(f"Left as they were, for `cae reproduce --all`: pages {', '.join(grid.STUDY_PAGES)}; "
              f"rows {', '.join(rows)}; tables {', '.join(grid.OF_STUDIES)}")
    if grid.BOOK in took:
        print(f"The book is {took[grid.BOOK].value}", flush=True)
