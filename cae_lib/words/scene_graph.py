"""Find object, attribute and relation words with SceneGraphParser 0.1.0, the paper's parser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import sng_parser
from spacy.tokens import Doc

from cae_lib.words.entities import plain_text
from cae_lib.words.pipeline import (
    disable_entity_recognizer,
    parse_captions,
    spacy_model_name,
    spacy_versions,
    tag_captions,
)
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span
from cae_lib.words.versions import SCENE_GRAPH_VERSION

SceneGraph = dict[str, list[dict[str, Any]]]


class SceneGraphTagger:
    """Tagger that finds the entities, modifiers and relations of SceneGraphParser.

    The head of an entity is an object, its adjectives and numbers are attributes, and the words of
    a relation are relation words. With `determiners`, determiners other than "the" are attributes,
    too, as in the code of another publication by CAE's authors.

    The parser returns words without positions. The first place in the caption at which they occur
    is taken; words that do not occur become the span (0, 0), see `Alignment.n_unmatched`.
    """

    def __init__(self, determiners: bool = False) -> None:
        self._parser = sng_parser.Parser("spacy", model=spacy_model_name())
        self._nlp = disable_entity_recognizer(self._parser.unwrapped.nlp)
        # The parser runs its pipeline on one caption at a time. It is given captions that were
        # parsed in batches instead, and leaves them as they are.
        self._parser.unwrapped.nlp = _identity
        self.determiners = determiners

    # The parser's class cannot be pickled, so the tagger is built anew in another process.
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.determiners,)

    @property
    def identity(self) -> str:
        """Versions of the parser, of our spans, of spaCy and its model, and the options."""
        spans = f"spans {SCENE_GRAPH_VERSION} first{' determiners' if self.determiners else ''}"
        return f"SceneGraphParser 0.1.0 {spans} ({spacy_versions(self._nlp)})"

    def graphs(self, captions: Sequence[str]) -> list[SceneGraph]:
        """Parse captions into the "entities" and "relations" of `sng_parser.Parser.parse`."""
        texts = [plain_text(caption).text for caption in captions]
        return list(parse_captions(self._nlp, texts, self._parser.parse))

    def tag(self, captions: Sequence[str]) -> list[list[Span]]:
        """Return the distinct spans of each caption: objects, then attributes, then relations."""
        return [
            spans for spans, _ in tag_captions(self._nlp, captions, lambda d: (self._tagged(d), []))
        ]

    def _tagged(self, doc: Doc) -> list[Span]:
        spans = self._spans(_lower(doc.text), self._parser.parse(doc))
        # `align` gives a token that spans share the role of the first span: objects come first.
        return sorted(dict.fromkeys(spans), key=lambda span: span.role)

    def _spans(self, text: str, graph: SceneGraph) -> Iterator[Span]:
        heads = [_first_match(text, entity["head"], OBJECT) for entity in graph["entities"]]
        places = [(head.start, head.end) for head in heads]
        yield from heads
        for bearer, entity in zip(places, graph["entities"], strict=True):
            for modifier in entity["modifiers"]:
                article = self.determiners and modifier["span"].lower() != "the"
                if modifier["dep"] in ("nummod", "amod") or modifier["dep"] == "det" and article:
                    yield _first_match(text, modifier["span"], ATTRIBUTE, bearer)
        for relation in graph["relations"]:
            arguments = (places[relation[end]] for end in ("subject", "object"))
            yield _first_match(text, relation["relation"], RELATION, *arguments)


def _identity(doc: Doc) -> Doc:
    return doc


def _lower(text: str) -> str:
    """Convert to lower case, character by character, so that positions stay the same."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


@lru_cache(maxsize=100_000)
def _pattern(words: str) -> re.Pattern[str]:
    """Compile a pattern that finds words in order, with or without white space between them."""
    letter = r"[^\W\d_]"
    # "car" is not found in "carpet".
    before = f"(?<!{letter})" if words[0].isalpha() else ""
    after = f"(?!{letter})" if words[-1].isalpha() else ""
    # The parser joins tokens by spaces, even where the caption has none between them.
    return re.compile(before + r"\s*".join(map(re.escape, words.split())) + after)


def _first_match(text: str, words: str, role: int, *of: tuple[int, int]) -> Span:
    # The first place, as in code of CAE's authors, which searches for token ids: a second "man" is
    # never found. Neither is a head with several compounds, whose order the parser reverses.
    match = _pattern(_lower(words).strip()).search(text) if words.strip() else None
    return Span(match.start(), match.end(), role, of) if match else Span(0, 0, role)
