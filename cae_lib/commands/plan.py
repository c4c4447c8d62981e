"""`cae plan`: what a reproduction takes, what of it is done, and what is missing, before anything
is paid for. Hours are estimates: those of a CLIP-FT, as the paper's authors report them, times what
a step of a row costs beside one of CLIP-FT."""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cae_lib import results
from cae_lib.commands.options import GRID, chosen, option, takes
from cae_lib.commands.stamps import state_of
from cae_lib.config import Experiment, paths
from cae_lib.data.sources import load_sources
from cae_lib.grid import Job, grid
from cae_lib.profiles import experiment, find_profile
from cae_lib.runtime import pick_device
from cae_lib.variants import BASE, TUNED

HOURS = 0.8
"""Of a CLIP-FT of the paper on one A100, as its authors report it: 2,135 steps of 256 pairs."""

STEPS_OF_HOURS = 2135
MEASURING = 0.2
"""Of a run on all benchmarks, in hours: a guess until somebody has measured it."""

COSTS, COSTED = "ViT-B-32", 16
"""The stored run of the table `cost_step`, and the pairs of its step."""


@takes(option("--profile", default="paper", metavar="P", help="paper, or another one, of "
              "which jobs are counted"), *GRID)
def run(parsed: argparse.Namespace) -> int:
    """Print the plan; returns 1 if something is missing."""
    name, choice = parsed.profile, chosen(parsed)
    jobs = grid(name, choice)
    done = {label for label in jobs if state_of(name, label, jobs[label]) == "done"}
    print(f"{len(jobs)} jobs of the profile {name}, {len(done)} done by Snakemake\n")
    if not find_profile(name).real:
        return 0  # hours and downloads are those of real data
    table = hours(name, jobs)
    print(summary(table.assign(done=table["job"].isin(done))).to_string(index=False))
    total, left = table["hours"].sum(), table.loc[~table["job"].isin(done), "hours"].sum()
    print(f"\nAbout {total:.0f} GPU-hours, {left:.0f} left (an estimate: {HOURS:g} h for a CLIP-FT "
          f"times the cost of a step, and {MEASURING:g} h to measure a run)")
    missing = lacking(name)
    print("\n".join(space(name, jobs)))
    for line in missing:
        print(line)
    if not missing:
        print("All data are here")
    return 1 if missing else 0


def step_costs(measure: str = "seconds") -> dict[str, float]:
    """What a step of `COSTED` pairs took of "seconds", "flops" or "bytes" (at its peak, without
    weights and optimiser), by method and for CLIP-FT, and `images`, the part of the image tower, as
    measured on a CPU in float32. Empty where that is not stored."""
    if results.missing("cost_step", [COSTS], "mini"):
        return {}
    found = results.load("cost_step", "mini", [COSTS])
    found = found[(found["measure"] == measure) & (found["candidate"] != "")]
    return found.groupby("candidate")["value"].median().to_dict()


def cost(config: Experiment, costs: Mapping[str, float]) -> float:
    """What a step of a run takes of something, from the `step_costs`, with `COSTED` rows of the
    data. With hard negatives a row has two pictures and four texts, and CAE two captions. NaN where
    the costs are not known."""
    whole, images = costs.get(TUNED, math.nan), costs.get("images", math.nan)
    text, own = whole - images, 0.0
    if config.method:
        own = costs.get(config.method, math.nan) - whole
    if config.negatives:
        return 2 * images + 4 * text + 2 * own
    return whole + own + (text if config.foils else 0)


