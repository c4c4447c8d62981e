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
    a relation are relation words. The parser returns words without their positions. The tagger
    takes the first place in the caption at which these words occur one after the other as whole
    words. Code of another publication by CAE's authors has the same rule, but compares token ids.

    If a word occurs twice in a caption, only its first occurrence is found. The parser reverses the
    order of several compounds before a head, so such a head is not found in the caption. Words of a
    role that are not found become one empty span (0, 0), which `Alignment.n_unmatched` counts.

    HTML entities are replaced before a caption is parsed.

    Args:
        determiners: Whether determiners other than "the" count as attributes, as they do in the
            code of that other publication.

    Raises:
        ConfigError: If no English spaCy model is installed.
    """

    def __init__(self, determiners: bool = False) -> None:
        self._parser = sng_parser.Parser("spacy", model=spacy_model_name())
        self._nlp = disable_entity_recognizer(self._parser.unwrapped.nlp)
        self._parser.unwrapped.nlp = _itself  # the parser is given parsed captions
        self.determiners = determiners

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild the tagger when it is unpickled, because the parser's class cannot be pickled."""
        return type(self), (self.determiners,)

    @property
    def identity(self) -> str:
        """Name and versions of the parser, our spans, spaCy and its model, and the options."""
        spans = f"spans {SCENE_GRAPH_VERSION} first{' determiners' if self.determiners else ''}"
        return f"SceneGraphParser 0.1.0 {spans} ({spacy_versions(self._nlp)})"

    def graphs(self, captions: Sequence[str]) -> list[SceneGraph]:
        """Parse captions into scene graphs.

        Returns:
            The result of `sng_parser.Parser.parse` for each caption. Its key "entities" holds each
            entity with its head and modifiers, and its key "relations" the relations, each between
            two entities.
        """
        texts = [plain_text(caption).text for caption in captions]
        return list(parse_captions(self._nlp, texts, self._parser.parse))

    def tag(self, captions: Sequence[str]) -> list[list[Span]]:
        """Return the distinct spans of each caption: objects, then attributes, then relations."""
        return [
            spans for spans, _ in tag_captions(self._nlp, captions, lambda d: (self._tagged(d), []))
        ]

    def _tagged(self, doc: Doc) -> list[Span]:
        spans = self._spans(_lower(doc.text), self._parser.parse(doc))
        return sorted(dict.fromkeys(spans), key=lambda span: span.role)

    def _spans(self, text: str, graph: SceneGraph) -> Iterator[Span]:
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
    """Compile a pattern that finds words in order, with or without white space between them.

    The pattern does not match inside a longer run of letters.
    """
    letter = r"[^\W\d_]"
    before = f"(?<!{letter})" if words[0].isalpha() else ""
    after = f"(?!{letter})" if words[-1].isalpha() else ""
    return re.compile(before + r"\s*".join(map(re.escape, words.split())) + after)


def _first_place(text: str, words: str, role: int, *of: tuple[int, int]) -> Span:
    match = _pattern(_lower(words).strip()).search(text) if words.strip() else None
    return Span(match.start(), match.end(), role, of) if match else Span(0, 0, role)
