"""Object, attribute and relation words by SceneGraphParser 0.1.0, the paper's parser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import sng_parser
import spacy
from spacy.tokens import Doc, Token

from cae_lib.errors import ConfigError
from cae_lib.words.pipeline import (
    drop_entity_recogniser,
    model_identity,
    model_name,
    parse_distinct,
    spans_of,
)
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span

Matching = Literal["first", "parsed"]
MATCHINGS = ("first", "parsed")
Graph = dict[str, list[dict[str, Any]]]


class SceneGraphTagger:
    """Tag captions by the entities, modifiers and relations of SceneGraphParser.

    An entity's head is an object, its modifiers are attributes, a relation's words are relation
    words. The parser gives words, not places, so they have to be found again:

    - "first" (default): the first place in the caption where the words stand, whole and in order.
      That is the rule of the authors' other code, which compares token ids. Of a word said twice
      only the first is found, and a head of several compounds, whose words the parser reverses,
      is not found at all. One difference: token ids can also match the tail of a longer word that
      the tokenizer happens to split there; characters do not.
    - "parsed": the very words the parser read, from its dependency tree.

    A word that is not found becomes the empty span (0, 0), so that it can be counted.

    Args:
        model: spaCy model; None takes the installed one.
        matching: "first" or "parsed".
        determiners: let articles and other determiners count as attributes, all but "the": the
            authors' other code skips that one alone.

    Raises:
        ConfigError: the matching is unknown or the model not installed.
    """

    def __init__(
        self, model: str | None = None, matching: Matching = "first", determiners: bool = False
    ) -> None:
        if matching not in MATCHINGS:
            raise ConfigError(f"matching is {matching!r}; expected one of {MATCHINGS}.")
        try:
            self._parser = sng_parser.Parser("spacy", model=model or model_name())
        except ImportError as error:
            raise ConfigError(f"spaCy model {model!r} is not installed; {error}") from error
        self._nlp = drop_entity_recogniser(self._parser.unwrapped.nlp)
        self._parser.unwrapped.nlp = _parsed_already
        self._model = model
        self.matching = matching
        self.determiners = determiners

    def __reduce__(self) -> tuple[Any, ...]:
        """Build it anew where it is unpickled: the parser's class cannot be pickled."""
        return type(self), (self._model, self.matching, self.determiners)

    @property
    def identity(self) -> str:
        """Name and versions: taggers of one identity give the same spans."""
        options = f"{self.matching}{' determiners' if self.determiners else ''}"
        versions = f"spacy {spacy.__version__}, {model_identity(self._nlp)}"
        return f"SceneGraphParser 0.1.0 {options} ({versions})"

    def graphs(self, captions: Sequence[str]) -> list[Graph]:
        """What `sng_parser.Parser.parse` returns for each caption."""
        return list(parse_distinct(self._nlp, captions, self._parser.parse))

    def tag(self, captions: Sequence[str]) -> list[list[Span]]:
        """Spans of each caption: objects, then attributes, then relations, without repetition."""
        return list(parse_distinct(self._nlp, captions, self._spans))

    def _spans(self, doc: Doc) -> list[Span]:
        graph = self._parser.parse(doc)
        found = self._first(doc, graph) if self.matching == "first" else self._parsed(doc, graph)
        return sorted(dict.fromkeys(found), key=lambda span: span.role)

    def _first(self, doc: Doc, graph: Graph) -> Iterator[Span]:
        text = _lower(doc.text)
        for entity in graph["entities"]:
            yield _first_place(text, entity["head"], OBJECT)
            for modifier in entity["modifiers"]:
                if self._is_attribute(modifier["dep"], modifier["span"]):
                    yield _first_place(text, modifier["span"], ATTRIBUTE)
        for relation in graph["relations"]:
            yield _first_place(text, relation["relation"], RELATION)

    def _parsed(self, doc: Doc, graph: Graph) -> Iterator[Span]:
        roots = [doc[slice(*entity["span_bounds"])].root for entity in graph["entities"]]
        for root in roots:
            compounds = [child for child in root.children if child.dep_ == "compound"]
            yield from spans_of([*compounds, root], OBJECT)
            for child in root.children:
                if self._is_attribute(child.dep_, child.text):
                    conjuncts = [c for c in child.children if c.dep_ == "conj"]
                    for word in [child, *(conjuncts if child.dep_ == "amod" else [])]:
                        yield from spans_of([word], ATTRIBUTE)
        for relation in graph["relations"]:
            anchor = _first_conjunct(roots[relation["object"]]).head
            yield _place_around(doc, relation["relation"], anchor)

    def _is_attribute(self, dependency: str, word: str) -> bool:
        if dependency == "det":
            return self.determiners and word.lower() != "the"
        return dependency in ("nummod", "amod")


def _parsed_already(doc: Doc) -> Doc:
    """Stands in for the parser's own spaCy pipeline."""
    return doc


def _lower(text: str) -> str:
    """Lower case, character by character, so that places stay the same."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


@lru_cache(maxsize=100_000)
def _pattern(words: str) -> re.Pattern[str]:
    """Words in order, any space between them, not inside a longer run of letters."""
    letter = r"[^\W\d_]"
    before = f"(?<!{letter})" if words[0].isalpha() else ""
    after = f"(?!{letter})" if words[-1].isalpha() else ""
    return re.compile(before + r"\s*".join(map(re.escape, words.split())) + after)


def _first_place(text: str, words: str, role: int) -> Span:
    match = _pattern(_lower(words).strip()).search(text) if words.strip() else None
    return Span(match.start(), match.end(), role) if match else Span(0, 0, role)


def _place_around(doc: Doc, words: str, anchor: Token) -> Span:
    """The place of a relation's words that takes in the token `anchor`."""
    for match in _pattern(_lower(words).strip()).finditer(_lower(doc.text)):
        if match.start() <= anchor.idx < match.end():
            return Span(match.start(), match.end(), RELATION)
    return Span(0, 0, RELATION)


def _first_conjunct(token: Token) -> Token:
    while token.dep_ == "conj":
        token = token.head
    return token
