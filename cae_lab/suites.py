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

Kind = Literal["base", "runs", "negatives", "controls", "variants", "gelu"]
"""Kinds of models: the base model; runs of the paper's losses; runs with NegCLIP's hard negatives;
controls, which have a setting `roles`, `tagger` or `foils`; the runs of `Profile.variants`; and
models that are evaluated with GELU although they were trained with QuickGELU."""

EVERY: tuple[Kind, ...] = ("base", "runs", "negatives", "controls", "variants", "gelu")


@dataclass(frozen=True)
class Suite:
    """A measurement that computes one table about a model on the data of a profile.

    Attributes:
        name: Name of the suite and of its table.
        function: The function that measures, as "module:name"; it is imported when it is called.
            Its arguments are an `Encoder` and a `Profile`, and it returns the table. If the profile
            lacks the data, it returns an empty table or raises a MissingDataError.
        reads: The data that it reads, one of `cae_lab.needs.READS`.
        of: Kinds of models that `cae reproduce` measures by it.
        version: Raise it when the suite gives other numbers from the same model and data.
        is_study: Whether a reproduction measures it only together with the studies.
        needs_content: Whether it needs annotations of what images show, which photographs with
            captions do not have.
        needs_word_tokens: Whether the tokenizer of a model has to tell which characters each token
            stands for.
        drops: Measured columns that are not stored.
        drops_roles: Roles of words whose rows are not stored, since no loss and no page uses them.
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
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)(encoder, profile)

    def key(self, model: str, data: str) -> str:
        """Return the key of a result, which covers everything that its numbers depend on.

        Keys do not depend on source code, so renaming a variable or moving a function makes no
        result stale. Whoever changes how a number is computed has to raise the version of that
        computation; until then `tests/golden` fails.

        Args:
            model: Digest that identifies the model.
            data: Digest of the data that the suite reads.
        """
        return digest(self.name, self.version, model, data)

    def is_of(self, profile: Profile) -> bool:
        """Return whether the data of a profile have what the suite needs."""
        return not (self.needs_content and profile.built_from_photographs)


def by_name(suites: Iterable[Suite]) -> Mapping[str, Suite]:
    """Return suites by their names."""
    return {suite.name: suite for suite in suites}


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
"""The suites of the laboratory, by name."""

EXTERNAL_LOADER_VERSION = 1
"""Version of the code that loads models that were not trained here (see `load_external`): raise it
when the same weights give another model."""

DATA_VERSION = 1
"""Version of the tables that describe the datasets themselves, without a model: raise it when they
get other numbers from the same data. See `cae_lab.items.data_tables`."""


def kind_of(run: Run) -> Kind:
    """Return the kind of a run, by which suites are selected; see `Suite.of`."""
    if run.name in run.profile.variants:
        return "variants"
    if run.entry in GELU_CONTROLS:
        return "gelu"
    if run.entry == BASE:
        return "base"
    settings = {**run.profile.runs[run.entry], **dict(run.settings)}
    if settings.keys() & {"roles", "tagger", "foils"}:
        return "controls"
    return "negatives" if settings.get("negatives") else "runs"


def suites_of(
    run: Run, suites: Mapping[str, Suite] = SUITES, with_studies: bool = True
) -> list[Suite]:
    """Return the suites by which a run is measured; none for the data.

    Args:
        run: The run.
        suites: The suites to choose from.
        with_studies: Whether to include those with `is_study`.
    """
    if run.entry == DATA_RUN:
        return []
    return [
        suite
        for suite in suites.values()
        if kind_of(run) in suite.of
        and suite.is_of(run.profile)
        and (with_studies or not suite.is_study)
    ]
