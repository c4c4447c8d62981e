"""Measure runs, models that were not trained here, and the datasets of a profile.

A stored result is reused until its key changes, which covers everything that the numbers depend on.
There is no lock: two processes that request the same missing result at once both compute it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any

from cae_bench.datasets import load_benchmarks, skip_if_missing
from cae_bench.encoder import Encoder
from cae_lab import required_data, store
from cae_lab.names import DATA_RUN
from cae_lab.opening import OtherModel, model_opener
from cae_lab.provenance import current_provenance
from cae_lab.runs import Profile, Run, is_run
from cae_lab.suites import DATA_VERSION, SUITES, Suite, suites_of
from cae_lib.errors import ConfigError
from cae_lib.models.clip import Clip
from cae_lib.training.inputs import TRAINING_VERSION, digest
from cae_lib.words.alignment import align


def is_measured(run: Run, suite: Suite) -> bool:
    """Return whether the stored result of a run that is trained here has its present key."""
    # Without reading the checkpoint, which need not exist any more.
    data = required_data.data_digests(run.profile, [suite.reads])
    key = suite.key(run.trained_digest(), data[suite.reads])
    return _is_stored(suite.name, run.name, run.seed, run.profile, key, remeasure=False)


def measure_model(model: Run | OtherModel, suites: Collection[Suite] = ()) -> None:
    """Measure what is missing of a model, by default by all suites that fit its kind."""
    profile = model.profile
    # Results of a file `clip-ft.pt` would replace those of the run `clip-ft`.
    if isinstance(model, OtherModel) and is_run(model.name, profile):
        raise ConfigError(f"{model.name} is a run of the profile {profile.name}: rename the file")
    required_data.require_some_data(profile, suites)
    if isinstance(model, Run):
        measure(model, suites or suites_of(model))
        return
    model_opener(model)  # raises errors of its options before data are read
    suites = suites or [
        suite for suite in SUITES.values() if "runs" in suite.of and suite.is_of(profile)
    ]
    if any(suite.reads == "benchmarks" for suite in suites):
        load_benchmarks(profile.datasets)  # tells what is left out, before weights are read
    measure(model, suites)


def measure(
    model: Run | OtherModel,
    suites: Iterable[Suite],
    *,
    may_be_missing: bool = True,
    remeasure: bool = False,
) -> int:
    """Measure the results of a model that are missing or out of date, and return how many.

    Nothing is trained.

    With `may_be_missing`, suites whose real data are missing are left out. With `remeasure`, what
    is packed in the records is measured, too, unless it was measured here.
    """
    suites, profile = list(suites), model.profile
    if not may_be_missing:
        required_data.require_some_data(profile, suites)
    if isinstance(model, Run) and model.is_external:
        model = OtherModel(model.external(), model.name, profile)
    if isinstance(model, OtherModel):
        suites = _suites_of_tokenizer(suites, model.open().tokenizer)
    model_digest = model.stored_digest()

    @cache
    def encoder() -> Encoder:
        # Called, and so loaded, only if something has to be computed.
        print(f"Measuring {model.name}, seed {model.seed}", flush=True)
        return encoder_of(model.open(), profile)

    data = required_data.data_digests(profile, (suite.reads for suite in suites))
    n_measured = 0
    for suite in suites:
        key = suite.key(model_digest, data[suite.reads])
        if _is_stored(suite.name, model.name, model.seed, profile, key, remeasure):
            continue
        digests = {"model": model_digest[:12], "data": data[suite.reads][:12]}
        # Suppresses a MissingDataError, after which the other suites go on.
        with skip_if_missing(suite.name, may_be_missing and profile.is_real):
            _measure_suite(model, suite, encoder, key, digests)
            n_measured += 1
    return n_measured


def _suites_of_tokenizer(suites: list[Suite], tokenizer: Any) -> list[Suite]:
    """Leave out suites that need to know which characters a token of the tokenizer stands for."""
    try:
        align([], [], tokenizer)
    except ConfigError as error:
        left = [suite.name for suite in suites if suite.needs_word_tokens]
        if left:
            print(f"Left out: {', '.join(left)}. {error}", flush=True)
        return [suite for suite in suites if not suite.needs_word_tokens]
    return suites


def _measure_suite(
    model: Run | OtherModel,
    suite: Suite,
    encoder: Callable[[], Encoder],
    key: str,
    digests: Mapping[str, str],
) -> None:
    """Measure a model by a suite, and store the result; `digests` go into the provenance."""
    name, seed, profile = model.name, model.seed, model.profile
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
        **digests,
        **model.described(),
    )
    store.save(suite.name, profile, name, seed, frame, key=key, provenance=provenance, suite=suite)


def encoder_of(clip: Clip, profile: Profile) -> Encoder:
    """Return an encoder for the data of a profile."""
    # Runs with a locked image tower share all image vectors, so these are stored.
    is_locked = bool(profile.training.get("lock_image"))
    return Encoder(clip, store_images=is_locked, show_progress=profile.is_real)


def _is_stored(
    table: str, name: str, seed: int, profile: Profile, key: str, remeasure: bool
) -> bool:
    """Return whether a result is stored with a key, here or, unless `remeasure`, in the records."""
    # A file without rows counts: it says that the suite was measured and gave none.
    paths = [store.result_path(table, name, seed, profile)]
    paths += [] if remeasure else [store.packed_path(table, profile)]
    stored_rows = (store.read_index(path).get((name, seed)) for path in paths)
    return any(rows is not None and rows.key == key for rows in stored_rows)


def measure_data(profile: Profile, *, remeasure: bool = False) -> None:
    """Measure the tables that describe a profile's data, for the run "data"; see `measure`."""
    from cae_lab.data_tables import data_tables

    data = required_data.all_data_digest(profile)
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
