"""`cae evaluate`: measure a run, or any other model, and print its scores.

What measures is imported only where it is asked for, so one benchmark alone takes seconds.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cae_lib.commands import options
from cae_lib.commands.options import REAL, add_arguments, allowed, is_run, option, split_names
from cae_lib.data.benchmarks import FOLDERS
from cae_lib.errors import ConfigError, DataError
from cae_lib.variants import run_name

if TYPE_CHECKING:
    from cae_lib.models.clip import Clip


@add_arguments(
    option(
        "name",
        help="'base', an experiment such as clip-ft or cae-attention, one of these "
        "read with GELU (base-gelu, clip-ft-gelu), 'data' (what needs no model: items, "
        "captions, blind), a released model of configs/paper.yaml such as released-negclip, a tag "
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
    """Measure a run, any other model, or what belongs to the data alone, and print its scores.

    Some benchmarks alone, `--only winoground`, are printed and not stored.
    """
    from cae_lib.commands import scores
    from cae_lib.evaluation.suites import load_studies

    load_studies()
    parsed.profile = parsed.profile or ("mini" if is_run(parsed.name, "mini") else REAL)
    if parsed.name == options.DATA:
        from cae_lib import measuring

        with allowed(parsed):
            measuring.measure_data(parsed.profile)
        print("\n".join(scores.amounts(parsed.profile)))
        return
    suites, families = split(split_names(parsed.only))
    seed = parsed.seed if is_run(parsed.name, parsed.profile) else 0
    with allowed(parsed):
        title, load, measure = _resolve_model(parsed, suites)
        if families:
            table = scores.evaluate(load, *families, profile=parsed.profile)
        else:
            measure()
            table = scores.stored_scores(title, parsed.profile, seed, suites)
    if table.empty and (families or not scores.is_measured(title, parsed.profile, suites)):
        raise DataError("nothing could be measured, see above: no set is here that was asked for")
    table["dataset"] = scores.public_names(table["dataset"], parsed.profile)
    scores.print_scores(table)
    if parsed.output:
        for path in scores.write(table, title, parsed.output, parsed.name.partition(":")[2]):
            print(f"Written: {path}")


def _resolve_model(
    parsed: argparse.Namespace, suites: list[str]
) -> tuple[str, Callable[[], Clip], Callable[[], None]]:
    """Return the title of a model in tables, what loads it, and what measures some suites of it."""
    profile = parsed.profile
    if is_run(parsed.name, profile):
        from cae_lib import measuring, runs

        row, settings = options.run_of(parsed)
        title = run_name(row, profile, **settings)
        load = partial(runs.open_run, row, profile, parsed.seed, **settings)
        measure = partial(measuring.measure_run, row, profile, parsed.seed, only=suites, **settings)
        return title, load, measure
    from cae_lib.models.external import ExternalModel, model_loader
    from cae_lib.runtime import pick_device

    external = ExternalModel(
        parsed.name, parsed.model, parsed.activation, processor=parsed.processor
    )
    title = slugify(parsed.name)
    load = model_loader(external, pick_device())

    def measure_external() -> None:
        from cae_lib import measuring
        from cae_lib.evaluation.suites import SUITES

        if is_run(title, profile):
            raise ConfigError(f"{title} is a run of the profile {profile}: rename the file")
        if any(suite not in SUITES for suite in suites):
            raise ConfigError(f"--only {','.join(suites)}: that is measured of the base alone")
        asked = {suite: SUITES[suite] for suite in suites or SUITES}
        measuring.measure_external(external, title, profile, asked)

    return title, load, measure_external


def split(only: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the suites and the families of benchmarks among some names.

    Raises:
        ConfigError: For both together, or a name that is neither.
    """
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


def slugify(name: str) -> str:
    """Return the name of a model in tables and file names."""
    stem = Path(name).stem if Path(name).exists() else name
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")
