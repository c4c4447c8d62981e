"""Register the suites of measurements, and measure and store their tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from cae_lib import keys, store
from cae_lib.config import paths
from cae_lib.runtime import current_provenance, write_atomic
from cae_lib.store import Tables

if TYPE_CHECKING:
    from cae_lib.evaluation.encoder import Encoder


class Suite(NamedTuple):
    """A measurement that computes one table about a model on the data of a profile.

    Attributes:
        name: Name of the suite and of its table.
        module: Module of the function; it is imported when the suite is called.
        function: Name of the function that measures. Its arguments are an `Encoder` and the name of
            a profile, and it returns the table. If the profile lacks the data, it returns an empty
            table or raises a MissingDataError.
    """

    name: str
    module: str
    function: str

    def __call__(self, encoder: Encoder, profile_name: str) -> Tables:
        """Measure a model on the data of a profile, and return the table by its name."""
        measure = getattr(import_module(self.module), self.function)
        return {self.name: measure(encoder, profile_name)}


RUN_SUITES: dict[str, Suite] = {}
"""The suites by which every model can be measured, by name."""

BASE_ONLY_SUITES: dict[str, Suite] = {}
"""The further suites by which only the base model is measured, by name."""

ALL_SUITES: dict[str, Suite] = {}
"""All suites by name: `RUN_SUITES`, `BASE_ONLY_SUITES` and "validation", whose scores serve to
choose settings."""


def register_suite(name: str, module: str, function: str, *, base_only: bool = False) -> None:
    """Register a suite, or replace the one with the same name.

    The version of the suite has to be listed in `cae_lib.keys.SUITE_VERSIONS`.

    Args:
        name: Name of the suite and of its table.
        module: See `Suite`.
        function: See `Suite`.
        base_only: Whether only the base model is measured by this suite, instead of every run.
    """
    for suites in (RUN_SUITES, BASE_ONLY_SUITES):
        suites.pop(name, None)
    ALL_SUITES[name] = Suite(name, module, function)
    (BASE_ONLY_SUITES if base_only else RUN_SUITES)[name] = ALL_SUITES[name]


for _name, _module, _function in (
    ("benchmarks", "choice", "benchmark_table"),
    ("retrieval", "retrieval", "retrieval_table"),
    ("similarity", "text_similarity", "similarity_table"),
    ("zero_shot", "retrieval", "zero_shot_table"),
    ("attribution", "attribution", "coco_attribution_table"),
    ("bindings", "attribution", "coco_binding_table"),
    ("phrases", "text_similarity", "phrase_table"),
):
    register_suite(_name, f"{__package__}.{_module}", _function)
ALL_SUITES["validation"] = Suite("validation", f"{__package__}.validation", "validation_table")


EMPTY_RESULT_SUFFIX = " nothing"
"""Suffix of the key in the marker file of a measurement that gave no rows."""


def measure_if_stale(
    suite: str,
    run: str,
    seed: int,
    profile_name: str,
    key: str,
    compute: Callable[[], Tables],
    *,
    remeasure: bool = False,
    on_request: bool = False,
    **settings: Any,
) -> None:
    """Compute and store the tables of a measurement, unless all are stored with the same key.

    Tables without rows are not stored. Stored tables that the measurement no longer gives are
    removed. A measurement that gave no rows in this clone of the repository is not repeated with
    the same key.

    Args:
        suite: Name of the measurement.
        run: Name of the measured run in tables.
        seed: Seed of the run.
        profile_name: Name of the profile.
        key: Digest of everything that the numbers depend on, see `cae_lib.keys.table_key`.
        compute: Function that measures and returns the tables by name.
        remeasure: Whether stored tables with the same key are computed again if they were computed
            elsewhere than in this clone of the repository.
        on_request: Whether to use the separate store for tables that `cae_lib.results.load`
            computes on request, instead of the tables of the profile.
        **settings: Further entries of the tables' provenance.

    Raises:
        WriteError: If a table cannot be written.
    """
    folder = "own" if on_request else "done"
    marker = paths().cache / profile_name / folder / f"{suite}-{run}-{seed}.key"
    computed_key = marker.read_text(encoding="utf-8") if marker.is_file() else ""
    stored = {
        table: index[run, seed]
        for table, index in store.table_indexes(profile_name, on_request).items()
        if (run, seed) in index and index[run, seed].provenance.get("suite") == suite
    }
    expected = {name for rows in stored.values() for name in rows.provenance["tables"]}
    is_current = all(rows.key == key for rows in stored.values()) and expected == set(stored)
    was_computed_here = computed_key == (key if stored else f"{key}{EMPTY_RESULT_SUFFIX}")
    may_keep_stored = bool(stored) and not remeasure  # tables that came with the clone
    if is_current and (was_computed_here or may_keep_stored):
        return
    start = time.monotonic()
    measured = {name: frame for name, frame in compute().items() if len(frame)}
    entries = {
        "suite": suite,
        "version": keys.SUITE_VERSIONS.get(suite),
        "training": keys.TRAINING_VERSION,
        "tables": sorted(measured),
        "wall_seconds": round(time.monotonic() - start, 1),
        **settings,
    }
    provenance = current_provenance(profile_name, seed, **entries)
    for name, frame in measured.items():
        store.save(
            name,
            run,
            seed,
            frame,
            profile_name,
            key=key,
            provenance=provenance,
            on_request=on_request,
        )
    for name in stored.keys() - measured.keys():
        store.discard(name, run, seed, profile_name, on_request)
    write_atomic(marker, key if measured else f"{key}{EMPTY_RESULT_SUFFIX}")
