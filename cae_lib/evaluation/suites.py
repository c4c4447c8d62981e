"""Everything that is measured on a set of weights, by name. What a suite imports is imported when
it is measured, so that a change of one makes the tables of no other stale."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from cae_lib import results
from cae_lib.config import paths
from cae_lib.data.benchmarks import FOLDERS
from cae_lib.fingerprint import measuring_hash
from cae_lib.methods import METHODS
from cae_lib.results import DATA, Tables
from cae_lib.runtime import stamp, write_atomic

if TYPE_CHECKING:
    from cae_lib.evaluation.encoder import Encoder


class Suite(NamedTuple):
    """Measures an encoder on the data of a profile; makes the table of its name, which is empty
    where there are no data. `module` and `function` say what does it, and `methods` which
    attribution methods it imports by name."""

    name: str
    module: str
    function: str
    methods: tuple[str, ...] = ()

    def __call__(self, encoder: Encoder, profile: str) -> Tables:
        measure = getattr(import_module(self.module), self.function)
        return {self.name: measure(encoder, profile)}

    @property
    def modules(self) -> tuple[str, ...]:
        """What is imported by name when it is measured."""
        return (self.module, *(f"cae_lib.attribution.{name}" for name in self.methods))

    def code(self, profile: str | None = None) -> dict[str, Any]:
        """What its numbers depend on, besides the weights and the data: a hash, the `modules` that
        it begins with, and the families of benchmarks that it reads of a profile; all without."""
        families: tuple[str, ...] = ()
        if self.name in OF_BENCHMARKS:
            from cae_lib.evaluation.datasets import families_of  # needs the readers of all sets

            families = tuple(families_of(profile) if profile else FOLDERS)
        return {"code": measuring_hash(self.modules, families), "modules": self.modules,
                "families": families}


_FAITHFUL = (*METHODS, "integrated_gradients")

SUITES: Mapping[str, Suite] = {
    name: Suite(name, f"{__package__}.{module}", function, *methods)
    for name, module, function, *methods in (
        ("benchmarks", "choice", "benchmark_answers"),
        ("blind", "blind", "average_picture"),
        ("retrieval", "retrieval", "retrieval_table"),
        ("similarity", "text_similarity", "similarity_table"),
        ("zero_shot", "retrieval", "zero_shot_table"),
        ("labels", "retrieval", "label_table"),
        ("attribution", "attribution", "attribution_suite", METHODS),
        ("bindings", "attribution", "binding_suite", ("binding",)),
        ("phrases", "text_similarity", "phrase_table"),
        ("faithfulness", "faithfulness", "faithfulness_table", _FAITHFUL),
        ("heatmaps", "heatmaps", "heatmap_table", METHODS),
    )
}
"""What is measured on every set of weights."""

BASE_SUITES = {"sensitivity": Suite("sensitivity", f"{__package__}.faithfulness",
                                    "sensitivity_table", _FAITHFUL)}
"""What is measured on the base model alone, beside `SUITES`."""

OF_DATA = Suite(DATA, f"{__package__}.items", "data_tables")
"""What is measured on the data of a profile, without an encoder."""

ALL_SUITES: Mapping[str, Suite] = {**SUITES, **BASE_SUITES, DATA: OF_DATA}

OF_BENCHMARKS = ("benchmarks", "blind", DATA)
"""Suites that read the benchmarks of a profile."""


def measure(
    suite: str, run: str, seed: int, profile_name: str, key: str, compute: Callable[[], Tables],
    *, fresh: bool = False, **settings: Any,
) -> None:
    """Compute and stage the tables of one measurement, unless all are stored with this key.

    Args:
        suite: Name of the measurement; tables of it that it no longer gives are removed.
        run, seed, profile_name: What is measured.
        key: Hash of all that the numbers depend on, the suite included.
        compute: Measures; a table without rows is not stored.
        fresh: Compute even what is stored, unless this clone has computed it itself.
        **settings: Entries of the provenance.
    """
    marker = paths().cache / profile_name / "done" / f"{suite}-{run}-{seed}.key"
    known = marker.read_text(encoding="utf-8") if marker.is_file() else ""
    stored = {table: index[run, seed] for table, index in results.tables(profile_name).items()
              if (run, seed) in index and index[run, seed].provenance.get("suite") == suite}
    expected = {name for rows in stored.values() for name in rows.provenance["tables"]}
    current = all(rows.key == key for rows in stored.values()) and expected == set(stored)
    own = known == (key if stored else f"{key} nothing")
    if current and (own or stored and not fresh):
        return
    start = time.monotonic()
    measured = {name: frame for name, frame in compute().items() if len(frame)}
    seconds = round(time.monotonic() - start, 1)
    entries = {"suite": suite, "tables": sorted(measured), "wall_seconds": seconds, **settings}
    provenance = stamp(profile_name, seed, **entries)
    for name, frame in measured.items():
        results.save(name, run, seed, frame, profile_name, key=key, provenance=provenance)
    for name in stored.keys() - measured.keys():
        results.discard(name, run, seed, profile_name)
    write_atomic(marker, key if measured else f"{key} nothing")
