"""Measure runs, models that were not trained here, and the datasets of a profile.

A stored result is reused until its key changes, which covers everything that the numbers depend on.
There is no lock: two processes that request the same missing result at once both compute it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cae_bench.datasets import load_benchmarks, skip_if_missing
from cae_bench.encoder import Encoder
from cae_bench.missing import require_weights
from cae_lab import needs, store
from cae_lab.names import DATA_RUN
from cae_lab.provenance import current_provenance
from cae_lab.runs import Profile, Run, is_run
from cae_lab.suites import DATA_VERSION, SUITES, Suite, suites_of
from cae_lib.errors import ConfigError
from cae_lib.models.clip import Clip
from cae_lib.models.external import (
    LORA_ALPHA,
    ExternalModel,
    model_loader,
)
from cae_lib.runtime import pick_device
from cae_lib.training.inputs import TRAINING_VERSION, digest
from cae_lib.words.alignment import align


def is_measured(run: Run, suite: Suite) -> bool:
    """Return whether the stored result of a run that is trained here has its present key."""
    # The key of `stored_digest` without reading the checkpoint, which need not exist any more.
    data = needs.data_digests(run.profile, [suite.reads])
    key = suite.key(digest(run.inputs()), data[suite.reads])
    return _is_stored(suite.name, run.name, run.seed, run.profile, key, remeasure=False)


def measure(
    run: Run,
    suites: Iterable[Suite],
    *,
    may_be_missing: bool = True,
    remeasure: bool = False,
) -> None:
    """Measure the results of a run that are missing or out of date; nothing is trained.

    With `may_be_missing`, suites whose real data are missing are left out. With `remeasure`, what
    is packed in the records is measured, too, unless it was measured here.
    """
    suites, profile = list(suites), run.profile
    if not may_be_missing:
        needs.require_some_data(profile, suites)
    if run.is_external:
        measure_external(
            run.external(),
            run.name,
            profile,
            suites,
            may_be_missing=may_be_missing,
            remeasure=remeasure,
        )
        return
    require_weights(run.weights.model, run.weights.source)
    model = run.stored_digest()

    @cache
    def encoder() -> Encoder:
        # Called, and so loaded, only if something has to be computed.
        print(f"Measuring {run.name}, seed {run.seed}", flush=True)
        return encoder_of(run.open(), profile)

    _measure_suites(
        profile,
        run.name,
        run.seed,
        suites,
        model,
        encoder,
        may_be_missing,
        remeasure,
        run.described(),
    )


def encoder_of(clip: Clip, profile: Profile) -> Encoder:
    """Return an encoder for the data of a profile."""
    # Runs with a locked image tower share all image vectors, so these are stored.
    is_locked = bool(profile.training.get("lock_image"))
    return Encoder(clip, store_images=is_locked, show_progress=profile.is_real)


def measure_external(
    external: ExternalModel,
    name: str,
    profile: Profile,
    suites: Iterable[Suite],
    *,
    may_be_missing: bool = True,
    remeasure: bool = False,
) -> None:
    """Measure what is missing or outdated of a model that was not trained here; see `measure`."""
    suites, load = list(suites), model_loader(external, pick_device())
    if any(suite.reads == "benchmarks" for suite in suites):
        load_benchmarks(profile.datasets)  # tells what is left out, before weights are read
    # The key needs the weights, so they are loaded even if nothing has to be measured.
    clip = load()
    try:
        # Raises ConfigError for a tokenizer that does not tell which characters a token stands for.
        align([], [], clip.tokenizer)
    except ConfigError as error:
        left = [suite.name for suite in suites if suite.needs_word_tokens]
        suites = [suite for suite in suites if not suite.needs_word_tokens]
        if left:
            print(f"Left out: {', '.join(left)}. {error}", flush=True)
    model = digest(
        clip.weights_id,
        # The same weights give other numbers with GELU than with QuickGELU.
        clip.activation,
        LORA_ALPHA,
        external.weights_share,
        external.processor,
    )
    inputs = {"settings": {"source": Path(external.source).name}}
    encoder = cache(lambda: encoder_of(clip, profile))
    _measure_suites(profile, name, 0, suites, model, encoder, may_be_missing, remeasure, inputs)


def measure_model(
    name: str,
    profile: Profile,
    seed: int = 0,
    suites: Collection[Suite] = (),
    model: str | None = None,
    activation: str | None = None,
    processor: str | None = None,
    **settings: Any,
) -> str:
    """Measure what is missing of a run or another model, and return its name in tables.

    `seed` and `settings` are those of a run; `model`, `activation` and `processor` those of an
    `ExternalModel`.
    """
    title = name_in_tables(name)
    # Results of a file `clip-ft.pt` would replace those of the run `clip-ft`.
    if not is_run(name, profile) and is_run(title, profile):
        raise ConfigError(f"{title} is a run of the profile {profile.name}: rename the file")
    needs.require_some_data(profile, suites)
    if is_run(name, profile):
        run = profile.run(name, seed, **settings)
        measure(run, suites or suites_of(run))
        return run.name
    suites = suites or [
        each for each in SUITES.values() if "runs" in each.of and each.is_of(profile)
    ]
    measure_external(
        ExternalModel(name, model, activation, processor=processor), title, profile, suites
    )
    return title


def name_in_tables(name: str) -> str:
    """Return the name of a model that is no run: of a path the stem, and "-" for "/" and ":"."""
    stem = Path(name).stem if Path(name).exists() else name
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")


def _measure_suites(
    profile: Profile,
    name: str,
    seed: int,
    suites: Collection[Suite],
    model: str,
    encoder: Callable[[], Encoder],
    may_be_missing: bool,
    remeasure: bool,
    inputs: Mapping[str, Any],
) -> None:
    """Measure and store some suites of a model, unless they are stored with the same key.

    `model` is a digest, `name` the name in tables, and `inputs` go into the provenance.
    """
    data = needs.data_digests(profile, (suite.reads for suite in suites))
    for suite in suites:
        key = suite.key(model, data[suite.reads])
        if _is_stored(suite.name, name, seed, profile, key, remeasure):
            continue
        # Suppresses a MissingDataError, after which the other suites go on.
        with skip_if_missing(suite.name, may_be_missing and profile.is_real):
            start = time.monotonic()
            frame = suite(encoder(), profile)
            # Words would give away captions of photographs, which cannot be redistributed.
            if profile.built_from_photographs:
                frame = frame.drop(columns="word", errors="ignore")
            provenance = current_provenance(
                profile.name,
                seed,
                suite=suite.name,
                version=suite.version,
                training=TRAINING_VERSION,
                wall_seconds=round(time.monotonic() - start, 1),
                model=model[:12],
                data=data[suite.reads][:12],
                **inputs,
            )
            store.save(
                suite.name, profile, name, seed, frame, key=key, provenance=provenance, suite=suite
            )


def _is_stored(
    table: str, name: str, seed: int, profile: Profile, key: str, remeasure: bool
) -> bool:
    """Return whether a result is stored with a key, here or, unless `remeasure`, in the records."""
    # A file without rows counts: it says that the suite was measured and gave none.
    places = [store.result_path(table, name, seed, profile)]
    places += [] if remeasure else [store.packed_path(table, profile)]
    found = (store.read_index(path).get((name, seed)) for path in places)
    return any(rows is not None and rows.key == key for rows in found)


def measure_data(profile: Profile, *, remeasure: bool = False) -> None:
    """Measure the tables that describe a profile's data, for the run "data"; see `measure`."""
    from cae_lab.items import data_tables

    data = needs.all_data_digest(profile)
    key = digest(DATA_RUN, DATA_VERSION, "", data)
    # Which tables there are depends on the data, but there always is "subsets", whose provenance
    # lists them.
    rows = store.index_of("subsets", profile).get((DATA_RUN, 0))
    tables = rows.provenance["tables"] if rows else ["subsets"]
    if all(_is_stored(name, DATA_RUN, 0, profile, key, remeasure) for name in tables):
        return
    start = time.monotonic()
    tables = {name: frame for name, frame in data_tables(profile).items() if len(frame)}
    provenance = current_provenance(
        profile.name,
        0,
        suite=DATA_RUN,
        version=DATA_VERSION,
        training=TRAINING_VERSION,
        tables=sorted(tables),
        wall_seconds=round(time.monotonic() - start, 1),
        data=data[:12],
    )
    for name, frame in tables.items():
        store.save(name, profile, DATA_RUN, 0, frame, key=key, provenance=provenance)