def hours(profile_name: str, jobs: Mapping[str, Job]) -> pd.DataFrame:
    """What each job that trains or measures takes, as an estimate: `job`, `stage`, `row`; of a
    step, `cost` in time beside CLIP-FT's, `tflop` and `gigabytes` of a float32 batch; `hours`. A
    walk of lambdas takes three trainings."""
    times, flops, peaks = (step_costs(measure) for measure in ("seconds", "flops", "bytes"))
    rows: list[dict[str, Any]] = []
    for label, job in jobs.items():
        stage, rest = label.split("/", 1)
        config = job.experiment(profile_name)
        if config is None:
            rows += [{"job": label, "stage": stage, "row": BASE, "hours": MEASURING}
                     ] if job.variant else []
            continue
        each = cost(config, times) / times.get(TUNED, math.nan)
        batches = config.batch_size / COSTED
        trained = each * HOURS * config.steps * config.batch_size / (STEPS_OF_HOURS * 256)
        run, walk = stage == "run", rest.startswith("lambda/")
        rows.append({
            "job": label, "stage": stage, "cost": each,
            "row": rest.rpartition("/")[0] if run else f"tune {rest.partition('/')[0]}",
            "tflop": batches * cost(config, flops) / 1e12,
            "gigabytes": batches * cost(config, peaks) / 1e9,
            "hours": 3 * trained if walk else trained + (MEASURING if run else 0)})
    columns = ["job", "stage", "row", "cost", "tflop", "gigabytes", "hours"]
    return pd.DataFrame(rows, columns=columns)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The plan by row: `jobs`, what the largest step takes (`step` beside CLIP-FT's in time,
    `tflop`, `gigabytes`), `hours` of all, and how many are `done`."""
    found = table.groupby("row", sort=False).agg(
        jobs=("job", "size"), step=("cost", "max"), tflop=("tflop", "max"),
        gigabytes=("gigabytes", "max"), hours=("hours", lambda hours: hours.sum(skipna=False)),
        done=("done", "sum"))
    return found.round({"step": 2, "tflop": 1, "gigabytes": 1, "hours": 1}).reset_index()


def space(profile_name: str, jobs: Mapping[str, Job]) -> list[str]:
    """Lines on downloads, disk and memory."""
    from cae_lib.models.clip import load_clip
    from cae_lib.runs import wanted

    sources = load_sources()
    sets = [sources[name] for name in wanted(profile_name) if name in sources]
    sizes = [source.gb for source in sets]
    gigabytes = sum(filter(None, sizes))
    model = load_clip(experiment(TUNED, profile_name).model).model
    weights = 4e-9 * sum(parameter.numel() for parameter in model.parameters())
    kept = weights * sum(1 for job in jobs.values() if job.experiment(profile_name))
    free = shutil.disk_usage(next(p for p in (paths().data, *paths().data.parents)
                                  if p.exists())).free / 1e9
    unknown = f", {sizes.count(None)} of unknown size" if None in sizes else ""
    hand = [source.name for source in sets if any(item.how for item in source.get)]
    lines = [f"Downloads: {len(sets)} sets of {gigabytes:.0f} GB{unknown}",
             f"Disk: {gigabytes + kept:.0f} GB for them and {kept:.0f} GB of weights; "
             f"{free:.0f} GB are free",
             f"Memory of a GPU: {4 * weights:.1f} GB for weights, gradients and AdamW, and the "
             "gigabytes of a step in float32, about half of them in bfloat16",
             f"Device here: {pick_device()}"]
    return lines + [f"By hand, see `cae data list`: {', '.join(hand)}"] * bool(hand)


def lacking(profile_name: str) -> list[str]:
    """Lines that say what of the data is missing, and how to get it."""
    from cae_lib.data.needs import stock
    from cae_lib.runs import wanted

    reports = stock(wanted(profile_name))
    wrong = [name for name, report in reports.items()
             if report.state in ("incomplete", "not here")]
    lines = [line for name in wrong for line in reports[name].lines()]
    return lines + [f"Fetch them: cae data get {' '.join(wrong)}"] * bool(wrong)


def require(profile_name: str) -> None:
    """DataError, before any job begins, if data of a profile are missing and may not be."""
    if find_profile(profile_name).real:
        from cae_lib.data import needs
        from cae_lib.runs import wanted

        for line in needs.require(needs.stock(wanted(profile_name))):
            print(line, flush=True)
