"""Find object, attribute and relation words with SceneGraphParser 0.1.0, the paper's parser."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import sng_parser
from spacy.tokens import Doc

from cae_lib.words.pipeline import disable_entity_recognizer, model_name, parse_distinct, versions
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span

Graph = dict[str, list[dict[str, Any]]]


class SceneGraphTagger:
    """Tagger that finds the entities, modifiers and relations of SceneGraphParser.

    The head of an entity is an object, its modifiers are attributes, and the words of a relation
    are relation words. The parser gives words, not positions, so a word is sought where it first
    occurs in the caption, whole and in order. This is the rule of the authors' other code, which
    compares token ids (these can also match the tail of a longer word that the tokenizer splits
    there).

    Of a word that occurs twice, therefore, only the first occurrence is found. The parser reverses
    the words of a head with several compounds, so such a head is not found; it becomes the empty
    span (0, 0), which is counted.

    Args:
        determiners: Whether determiners count as attributes, except "the", which is the only one
            that the authors' other code leaves out.

    Raises:
        ConfigError: If no English spaCy model is installed.
    """

    def __init__(self, determiners: bool = False) -> None:
        self._parser = sng_parser.Parser("spacy", model=model_name())
        self._nlp = disable_entity_recognizer(self._parser.unwrapped.nlp)
        self._parser.unwrapped.nlp = _itself  # it gets what is parsed already
        self.determiners = determiners

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild the tagger when it is unpickled, because the parser's class cannot be pickled."""
        return type(self), (self.determiners,)

    @property
    def identity(self) -> str:
        """Name and versions of the parser, its options and spaCy's model."""
        options = f"first{' determiners' if self.determiners else ''}"
        return f"SceneGraphParser 0.1.0 {options} ({versions(self._nlp)})"

    def graphs(self, captions: Sequence[str]) -> list[Graph]:
        """Return the result of `sng_parser.Parser.parse` for each caption."""
        return list(parse_distinct(self._nlp, captions, self._parser.parse))

    def tag(self, captions: Sequence[str]) -> list[list[Span]]:
        """Return the spans of each caption: objects, attributes, then relations, each once."""
        return list(parse_distinct(self._nlp, captions, self._tagged))

    def _tagged(self, doc: Doc) -> list[Span]:
        spans = self._spans(_lower(doc.text), self._parser.parse(doc))
        return sorted(dict.fromkeys(spans), key=lambda span: span.role)

    def _spans(self, text: str, graph: Graph) -> Iterator[Span]:
        heads = [_first_place(text, entity["head"], OBJECT) for entity in graph["entities"]]
        places = [(head.start, head.end) for head in heads]
        yield from heads
        for bearer, entity in zip(places, graph["entities"], strict=True):
            for modifier in entity["modifiers"]:
                article = self.determiners and modifier["span"].lower() != "the"
                if modifier["dep"] in ("nummod", "amod") or modifier["dep"] == "det" and article:
                    yield _first_place(text, modifier["span"], ATTRIBUTE, bearer)
        for relation in graph["relations"]:
            arguments = (places[relation[end]] for end in ("subject", "object"))
            yield _first_place(text, relation["relation"], RELATION, *arguments)


def _itself(doc: Doc) -> Doc:
    return doc


def _lower(text: str) -> str:
    """Convert to lower case, character by character, so that positions stay the same."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


@lru_cache(maxsize=100_000)
def _pattern(words: str) -> re.Pattern[str]:
    """Compile a pattern that finds words in order, with any space between them.

    The pattern does not match inside a longer run of letters.
    """
    letter = r"[^\W\d_]"
    before = f"(?<!{letter})" if words[0].isalpha() else ""
    after = f"(?!{letter})" if words[-1].isalpha() else ""
    return re.compile(before + r"\s*".join(map(re.escape, words.split())) + after)


def _first_place(text: str, words: str, role: int, *of: tuple[int, int]) -> Span:
    match = _pattern(_lower(words).strip()).search(text) if words.strip() else None
    return Span(match.start(), match.end(), role, of) if match else Span(0, 0, role)
