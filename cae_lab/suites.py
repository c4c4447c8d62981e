"""The suites of measurements of a model: one entry says all that is known of each.

A suite measures a model and gives one table. `SUITES` lists those of the laboratory; the book has
further ones in `book/studies`, which `cae_lab.measuring.measure` and `cae_lab.results.load` get as
arguments. To add a suite, write a function and add an entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from cae_lab.names import BASE, DATA_RUN, GELU_CONTROLS
from cae_lib.training.inputs import digest

if TYPE_CHECKING:
    import pandas as pd

    from cae_bench.encoder import Encoder
    from cae_lab.runs import Profile, Run

# Kinds of models: the base model; runs of the paper's losses; runs with NegCLIP's hard negatives;
# controls, which have a setting `roles`, `tagger` or `foils`; the runs of `Profile.variants`; and
# models that are evaluated with GELU although they were trained with QuickGELU.
Kind = Literal["base", "runs", "negatives", "controls", "variants", "gelu"]
EVERY: tuple[Kind, ...] = ("base", "runs", "negatives", "controls", "variants", "gelu")


@dataclass(frozen=True)
class Suite:
    """A measurement that computes one table about a model on the data of a profile.

    Attributes:
        name: Name of the suite and of its table.
        function: "module:name" of a function of an `Encoder` and a `Profile` that returns the
            table. Without data it returns an empty table or raises a MissingDataError.
        reads: The data that it reads, one of `cae_lab.required_data.READS`.
        of: Kinds of models that `cae reproduce` measures by it.
        version: Raise it when the suite gives other numbers from the same model and data.
        is_study: Whether a reproduction measures it only together with the studies.
        needs_content: Whether it needs annotations of what images show.
        needs_word_tokens: Whether a tokenizer has to tell which characters a token stands for.
        drops: Measured columns that are not stored.
        drops_roles: Roles whose rows are not stored, since no loss and no page uses them.
        is_rounded: Whether its numbers are stored with `store.SIGNIFICANT_BITS` binary digits.
    """

    name: str
    function: str
    reads: str
    of: tuple[Kind, ...] = ("base", "runs")
    version: int = 1
    is_study: bool = False
    needs_content: bool = False
    needs_word_tokens: bool = False
    drops: tuple[str, ...] = ()
    drops_roles: tuple[str, ...] = ()
    is_rounded: bool = False

    def __call__(self, encoder: Encoder, profile: Profile) -> pd.DataFrame:
        """Measure a model on the data of a profile, and return the table."""
        # Imported here, so that the list of suites needs no PyTorch.
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)(encoder, profile)

    def key(self, model: str, data: str) -> str:
        """Return the key of a result of a model and data, which are given by their digests."""
        # Source code is no part of it, so that renaming a variable makes no result stale. Whoever
        # changes how a number is computed raises `version`; until then `tests/golden` fails.
        return digest(self.name, self.version, model, data)

    def is_of(self, profile: Profile) -> bool:
        """Return whether the data of a profile have what the suite needs."""
        # Photographs have captions, but no annotations of what they show.
        return not (self.needs_content and profile.built_from_photographs)


def by_name(suites: Iterable[Suite]) -> Mapping[str, Suite]:
    """Return suites by their names."""
    return {suite.name: suite for suite in suites}


# The suites of the laboratory, by name.
SUITES = by_name(
    (
        Suite(
            "benchmarks",
            "cae_lab.measures:benchmark_table",
            "benchmarks",
            of=EVERY,
            drops=("margin", "rank"),
        ),
        Suite(
            "retrieval",
            "cae_lab.measures:retrieval_table",
            "retrieval",
            of=("base", "runs", "negatives", "controls", "gelu"),
        ),
        Suite("similarity", "cae_lab.measures:similarity_table", "similarity"),
        Suite("zero_shot", "cae_lab.measures:zero_shot_table", "labelled", needs_content=True),
        Suite(
            "attribution",
            "cae_lab.attribution:coco_attribution_table",
            "captions",
            of=("base", "runs", "negatives", "controls", "variants"),
            needs_word_tokens=True,
            drops_roles=("other",),
            is_rounded=True,
        ),
        Suite(
            "bindings",
            "cae_lab.attribution:coco_binding_table",
            "captions",
            of=("base", "runs", "negatives", "controls"),
            needs_word_tokens=True,
            is_rounded=True,
        ),
        Suite(
            "phrases",
            "cae_lab.measures:phrase_table",
            "captions",
            of=("base", "runs", "negatives"),
            is_rounded=True,
        ),
        Suite("validation", "cae_lab.validation:validation_table", "validation", of=()),
    )
)

# Raise it when `load_external` makes another model of the same weights.
EXTERNAL_LOADER_VERSION = 1

# Raise it when `cae_lab.data_tables.data_tables` gives other numbers from the same data.
DATA_VERSION = 1


def kind_of(run: Run) -> Kind:
    """Return the kind of a run, by which suites are selected."""
    # First, as a variant may be one of the base model or of a control.
    if run.name in run.profile.variants:
        return "variants"
    if run.entry in GELU_CONTROLS:
        return "gelu"
    if run.entry == BASE:
        return "base"
    # A setting in the name can make a control of a run, as in "cae-attention+foils=exchanged".
    settings = {**run.profile.runs[run.entry], **dict(run.settings)}
    if settings.keys() & {"roles", "tagger", "foils"}:
        return "controls"
    return "negatives" if settings.get("negatives") else "runs"


def suites_of(
    run: Run, suites: Mapping[str, Suite] = SUITES, with_studies: bool = True
) -> list[Suite]:
    """Return those of `suites` by which a run is measured; none for the data."""
    if run.entry == DATA_RUN:
        return []
    return [
        suite
        for suite in suites.values()
        if kind_of(run) in suite.of
        and suite.is_of(run.profile)
        and (with_studies or not suite.is_study)
    ]
