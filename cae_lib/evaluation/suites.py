"""Everything that is measured on a set of weights, by name. What a suite imports is imported when
it is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
    """Measures an encoder on the data of a profile; makes the table of its name, which is empty
    where there are no data. `module` and `function` say what does it."""

    name: str
    module: str
    function: str

    def __call__(self, encoder: Encoder, profile: str) -> Tables:
        measure = getattr(import_module(self.module), self.function)
        return {self.name: measure(encoder, profile)}


SUITES: Mapping[str, Suite] = {
    name: Suite(name, f"{__package__}.{module}", function)
    for name, module, function in (
        ("benchmarks", "choice", "benchmark_answers"),
        ("blind", "blind", "average_picture"),
        ("retrieval", "retrieval", "retrieval_table"),
        ("similarity", "text_similarity", "similarity_table"),
        ("zero_shot", "retrieval", "zero_shot_table"),
        ("labels", "retrieval", "label_table"),
        ("attribution", "attribution", "attribution_suite"),
        ("bindings", "attribution", "binding_suite"),
        ("phrases", "text_similarity", "phrase_table"),
        ("faithfulness", "faithfulness", "faithfulness_table"),
        ("heatmaps", "heatmaps", "heatmap_table"),
    )
}
"""What is measured on every set of weights."""

BASE_SUITES = {
    "sensitivity": Suite("sensitivity", f"{__package__}.faithfulness", "sensitivity_table")
}
"""What is measured on the base model alone, beside `SUITES`."""


VALIDATION = Suite("validation", f"{__package__}.validation", "validation_table")
"""What settings are chosen by: measured of the runs of the tuning seed, and on request."""

ALL_SUITES: Mapping[str, Suite] = {**SUITES, **BASE_SUITES, VALIDATION.name: VALIDATION}


def measure(
    suite: str,
    run: str,
    seed: int,
    profile_name: str,
    key: str,
    compute: Callable[[], Tables],
    *,
    fresh: bool = False,
    own: bool = False,
    **settings: Any,
) -> None:
    """Compute and stage the tables of one measurement, unless all are stored with this key.

    Args:
        suite: Name of the measurement; tables of it that it no longer gives are removed.
        run, seed, profile_name: What is measured.
        key: Digest of all that the numbers depend on, see `cae_lib.keys.table_key`.
        compute: Measures; a table without rows is not stored.
        fresh: Compute even what is stored, unless this clone has computed it itself.
        own: Look for the tables, and store them, apart from the profile's.
        **settings: Entries of the provenance.
    """
    done = "own" if own else "done"
    marker = paths().cache / profile_name / done / f"{suite}-{run}-{seed}.key"
    known = marker.read_text(encoding="utf-8") if marker.is_file() else ""
    stored = {
        table: index[run, seed]
        for table, index in store.tables(profile_name, own).items()
        if (run, seed) in index and index[run, seed].provenance.get("suite") == suite
    }
    expected = {name for rows in stored.values() for name in rows.provenance["tables"]}
    current = all(rows.key == key for rows in stored.values()) and expected == set(stored)
    computed_here = known == (key if stored else f"{key} nothing")
    if current and (computed_here or stored and not fresh):
        return
    start = time.monotonic()
    measured = {name: frame for name, frame in compute().items() if len(frame)}
    seconds = round(time.monotonic() - start, 1)
    entries = {
        "suite": suite,
        "version": SUITE_VERSIONS.get(suite),
        "training": TRAINING_VERSION,
        "tables": sorted(measured),
        "wall_seconds": seconds,
        **settings,
    }
    provenance = current_provenance(profile_name, seed, **entries)
    for name, frame in measured.items():
        store.save(name, run, seed, frame, profile_name, key=key, provenance=provenance, own=own)
    for name in stored.keys() - measured.keys():
        store.discard(name, run, seed, profile_name, own)
    write_atomic(marker, key if measured else f"{key} nothing")
