"""The registry of suites, which measure a model, and the function that stores their tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from cae_lib import store
from cae_lib.config import paths
from cae_lib.keys import SUITE_VERSIONS, TRAINING_VERSION
from cae_lib.runtime import current_provenance, write_atomic
from cae_lib.store import Tables

if TYPE_CHECKING:
    from cae_lib.evaluation.encoder import Encoder


class Suite(NamedTuple):
    """A measurement of an encoder on the data of a profile, which gives one table.

    Attributes:
        name: Name of the suite and of its table.
        module: Where the function is; imported at the first call.
        function: Name of a function of an encoder and the name of a profile. It returns the table,
            which is empty where the profile has no such data.
    """

    name: str
    module: str
    function: str

    def __call__(self, encoder: Encoder, profile: str) -> Tables:
        """Measure an encoder."""
        measure = getattr(import_module(self.module), self.function)
        return {self.name: measure(encoder, profile)}


SUITES: dict[str, Suite] = {}
"""What is measured of every set of weights."""

BASE_SUITES: dict[str, Suite] = {}
"""What is measured of the base model alone, beside `SUITES`."""

ALL_SUITES: dict[str, Suite] = {}
"""`SUITES`, `BASE_SUITES` and "validation", by which settings are chosen."""


def register(name: str, module: str, function: str, *, base_only: bool = False) -> None:
    """Register a suite; its version has to be in `cae_lib.keys.SUITE_VERSIONS`.

    Args:
        name: Name of the suite, which replaces one of the same name.
        module: See `Suite`.
        function: See `Suite`.
        base_only: Whether the suite is measured of the base model alone, not of every run.
    """
    ALL_SUITES[name] = Suite(name, module, function)
    (BASE_SUITES if base_only else SUITES)[name] = ALL_SUITES[name]


for _name, _module, _function in (
    ("benchmarks", "choice", "benchmark_answers"),
    ("retrieval", "retrieval", "retrieval_table"),
    ("similarity", "text_similarity", "similarity_table"),
    ("zero_shot", "retrieval", "zero_shot_table"),
    ("attribution", "attribution", "coco_attribution_table"),
    ("bindings", "attribution", "coco_binding_table"),
    ("phrases", "text_similarity", "phrase_table"),
):
    register(_name, f"{__package__}.{_module}", _function)
ALL_SUITES["validation"] = Suite("validation", f"{__package__}.validation", "validation_table")


WITHOUT_ROWS = " nothing"
"""What follows the key in the note of a measurement that gave no rows."""


def measure_if_stale(
    suite: str,
    run: str,
    seed: int,
    profile_name: str,
    key: str,
    compute: Callable[[], Tables],
    *,
    fresh: bool = False,
    on_request: bool = False,
    **settings: Any,
) -> None:
    """Compute and stage the tables of one measurement, unless all are stored with this key.

    Args:
        suite: Name of the measurement; its stored tables are removed if it no longer gives them.
        run: Name of what is measured.
        seed: Seed of the run.
        profile_name: Profile of the run.
        key: Digest of everything that the numbers depend on, see `cae_lib.keys.table_key`.
        compute: Function that measures; a table without rows is not stored.
        fresh: Compute stored tables again, unless this clone has computed them itself.
        on_request: Read and store the tables apart from the profile's.
        **settings: Entries of the provenance.
    """
    folder = "own" if on_request else "done"
    marker = paths().cache / profile_name / folder / f"{suite}-{run}-{seed}.key"
    computed_key = marker.read_text(encoding="utf-8") if marker.is_file() else ""
    stored = {
        table: index[run, seed]
        for table, index in store.tables(profile_name, on_request).items()
        if (run, seed) in index and index[run, seed].provenance.get("suite") == suite
    }
    expected = {name for rows in stored.values() for name in rows.provenance["tables"]}
    is_current = all(rows.key == key for rows in stored.values()) and expected == set(stored)
    was_computed_here = computed_key == (key if stored else f"{key}{WITHOUT_ROWS}")
    may_keep_stored = bool(stored) and not fresh  # tables that came with the clone
    if is_current and (was_computed_here or may_keep_stored):
        return
    start = time.monotonic()
    measured = {name: frame for name, frame in compute().items() if len(frame)}
    entries = {
        "suite": suite,
        "version": SUITE_VERSIONS.get(suite),
        "training": TRAINING_VERSION,
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
    write_atomic(marker, key if measured else f"{key}{WITHOUT_ROWS}")
