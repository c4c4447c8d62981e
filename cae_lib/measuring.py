"""Measuring a run of a profile. A table is measured once, until something that decides it changes;
where two processes want the same, one waits. Tables of a variant lie apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cae_lib import store
from cae_lib.data import needs
from cae_lib.data.needs import data_digests, sources_digest
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation import datasets
from cae_lib.evaluation.encoder import Encoder, Weights
from cae_lib.evaluation.suites import ALL_SUITES, BASE_SUITES, SUITES, Suite, measure
from cae_lib.keys import READING_VERSION, digest, table_key
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.external import LORA_ALPHA, ExternalModel, model_loader
from cae_lib.profiles import experiment, find_profile
from cae_lib.runs import (
    checkpoint_path,
    external_model,
    has_training,
    open_run,
    require_data,
    train_run,
    training_inputs,
    weights_of,
)
from cae_lib.runtime import pick_device
from cae_lib.store import Tables
from cae_lib.variants import BASE, CONTROLS, Variant, run_name
from cae_lib.words.alignment import align

CONTROL_SUITES = ("benchmarks", "retrieval")
OF_CONTENT = ("zero_shot", "heatmaps")
"""Suites that ask what is in a picture, which nobody said of photographs with captions."""


def measure_run(
    name: str,
    profile_name: str,
    seed: int = 0,
    fresh: bool = False,
    only: Iterable[str] = (),
    without: Collection[str] = (),
    **overrides: Any,
) -> None:
    """Measure what is missing of a run's tables (all of them with `fresh`, once a clone).

    The run may be one of `CONTROLS` or "base"; `only` names suites, by default all but `without`,
    of a control `CONTROL_SUITES`. ConfigError for an unknown run, profile, setting or suite;
    CheckpointError if the run is not trained; DataError, which says which and how to get them, if
    data are missing.
    """
    known = {**SUITES, **BASE_SUITES} if name == BASE else {**SUITES}
    if find_profile(profile_name).photographs:
        known = {suite: known[suite] for suite in known if suite not in OF_CONTENT}
    everything = [suite for suite in known if suite not in without]
    only = list(only) or (CONTROL_SUITES if name in CONTROLS else everything)
    if unknown := [suite for suite in only if suite not in known]:
        raise ConfigError(
            f"no such measurement: {', '.join(unknown)}; expected some of {', '.join(known)}"
        )
    label = run_name(name, profile_name, **overrides)
    chosen = {suite: known[suite] for suite in only}
    if name not in (BASE, *CONTROLS) and not has_training(name, profile_name, **overrides):
        external = external_model(experiment(name, profile_name, **overrides))
        measure_external(external, label, profile_name, chosen, fresh)
        return
    weights = weights_of(CONTROLS.get(name, name), profile_name, seed, **overrides)
    data = data_digests(profile_name, only, needs.source_of_weights(weights.model, weights.source))
    model = model_digest(weights)
    if name in CONTROLS:
        model = digest(model, "gelu")

    @cache
    def encoder() -> Encoder:
        """The model, loaded only when something has to be computed."""
        return Encoder(open_run(name, profile_name, seed, **overrides), profile_name)

    measure_suites(
        label,
        profile_name,
        seed,
        chosen,
        model,
        data,
        encoder,
        fresh,
        overrides,
    )


def measure_external(
    external: ExternalModel,
    run: str,
    profile_name: str,
    suites: Mapping[str, Suite],
    fresh: bool = False,
    own: bool = False,
) -> None:
    """Measure what is missing of the tables of a model that was not trained here.

    The model is loaded once the data are known to be here. What needs the characters of each token
    is left out where the tokenizer does not tell them.

    Args:
        external: The model.
        run: Its name in tables.
        profile_name: Whose data it is measured on.
        suites: What is measured.
        fresh, own: As for `measure_suites`.

    Raises:
        ConfigError, CheckpointError: As for `load_external`.
        DataError: If data are missing; the message says which and how to get them.
    """
    load = model_loader(external, pick_device())
    data = data_digests(profile_name, suites)
    if "benchmarks" in suites:
        datasets.benchmarks(profile_name)  # tells what is left out
    clip = load()
    try:
        align([], [], clip.tokenizer)
    except ConfigError as error:
        left = [suite for suite in suites if suite in needs.OF_CAPTIONS and suite != "phrases"]
        suites = {suite: suites[suite] for suite in suites if suite not in left}
        print(f"Left out: {', '.join(left)}. {error}", flush=True)
    model = digest(
        clip.weights_id,
        clip.activation,
        LORA_ALPHA,
        external.share,
        external.processor,
        READING_VERSION,
    )
    encoder = cache(lambda: Encoder(clip, profile_name))
    settings = {"source": Path(external.source).name}
    measure_suites(
        run, profile_name, 0, suites, model, data, encoder, fresh, settings=settings, own=own
    )


def compute_table(
    table: str, variant: Variant, profile_name: str, seed: int, hours: float | None = None
) -> None:
    """Train a run, unless it is trained, and measure one table of it, unless that is stored with
    its key among the tables that are stored apart.

    Args:
        table: One of `SUITES`, or of "data" any table that belongs to the data.
        variant: The run, or "base" or "data".
        profile_name, seed: As for `train_run`.
        hours: TooLongError if the training would take longer here; None for no limit.

    Raises:
        DataError, CheckpointError: If data or the weights that the run starts from are missing;
            the message names the command that gets them.
    """
    run, settings, _ = variant
    name = variant.name(profile_name)
    if run == store.DATA:
        measure_data(profile_name, own=True)
        return
    if run != BASE and not has_training(run, profile_name, **settings):
        external = external_model(experiment(run, profile_name, **settings))
        measure_external(external, name, profile_name, {table: ALL_SUITES[table]}, own=True)
        return
    if run == BASE:
        model = model_digest(weights_of(BASE, profile_name, **settings))
    else:
        config = experiment(run, profile_name, seed=seed, **settings)
        require_data(config, checkpoint_path(run, profile_name, seed, **settings))
        model = digest(training_inputs(config))

    def encoder() -> Encoder:
        if run != BASE:
            train_run(run, profile_name, seed, hours=hours, **settings)
        print(f"Measuring {table} of {name}, seed {seed}", flush=True)
        return Encoder(open_run(run, profile_name, seed, **settings), profile_name)

    measure_suites(
        name,
        profile_name,
        seed,
        {table: ALL_SUITES[table]},
        model,
        data_digests(profile_name, [table]),
        encoder,
        settings=settings,
        own=True,
    )


def model_digest(weights: Weights) -> str:
    """Digest of the inputs of a trained run, see `run_inputs`; of other weights that of the file.
    CheckpointError if they are missing."""
    meta = read_meta(weights.source) if isinstance(weights.source, Path) else None
    inputs = meta and meta.extra.get("identity")
    return digest(inputs) if inputs else weights.digest()


def measure_suites(
    run: str,
    profile_name: str,
    seed: int,
    suites: Mapping[str, Suite],
    model: str,
    data: Mapping[str, str],
    encoder: Callable[[], Encoder],
    fresh: bool = False,
    settings: Mapping[str, Any] | None = None,
    own: bool = False,
) -> None:
    """Measure what is missing of some suites under the name `run`. `model` is the digest of the
    run's inputs or of downloaded weights, `data` that of the data of each suite; real data that may
    be absent are left out with a message. `own` stores the tables apart from the profile's."""
    for name, suite in suites.items():
        try:
            measure(
                name,
                run,
                seed,
                profile_name,
                table_key(name, model, data[name]),
                lambda measure=suite: _numbers(measure(encoder(), profile_name), profile_name),
                fresh=fresh,
                own=own,
                model=model[:12],
                data=data[name][:12],
                settings=dict(settings or {}),
            )
        except DataError as error:
            if not (find_profile(profile_name).real and needs.may_be_absent(name)):
                raise
            print(f"Left out: {name}. {error}", flush=True)


def _numbers(tables: Tables, profile_name: str) -> Tables:
    """Tables without the words of captions, where these are people's and not ours to store."""
    if not find_profile(profile_name).photographs:
        return tables
    return {name: frame.drop(columns="word", errors="ignore") for name, frame in tables.items()}


def measure_data(profile_name: str, fresh: bool = False, own: bool = False) -> None:
    """Measure the tables that belong to the data and to no model; DataError if data are missing.
    `own` stores them apart from the profile's."""
    from cae_lib.evaluation.items import data_tables

    suites = ("benchmarks", *needs.SUITES)
    digests = sorted(data_digests(profile_name, suites, needs.TRAINING).items())
    if find_profile(profile_name).real:
        digests.append(("", sources_digest(needs.check_sources(needs.TRAINING), needs.TRAINING)))
    data = hashlib.sha256(repr(digests).encode()).hexdigest()
    measure(
        store.DATA,
        store.DATA,
        0,
        profile_name,
        table_key(store.DATA, "", data),
        lambda: data_tables(profile_name),
        fresh=fresh,
        own=own,
        data=data[:12],
    )
