"""`cae evaluate` and `cae released`: measuring a run, or a model of others."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from cae_lib import results, runs
from cae_lib.commands.data import get_sources
from cae_lib.commands.options import allowed, names
from cae_lib.commands.scores import amounts, choice_scores, named, stored_scores, tell, write
from cae_lib.commands.train import chosen_run
from cae_lib.commands.workflow import run_workflow
from cae_lib.config import profile
from cae_lib.data.benchmarks import FOLDERS
from cae_lib.data.completeness import check
from cae_lib.data.needs import OF_CAPTIONS, data_digests, weights_source
from cae_lib.data.sources import Source, load_sources, source
from cae_lib.errors import CheckpointError, ConfigError, DataError
from cae_lib.evaluation import datasets
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.suites import SUITES
from cae_lib.grid import BASE, Choice, find_run, run_name
from cae_lib.models import released, weight_files
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.released import START, Released, difference, reader
from cae_lib.runtime import file_hash, pick_device
from cae_lib.words.alignment import align

PREFIX = "released-"
"""Beginning of the names of the models of `data/sources.yml` in tables."""

REAL = "paper"
SHOWN = ("benchmarks", "retrieval", "similarity", "attribution")
"""What `cae released` measures."""

FREE_SETS = ("coco-val2017", "sugarcrepe", "sugarcrepe-pp")
"""Sets that `cae released --fetch` gets: anybody may, by plain addresses, in a gigabyte."""


def run(parsed: argparse.Namespace) -> None:
    """Measure a run, a model of others, or what belongs to the data alone, and print its scores.
    Some benchmarks alone, `--only winoground`, are printed and not stored."""
    profile_name = parsed.profile or ("mini" if _is_run(parsed.name, "mini") else REAL)
    parsed.profile = profile_name
    if parsed.name == results.DATA:
        with allowed(parsed):
            runs.measure_data(profile_name)
        print("\n".join(amounts(profile_name)))
        return
    suites, families = split(names(parsed.only))
    with allowed(parsed):
        if _is_run(parsed.name, profile_name):
            row, settings = chosen_run(parsed)
            title, seed = run_name(row, profile_name, **settings), parsed.seed
            clip = partial(runs.open_run, row, profile_name, seed, **settings)
            measure = partial(runs.measure_run, row, profile_name, seed, only=suites, **settings)
        else:
            known, seed = released_models(), 0
            how = known.get(parsed.name) or Released(parsed.name, parsed.model, parsed.activation)
            how = replace(how, processor=parsed.processor)
            title = parsed.name if parsed.name in known else plain(parsed.name)
            clip = partial(open_released, how, reader(how, pick_device()))
            measure = partial(measure_released, clip, how, title, profile_name, suites)
        if families:
            parts = datasets.benchmarks(profile_name, families)
            table = choice_scores(parts, answers(parts, Encoder(clip(), profile_name)))
        else:
            measure()
            table = stored_scores(title, profile_name, seed, suites)
    stored = [] if families else [suite for suite in suites or SUITES
                                  if not results.missing(suite, [title], profile_name)]
    if table.empty and not stored:
        raise DataError("nothing could be measured, see above: no set is here that was asked for")
    table["dataset"] = named(table["dataset"], profile_name)
    tell(table)
    if parsed.output:
        for path in write(table, title, parsed.output, parsed.name.partition(":")[2]):
            print(f"Written: {path}")


def measure_all(parsed: argparse.Namespace) -> None:
    """`cae released`: measure those released models whose weights are here, on the data that are
    here, and say how to get the rest. `--fetch` gets what is free first."""
    models = released_models()
    chosen = [f"{PREFIX}{name.removeprefix(PREFIX)}" for name in names(parsed.only)] or list(models)
    unknown = [name for name in chosen if name not in models]
    if unknown:
        raise ConfigError(f"no released model {unknown[0]!r}. Known: {', '.join(models)}")
    parsed.allow_missing, parsed.profile = "all", REAL
    if parsed.fetch:
        for name in dict.fromkeys([*(owner(name).name for name in chosen), *FREE_SETS]):
            try:
                get_sources(argparse.Namespace(names=[name]))
            except DataError as error:
                print(f"Left out: {error}", flush=True)
    absent = [name for name in chosen if check(owner(name)).state == "not here"]
    here = [name for name in chosen if name not in absent]
    with allowed(parsed):
        if parsed.on in (None, "pool"):
            datasets.benchmarks(REAL)  # tells what is left out
            for name in here:
                try:
                    measure_one(name)
                except CheckpointError as error:
                    absent.append(name)
                    print(f"Left out: {error}", flush=True)
        elif here:
            run_workflow(REAL, Choice(released=tuple(here)), parsed.on, parsed.allow_missing)
        runs.measure_data(REAL)
    print("\n".join(amounts(REAL)))
    if absent := [name for name in chosen if name in absent]:
        wanted = dict.fromkeys(owner(name).name for name in absent)
        print(f"Not here: {', '.join(absent)}. Fetch them: cae data get {' '.join(wanted)}")


def measure_one(name: str) -> None:
    """Measure a released model whose weights are here; CheckpointError if they cannot be read."""
    print(f"== {name}", flush=True)
    how = released_models()[name]
    clip = partial(open_released, how, reader(how, pick_device()))
    measure_released(clip, how, name, REAL, SHOWN)
    tell(stored_scores(name, REAL, 0))


def _is_run(name: str, profile_name: str) -> bool:
    row, _ = find_run(name, profile_name)
    return row in (BASE, results.DATA, *runs.CONTROLS, *profile(profile_name).methods)


def split(only: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """The suites and the families of benchmarks among some names; ConfigError for both together, or
    a name that is neither."""
    only = list(only)
    suites = [name for name in only if name in (*SUITES, *runs.BASE_SUITES)]
    families = tuple(name for name in only if name in FOLDERS)
    unknown = [name for name in only if name not in (*suites, *families)]
    if unknown or suites and families:
        raise ConfigError(
            f"--only {','.join(only)}: expected kinds of measurement ({', '.join(SUITES)}) or "
            f"benchmarks ({', '.join(FOLDERS)}), not both"
        )
    return suites, families


def plain(name: str) -> str:
    """The name of a model in tables and file names."""
    stem = Path(name).stem if Path(name).exists() else name
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")


def released_models() -> dict[str, Released]:
    """The models of others in `data/sources.yml` by name in tables, with the place of weights."""
    return {
        f"{PREFIX}{name}": Released(**{**how, "source": how["source"] if ":" in how["source"]
                          else str(entry.root / how["source"])})
        for entry in load_sources().values() for name, how in entry.models.items()
    }


def owner(name: str) -> Source:
    """The entry of `data/sources.yml` that a released model belongs to."""
    return next(entry for entry in load_sources().values()
                if name.removeprefix(PREFIX) in entry.models)


def open_released(how: Released, read: Callable[[], Clip]) -> Clip:
    """A model of others by its `reader`; says how it is read, and how far it is from the weights
    that most models start from, if they are here. A file that equals them is a CheckpointError."""
    clip = read()
    print(f"{Path(how.source).name}: {clip.name}, activation {clip.activation}, "
          f"{len(clip.model.state_dict())} tensors, none missing or left over", flush=True)
    if how.model != START[0]:
        return clip
    if check(source(*weights_source(*START))).state != "complete":
        print(f"  not compared with {':'.join(START)}, which is not here")
        return clip
    changed, total, share = difference(clip.model, load_clip(*START, device=pick_device()).model)
    if not changed:
        raise CheckpointError(f"{how.source} equals {':'.join(START)}: it is not another model")
    print(f"  {changed} of {total} tensors differ from {':'.join(START)}, by {share:.1%} in norm")
    return clip


def measure_released(opened: Callable[[], Clip], how: Released, run: str, profile_name: str,
                     only: Iterable[str] = ()) -> None:
    """Measure what is missing of the tables of a model of others, `opened` once the data are known
    to be there, under the name `run`, on a profile's data; `only` names suites, by default all.
    What needs the characters of each token is left out where the tokenizer does not tell them.
    Errors as those of `runs.measure_run`."""
    if _is_run(run, profile_name):
        raise ConfigError(f"{run} is a run of the profile {profile_name}: rename the file")
    if unknown := [suite for suite in only if suite not in SUITES]:
        raise ConfigError(f"--only {','.join(unknown)}: that is measured of the base alone")
    suites = {suite: SUITES[suite] for suite in only or SUITES}
    data = data_digests(profile_name, suites)
    if "benchmarks" in suites:
        datasets.benchmarks(profile_name)  # tells what is left out
    clip = opened()
    try:
        align([], [], clip.tokenizer)
    except ConfigError as error:
        left = [suite for suite in suites if suite in OF_CAPTIONS and suite != "phrases"]
        suites = {suite: suites[suite] for suite in suites if suite not in left}
        print(f"Left out: {', '.join(left)}. {error}", flush=True)
    code = [file_hash(Path(module.__file__)) for module in (released, weight_files)]
    read = f"{clip.weights_id} {clip.activation} {how.alpha} {how.share} {how.processor} {code}"
    digest = hashlib.sha256(read.encode()).hexdigest()
    encoder = cache(lambda: Encoder(clip, profile_name))
    runs.measure_suites(run, profile_name, 0, suites, digest, data, encoder,
                        settings={"source": Path(how.source).name})
