"""`cae evaluate` and `cae released`: measuring a run, or models of others, and printing scores.
What measures is imported as far as it is asked for: one benchmark alone is there in seconds."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from cae_lib.commands import options
from cae_lib.commands.options import REAL, allowed, is_run, names, option, takes
from cae_lib.data.benchmarks import FOLDERS
from cae_lib.errors import ConfigError, DataError
from cae_lib.variants import run_name

FREE_SETS = ("coco-val2017", "sugarcrepe", "sugarcrepe-pp")
"""Sets that `cae released --fetch` gets: anybody may, by plain addresses, in a gigabyte."""


@takes(
    option(
        "name",
        help="'base', an experiment such as clip-ft or cae-attention, one of these "
        "read with GELU (base-gelu, clip-ft-gelu), 'data' (what needs no model: items, "
        "captions, blind), a released model such as released-negclip, a tag "
        "MODEL:TAG of open_clip, hf-hub:OWNER/NAME or local-dir:FOLDER in its format, "
        "hf:OWNER/NAME or a folder of transformers, or a weight file",
    ),
    options.SEED,
    option(
        "--profile",
        metavar="P",
        help=f"by default mini, and paper for other models: {options.PROFILE_HELP}",
    ),
    options.SET,
    options.ALLOW_MISSING,
    option(
        "--only",
        default="",
        metavar="KINDS",
        help="kinds of measurement, with commas "
        "between them, such as benchmarks,retrieval; or benchmarks, such as winoground, "
        "which are then printed and not stored",
    ),
    option("--model", metavar="M", help="open_clip's architecture of a weight file"),
    option(
        "--activation",
        choices=("quickgelu", "gelu"),
        help="of a weight file; of others their own by default",
    ),
    option(
        "--processor",
        metavar="P",
        help="folder or hub repository of the tokenizer and the "
        "preprocessing of a model of transformers; by default its own, or OpenAI's",
    ),
    option(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="write the scores there, as "
        "CLIP_benchmark's CSV and as evaluation results of the Hugging Face hub",
    ),
)
def run(parsed: argparse.Namespace) -> None:
    """Measure a run, a model of others, or what belongs to the data alone, and print its scores.
    Some benchmarks alone, `--only winoground`, are printed and not stored."""
    from cae_lib.commands import released, scores
    from cae_lib.evaluation.suites import load_studies

    load_studies()
    parsed.profile = parsed.profile or ("mini" if is_run(parsed.name, "mini") else REAL)
    if parsed.name == options.DATA:
        from cae_lib import measuring

        with allowed(parsed):
            measuring.measure_data(parsed.profile)
        print("\n".join(scores.amounts(parsed.profile)))
        return
    suites, families = split(names(parsed.only))
    with allowed(parsed):
        if is_run(parsed.name, parsed.profile):
            from cae_lib import measuring, runs

            row, settings = options.run_of(parsed)
            title, seed = run_name(row, parsed.profile, **settings), parsed.seed
            opened = partial(runs.open_run, row, parsed.profile, seed, **settings)
            measure = partial(measuring.measure_run, row, parsed.profile, seed, **settings)
        else:
            how = released.named(parsed.name, parsed.model, parsed.activation)
            how = replace(how, processor=parsed.processor)
            title = parsed.name if parsed.name in released.models() else plain(parsed.name)
            seed, opened = 0, released.opener(how)
            measure = partial(released.measure, opened, how, title, parsed.profile)
        if families:
            table = scores.evaluate(opened, *families, profile=parsed.profile)
        else:
            measure(only=suites)
            table = scores.stored_scores(title, parsed.profile, seed, suites)
    if table.empty and (families or not scores.measured(title, parsed.profile, suites)):
        raise DataError("nothing could be measured, see above: no set is here that was asked for")
    table["dataset"] = scores.named(table["dataset"], parsed.profile)
    scores.tell(table)
    if parsed.output:
        for path in scores.write(table, title, parsed.output, parsed.name.partition(":")[2]):
            print(f"Written: {path}")


@takes(
    option("--only", default="", metavar="NAMES", help="models with commas between them"),
    option(
        "--fetch",
        action="store_true",
        help="first get the weights that are free, and SugarCrepe, SugarCrepe++ and their pictures",
    ),
)
def run_released(parsed: argparse.Namespace) -> None:
    """Measure those released models whose weights are here, on the data that are here, and say how
    to get the rest. `--fetch` gets what is free first."""
    from cae_lib import measuring
    from cae_lib.commands import released, scores
    from cae_lib.data.completeness import check
    from cae_lib.evaluation.suites import load_studies

    load_studies()
    chosen = released.chosen(names(parsed.only))
    parsed.allow_missing, parsed.profile = "all", REAL
    if parsed.fetch:
        released.fetch([*(released.owner(name).name for name in chosen), *FREE_SETS])
    absent = [name for name in chosen if check(released.owner(name)).state == "not here"]
    here = [name for name in chosen if name not in absent]
    with allowed(parsed):
        absent += released.measure_here(here)
        measuring.measure_data(REAL)
    print("\n".join(scores.amounts(REAL)))
    if absent := [name for name in chosen if name in absent]:
        wanted = dict.fromkeys(released.owner(name).name for name in absent)
        print(f"Not here: {', '.join(absent)}. Fetch them: cae data get {' '.join(wanted)}")


def split(only: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """The suites and the families of benchmarks among some names; ConfigError for both together, or
    a name that is neither."""
    only = list(only)
    families = tuple(name for name in only if name in FOLDERS)
    if len(families) == len(only):
        return [], families
    from cae_lib.evaluation.suites import BASE_SUITES, SUITES

    if families or not {*only} <= {*SUITES, *BASE_SUITES}:
        raise ConfigError(
            f"--only {','.join(only)}: expected kinds of measurement ({', '.join(SUITES)}) or "
            f"benchmarks ({', '.join(FOLDERS)}), not both"
        )
    return only, ()


def plain(name: str) -> str:
    """The name of a model in tables and file names."""
    stem = Path(name).stem if Path(name).exists() else name
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")
