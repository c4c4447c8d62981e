"""Everything that is measured on a set of weights, by name. What a suite imports is imported when
it is measured, so that a change of one makes the tables of no other stale."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from cae_lib.results import Tables

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
    name: Suite(name, f"{__package__}.{module}", function) for name, module, function in (
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

BASE_SUITES = {"sensitivity": Suite("sensitivity", f"{__package__}.faithfulness",
                                    "sensitivity_table")}
"""What is measured on the base model alone, beside `SUITES`."""
