"""Models of others: those of `data/sources.yml` by name, opened, compared with what they started
from, and measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

from cae_lib.commands.options import REAL, is_run
from cae_lib.commands.scores import stored_scores, tell
from cae_lib.data.completeness import check
from cae_lib.data.needs import OF_CAPTIONS, data_digests, weights_source
from cae_lib.data.sources import Source, load_sources, source
from cae_lib.errors import CheckpointError, ConfigError, DataError
from cae_lib.evaluation import datasets
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.suites import SUITES
from cae_lib.keys import READING_VERSION, digest
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.released import START, Released, difference, reader
from cae_lib.runtime import pick_device
from cae_lib.words.alignment import align

PREFIX = "released-"
"""Beginning of the names of the models of `data/sources.yml` in tables."""

SHOWN = ("benchmarks", "retrieval", "similarity", "attribution")
"""What `cae released` measures."""


def models() -> dict[str, Released]:
    """The models of others in `data/sources.yml` by name in tables, with the place of weights."""
    return {
        f"{PREFIX}{name}": Released(
            **{
                **how,
                "source": how["source"]
                if ":" in how["source"]
                else str(entry.root / how["source"]),
            }
        )
        for entry in load_sources().values()
        for name, how in entry.models.items()
    }


def named(name: str, model: str | None = None, activation: str | None = None) -> Released:
    """How a model of others is read: one of `models`, or what the command line says of it."""
    return models().get(name) or Released(name, model, activation)


def chosen(only: Sequence[str]) -> list[str]:
    """The names of some of `models`, with or without `PREFIX`, or of all; ConfigError for an
    unknown one."""
    names = [f"{PREFIX}{name.removeprefix(PREFIX)}" for name in only] or list(models())
    if unknown := [name for name in names if name not in models()]:
        raise ConfigError(f"no released model {unknown[0]!r}. Known: {', '.join(models())}")
    return names


def owner(name: str) -> Source:
    """The entry of `data/sources.yml` that a released model belongs to."""
    return next(
        entry for entry in load_sources().values() if name.removeprefix(PREFIX) in entry.models
    )


def fetch(names: Iterable[str]) -> None:
    """Get entries of `data/sources.yml`; those that cannot be got are told and left out."""
    from cae_lib.commands.data import get_sources

    for name in dict.fromkeys(names):
        try:
            get_sources(argparse.Namespace(names=[name]))
        except DataError as error:
            print(f"Left out: {error}", flush=True)


def measure_here(names: Iterable[str]) -> list[str]:
    """Measure released models whose weights are here; returns those that cannot be read."""
    datasets.benchmarks(REAL)  # tells what is left out
    broken = []
    for name in names:
        try:
            measure_one(name)
        except CheckpointError as error:
            broken.append(name)
            print(f"Left out: {error}", flush=True)
    return broken


def measure_one(name: str) -> None:
    """Measure a released model whose weights are here; CheckpointError if they cannot be read."""
    print(f"== {name}", flush=True)
    how = models()[name]
    measure(opener(how), how, name, REAL, SHOWN)
    tell(stored_scores(name, REAL, 0))


def opener(how: Released) -> Callable[[], Clip]:
    """What opens a model of others, see `_opened`; errors of `reader` at once."""
    return partial(_opened, how, reader(how, pick_device()))


def _opened(how: Released, read: Callable[[], Clip]) -> Clip:
    """A model of others by its `reader`; says how it is read, and how far it is from the weights
    that most models start from, if they are here. A file that equals them is a CheckpointError."""
    clip = read()
    print(
        f"{Path(how.source).name}: {clip.name}, activation {clip.activation}, "
        f"{len(clip.model.state_dict())} tensors, none missing or left over",
        flush=True,
    )
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


def measure(
    opened: Callable[[], Clip], how: Released, run: str, profile_name: str, only: Iterable[str] = ()
) -> None:
    """Measure what is missing of the tables of a model of others, `opened` once the data are known
    to be there, under the name `run`, on a profile's data; `only` names suites, by default all.
    What needs the characters of each token is left out where the tokenizer does not tell them.
    Errors as those of `measuring.measure_run`."""
    from cae_lib.measuring import measure_suites

    if is_run(run, profile_name):
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
    model = digest(
        clip.weights_id, clip.activation, how.alpha, how.share, how.processor, READING_VERSION
    )
    encoder = cache(lambda: Encoder(clip, profile_name))
    measure_suites(
        run,
        profile_name,
        0,
        suites,
        model,
        data,
        encoder,
        settings={"source": Path(how.source).name},
    )
