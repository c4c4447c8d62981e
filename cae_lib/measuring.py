"""Measure runs, models that were not trained here, and the datasets of a profile.

A stored table is reused until one of its inputs changes. Processes do not wait for each other: if
two request the same missing table at once, both compute it. The tables of a run with other settings
are stored under a name that contains these settings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from cae_lib import store
from cae_lib.config import Experiment
from cae_lib.data import needs
from cae_lib.data.needs import data_digests, sources_digest
from cae_lib.errors import CheckpointError, ConfigError
from cae_lib.evaluation import datasets
from cae_lib.evaluation.encoder import Encoder, Weights
from cae_lib.evaluation.suites import (
    ALL_SUITES,
    BASE_ONLY_SUITES,
    RUN_SUITES,
    Suite,
    measure_if_stale,
)
from cae_lib.keys import EXTERNAL_LOADER_VERSION, digest, run_inputs, table_key, text_versions
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.external import LORA_ALPHA, ExternalModel, model_loader
from cae_lib.profiles import experiment, find_profile
from cae_lib.runs import (
    external_model,
    has_training,
    is_run,
    open_run,
    require_training_inputs,
    train_run,
    training_inputs,
    weights_of,
)
from cae_lib.runtime import pick_device
from cae_lib.store import Tables
from cae_lib.training.state import describe_changes
from cae_lib.variants import BASE, GELU_CONTROLS, SETTINGS, Variant, parse_run_name, run_name
from cae_lib.words.alignment import align

GELU_SUITES = ("benchmarks", "retrieval")
"""Suites that are measured for the `GELU_CONTROLS`, models that are evaluated with GELU."""

CONTENT_SUITES = ("zero_shot", "heatmaps")
"""Suites that need annotations of the image content. Photographs with captions have none."""


def measure_run(
    name: str,
    profile_name: str,
    seed: int = 0,
    remeasure: bool = False,
    only: Iterable[str] = (),
    without: Collection[str] = (),
    **overrides: Any,
) -> None:
    """Measure the tables of a run that are missing or out of date.

    Nothing is trained. Suites whose real data are missing are left out with a message.

    Args:
        name: Name of the run, which may be one of `GELU_CONTROLS` or "base".
        profile_name: Name of the profile.
        seed: Seed of the run. Ignored for a run with 0 steps, whose tables are stored with the
            seed 0.
        remeasure: Measure stored tables again, unless this clone measured them itself.
        only: Names of the suites to measure. If it is empty, `GELU_SUITES` are measured for one of
            `GELU_CONTROLS`, and all available suites except `without` for any other run.
        without: Names of suites to leave out. Ignored for `GELU_CONTROLS` and if `only` is not
            empty.
        **overrides: Settings that differ from the profile's.

    Raises:
        ConfigError: If the run, the profile, a setting or a suite is unknown.
        CheckpointError: If the run is not trained, or its weights are missing or damaged.
        DataError: If data are malformed, or if generated data or downloaded weights are missing.
        WriteError: If a table cannot be written.
    """
    available = {**RUN_SUITES, **BASE_ONLY_SUITES} if name == BASE else {**RUN_SUITES}
    if find_profile(profile_name).built_from_photographs:
        available = {suite: available[suite] for suite in available if suite not in CONTENT_SUITES}
    everything = [suite for suite in available if suite not in without]
    only = list(only) or (GELU_SUITES if name in GELU_CONTROLS else everything)
    if unknown := [suite for suite in only if suite not in available]:
        raise ConfigError(
            f"no such measurement: {', '.join(unknown)}; expected some of {', '.join(available)}"
        )
    label = run_name(name, profile_name, **overrides)
    selected = {suite: available[suite] for suite in only}
    if name not in (BASE, *GELU_CONTROLS) and not has_training(name, profile_name, **overrides):
        external = external_model(experiment(name, profile_name, **overrides))
        measure_external(external, label, profile_name, selected, remeasure)
        return
    weights = weights_of(GELU_CONTROLS.get(name, name), profile_name, seed, **overrides)
    needs.require_weights(weights.model, weights.source)
    data = data_digests(profile_name, only)
    model = model_digest(weights)
    if name in GELU_CONTROLS:
        model = digest(model, "gelu")
    trained, config = GELU_CONTROLS.get(name, name), None
    if has_training(trained, profile_name, **overrides):
        config = experiment(trained, profile_name, **overrides | {"seed": seed})
        require_current_weights(weights, config)

    @cache
    def encoder() -> Encoder:
        """Load the model, which happens only if something has to be computed."""
        return Encoder(open_run(name, profile_name, seed, **overrides), profile_name)

    measure_suites(
        label,
        profile_name,
        seed,
        selected,
        model,
        data,
        encoder,
        remeasure,
        described(config),
    )


def measure_external(
    external: ExternalModel,
    run: str,
    profile_name: str,
    suites: Mapping[str, Suite],
    remeasure: bool = False,
    on_request: bool = False,
) -> None:
    """Measure the missing or outdated tables of a model that was not trained here.

    The model is loaded even if no table has to be measured. Tables are stored with the seed 0.
    Suites that need the characters of each token are left out, with a message, if the tokenizer
    does not provide them.

    Args:
        external: How to load the model.
        run: Name of the model in tables.
        profile_name: Name of the profile whose data the model is measured on.
        suites: The suites to measure, by name.
        remeasure: Measure stored tables again, unless this clone measured them itself.
        on_request: Store the tables apart from the profile's, and raise an error for missing
            data.

    Raises:
        ConfigError: As for `load_external`.
        CheckpointError: As for `load_external`.
        DataError: If data are malformed, or if generated data are missing; with `on_request`,
            if any data are missing.
        WriteError: If a table cannot be written.
    """
    load = model_loader(external, pick_device())
    data = data_digests(profile_name, suites)
    if "benchmarks" in suites:
        datasets.load_benchmarks(profile_name)  # tells what is left out
    clip = load()
    try:
        align([], [], clip.tokenizer)
    except ConfigError as error:
        aligned = {*needs.COCO_CAPTION_SUITES} - {"phrases"}  # they need the tokens of each word
        left = [suite for suite in suites if suite in aligned]
        suites = {suite: suites[suite] for suite in suites if suite not in left}
        if left:
            print(f"Left out: {', '.join(left)}. {error}", flush=True)
    model = digest(
        clip.weights_id,
        clip.activation,
        LORA_ALPHA,
        external.weights_share,
        external.processor,
        EXTERNAL_LOADER_VERSION,
    )
    encoder = cache(lambda: Encoder(clip, profile_name))
    inputs = {"settings": {"source": Path(external.source).name}}
    measure_suites(
        run,
        profile_name,
        0,
        suites,
        model,
        data,
        encoder,
        remeasure,
        inputs=inputs,
        on_request=on_request,
    )


def measure_model(
    name: str,
    profile_name: str,
    seed: int = 0,
    only: Collection[str] = (),
    model: str | None = None,
    activation: str | None = None,
    processor: str | None = None,
    **overrides: Any,
) -> str:
    """Measure the missing or outdated tables of a run, or of another model.

    Args:
        name: Name of a run of the profile, or a model that `load_external` reads, in a form that
            `external.MODEL_SOURCE_HELP` describes.
        profile_name: Name of the profile.
        seed: Seed, for a run.
        only: Names of the suites to measure. By default, these are the suites that `measure_run`
            selects for a run, and all `RUN_SUITES` for another model.
        model: See `ExternalModel.architecture`; ignored for a run.
        activation: See `ExternalModel.activation`; ignored for a run.
        processor: See `ExternalModel.processor`; ignored for a run.
        **overrides: Settings that differ from the profile's, for a run.

    Returns:
        The name of the model in tables.

    Raises:
        ConfigError: If a suite is unknown or not measured for this model, or if a model that is not
            a run would have the name of a run in tables.
        MissingDataError: If none of the data of a suite in `only` are on this machine.
        CaeError: Any other error of `measure_run` or `measure_external`.
    """
    if unknown := [suite for suite in only if suite not in ALL_SUITES]:
        raise ConfigError(
            f"no such measurement: {', '.join(unknown)}; expected some of {', '.join(ALL_SUITES)}"
        )
    title = name_in_tables(name, profile_name, **overrides)
    if is_run(name, profile_name):
        run, settings = parse_run_name(name, profile_name)
        needs.require_some_data(profile_name, only)
        measure_run(run, profile_name, seed, only=only, **settings | overrides)
        return title
    if is_run(title, profile_name):
        raise ConfigError(f"{title} is a run of the profile {profile_name}: rename the file")
    if unknown := [suite for suite in only if suite not in RUN_SUITES]:
        raise ConfigError(f"{', '.join(unknown)}: that is measured of the base alone")
    needs.require_some_data(profile_name, only)
    external = ExternalModel(name, model, activation, processor=processor)
    suites = {suite: RUN_SUITES[suite] for suite in only or RUN_SUITES}
    measure_external(external, title, profile_name, suites)
    return title


def name_in_tables(name: str, profile_name: str, **overrides: Any) -> str:
    """Return the name of a run, or of any other model, in tables and file names.

    For another model, this is the given name or, if that is an existing path, the name of the file
    or folder without its suffix; "-" replaces characters such as "/" and ":".

    Args:
        name: Name of a run of the profile, or another model as `measure_model` takes it.
        profile_name: Name of the profile.
        **overrides: Settings that differ from the profile's, for a run; the name contains them.

    Raises:
        ConfigError: If the profile, or a setting in the name, is unknown.
    """
    if is_run(name, profile_name):
        run, settings = parse_run_name(name, profile_name)
        return run_name(run, profile_name, **settings | overrides)
    stem = Path(name).stem if Path(name).exists() else name
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")


def compute_table(
    table_name: str, variant: Variant, profile_name: str, seed: int, hours: float | None = None
) -> None:
    """Train a run if needed, measure one table, and store it apart from the profile's tables.

    A finished training and a stored table are reused if their inputs have not changed.

    Args:
        table_name: Name of the table and of its suite, one of `ALL_SUITES`. For the run "data", the
            argument is ignored and all tables that describe the data are measured.
        variant: The run and its changed settings. The run may also be "base" or "data".
        profile_name: Name of the profile.
        seed: Seed of the run. Ignored for "data" and for a run with 0 steps, whose tables are
            stored with the seed 0.
        hours: The longest time in hours that the training may take on this machine; None for no
            limit.

    Raises:
        ConfigError: If the run or a setting is unknown.
        DataError: If data are malformed, or if data or downloaded weights are missing; the message
            then says how to get them.
        CheckpointError: If the base model or other weights that are needed are missing or damaged.
        NotFiniteError: If a loss or gradient of the training is not finite.
        TimeLimitError: If the training would take more than `hours`.
        WriteError: If a checkpoint or a table cannot be written.
    """
    run, settings, _ = variant
    name = variant.name(profile_name)
    if run == store.DATA_RUN:
        measure_data(profile_name, on_request=True)
        return
    needs.require_some_data(profile_name, [table_name])
    if run != BASE and not has_training(run, profile_name, **settings):
        external = external_model(experiment(run, profile_name, **settings))
        measure_external(
            external,
            name,
            profile_name,
            {table_name: ALL_SUITES[table_name]},
            on_request=True,
        )
        return
    config = None
    if run == BASE:
        model = model_digest(weights_of(BASE, profile_name, **settings))
    else:
        config = experiment(run, profile_name, seed=seed, **settings)
        require_training_inputs(config)
        model = digest(training_inputs(config))

    def encoder() -> Encoder:
        if run != BASE:
            train_run(run, profile_name, seed, hours=hours, **settings)
        print(f"Measuring {table_name} of {name}, seed {seed}", flush=True)
        return Encoder(open_run(run, profile_name, seed, **settings), profile_name)

    measure_suites(
        name,
        profile_name,
        seed,
        {table_name: ALL_SUITES[table_name]},
        model,
        data_digests(profile_name, [table_name]),
        encoder,
        inputs=described(config),
        on_request=True,
    )


def require_current_weights(weights: Weights, config: Experiment) -> None:
    """Check that the weights of a run were trained with its present settings and versions.

    Weights that do not say how they were trained are not checked. Nor are the training data and the
    first weights, which `train_run` compares.

    Raises:
        CheckpointError: If the settings or a version have changed since.
    """
    meta = read_meta(weights.source) if isinstance(weights.source, Path) else None
    inputs = meta and meta.extra.get("identity")
    if not inputs:
        return
    now = run_inputs(config, inputs.get("training data", ""), inputs.get("first weights", ""))
    if changes := describe_changes(inputs, now):
        raise CheckpointError(
            f"{weights.source} is out of date: {changes}. Run `cae train {config.name} --profile "
            f"{config.profile} --seed {config.seed}` with the options that it was trained with"
        )


def described(config: Experiment | None) -> dict[str, Any]:
    """Return what the provenance of a trained run's tables says of its inputs; {} for no run.

    `store.describe_staleness` compares it with the run's settings in the profile.
    """
    if config is None:
        return {}
    settings = {key: value for key, value in config.changed().items() if key in SETTINGS}
    return {"settings": settings, "text": text_versions(config)}


def model_digest(weights: Weights) -> str:
    """Return a digest that identifies the weights of a model.

    For a trained run this is the `digest` of its `run_inputs`, 12 hexadecimal digits; for other
    weights it is `Weights.digest`, 64 digits.

    Raises:
        CheckpointError: If the weights are missing or damaged, or cannot be downloaded.
    """
    meta = read_meta(weights.source) if isinstance(weights.source, Path) else None
    inputs = meta and meta.extra.get("identity")
    return digest(inputs) if inputs else weights.digest()


def measure_suites(
    run: str,
    profile_name: str,
    seed: int,
    suites: Mapping[str, Suite],
    model_digest: str,
    data_digests: Mapping[str, str],
    load_encoder: Callable[[], Encoder],
    remeasure: bool = False,
    inputs: Mapping[str, Any] | None = None,
    on_request: bool = False,
) -> None:
    """Measure and store the tables of some suites, unless they are stored and up to date.

    A suite whose real data are missing on this machine is left out with a message, unless
    `on_request` is true.

    Args:
        run: Name of the run in tables.
        profile_name: Name of the profile.
        seed: Seed of the run.
        suites: The suites to measure, by name.
        model_digest: Digest that identifies the model, as the function `model_digest` returns it
            for runs.
        data_digests: Digest of the data that each suite reads, by the name of the suite.
        load_encoder: Function that returns the model's encoder; called once for each suite that is
            computed.
        remeasure: Measure stored tables again, unless this clone measured them itself.
        inputs: Further inputs that are recorded in the provenance; None for none.
        on_request: Store the tables apart from the profile's, and raise an error for missing
            data.

    Raises:
        DataError: If data are malformed, or if generated data are missing; with `on_request`,
            if any data are missing.
        WriteError: If a table cannot be written.
    """
    may_be_missing = find_profile(profile_name).is_real and not on_request
    for name, suite in suites.items():
        with datasets.skip_if_missing(name, may_be_missing):
            measure_if_stale(
                name,
                run,
                seed,
                profile_name,
                table_key(name, model_digest, data_digests[name]),
                partial(_measure_suite, suite, load_encoder, profile_name),
                remeasure=remeasure,
                on_request=on_request,
                model=model_digest[:12],
                data=data_digests[name][:12],
                **(inputs or {}),
            )


def _measure_suite(suite: Suite, encoder: Callable[[], Encoder], profile_name: str) -> Tables:
    """Measure a suite, and return its tables as they are stored."""
    return _without_captions(suite(encoder(), profile_name), profile_name)


def _without_captions(tables: Tables, profile_name: str) -> Tables:
    """Remove the column `word` from measured tables if the captions are those of photographs.

    People wrote these captions, and we cannot redistribute them. Numbers stay, such as scores.

    Args:
        tables: The tables of one suite, by name.
        profile_name: Name of the profile whose captions were measured.

    Returns:
        The tables to store; for synthetic scenes and real datasets they are unchanged.
    """
    if not find_profile(profile_name).built_from_photographs:
        return tables
    return {name: frame.drop(columns="word", errors="ignore") for name, frame in tables.items()}


def measure_data(profile_name: str, remeasure: bool = False, on_request: bool = False) -> None:
    """Measure and store the tables that describe a profile's data, unless they are up to date.

    These tables involve no model; `cae_lib.evaluation.items.data_tables` lists them. They are
    stored for the run "data".

    Args:
        profile_name: Name of the profile.
        remeasure: Also measure tables that are up to date, unless this clone measured them itself.
        on_request: Store the tables apart from the profile's.

    Raises:
        DataError: If data are malformed, or if generated data are missing.
        WriteError: If a table cannot be written.
    """
    from cae_lib.evaluation.items import data_tables

    suites = ("benchmarks", *needs.SOURCES_OF_SUITE)
    digests = sorted(data_digests(profile_name, suites).items())
    if find_profile(profile_name).is_real:
        digests.append(
            (
                "",
                sources_digest(
                    needs.source_reports(needs.TRAINING_SOURCES), needs.TRAINING_SOURCES
                ),
            )
        )
    data = hashlib.sha256(repr(digests).encode()).hexdigest()
    measure_if_stale(
        store.DATA_RUN,
        store.DATA_RUN,
        0,
        profile_name,
        table_key(store.DATA_RUN, "", data),
        lambda: data_tables(profile_name),
        remeasure=remeasure,
        on_request=on_request,
        data=data[:12],
    )
