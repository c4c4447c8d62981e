"""Tagging by SceneGraphParser: equal to the parser itself, and by hand where it leaves places."""

from __future__ import annotations

import pickle

import pytest
import sng_parser

from cae_lib.errors import ConfigError
from cae_lib.words.pipeline import model_name
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span
from cae_lib.words.scene_graph import SceneGraphTagger

CAPTIONS = [
    "A woman is playing the piano in the room.",
    "Two brown dogs and a cat sitting next to a big old fire hydrant.",
    "a man next to a man in front of a wooden house",
    "The ball is held by a boy.",
    "A woman is playing with the old piano.",
    "It looks at  a bird\n",
]


@pytest.fixture(scope="module")
def tagger() -> SceneGraphTagger:
    return SceneGraphTagger()


@pytest.fixture(scope="module")
def parsed() -> SceneGraphTagger:
    return SceneGraphTagger(matching="parsed")


def words(caption: str, spans: list[Span], role: int) -> list[str]:
    return [caption[s.start : s.end] for s in spans if s.role == role]


def test_batched_graphs_equal_the_plain_parser(tagger):
    plain = sng_parser.Parser("spacy", model=model_name())
    assert tagger.graphs(CAPTIONS) == [plain.parse(caption) for caption in CAPTIONS]


def test_every_distinct_caption_is_parsed_once_and_order_is_kept(tagger, monkeypatch):
    seen = []
    parse = tagger._parser.parse
    monkeypatch.setattr(tagger._parser, "parse", lambda doc: seen.append(doc.text) or parse(doc))
    spans = tagger.tag([CAPTIONS[1], CAPTIONS[0], CAPTIONS[1]])
    assert seen == [CAPTIONS[1], CAPTIONS[0]]
    assert spans == [*tagger.tag([CAPTIONS[1]]), *tagger.tag([CAPTIONS[0]]), spans[0]]


def test_heads_modifiers_and_relations_by_hand(tagger):
    caption = CAPTIONS[1]
    (spans,) = tagger.tag([caption])
    assert words(caption, spans, OBJECT) == ["dogs", "cat", "fire hydrant"]
    assert words(caption, spans, ATTRIBUTE) == ["Two", "brown", "big", "old"]
    assert words(caption, spans, RELATION) == ["next to"]


def test_determiners_are_no_attributes_unless_asked_for(tagger):
    caption = "a dog on the mat"
    (spans,) = tagger.tag([caption])
    assert words(caption, spans, ATTRIBUTE) == []
    (spans,) = SceneGraphTagger(determiners=True).tag([caption])
    assert words(caption, spans, ATTRIBUTE) == ["a"]


def test_a_repeated_word_is_found_at_its_first_place_only(tagger, parsed):
    caption = CAPTIONS[2]
    (first,) = tagger.tag([caption])
    men = [span for span in first if caption[span.start : span.end] == "man"]
    assert men == [Span(2, 5, OBJECT)]
    assert "in front of" in words(caption, first, RELATION)
    (exact,) = parsed.tag([caption])
    men = [span for span in exact if caption[span.start : span.end] == "man"]
    assert men == [Span(2, 5, OBJECT), Span(16, 19, OBJECT)]
    assert "in front of" in words(caption, exact, RELATION)


def test_parsed_relations_stand_where_the_parser_read_them(tagger, parsed):
    caption = "A hot dog on a plate on a table."
    (first,), (exact,) = tagger.tag([caption]), parsed.tag([caption])
    assert [s.start for s in first if s.role == RELATION] == [10]
    assert [s.start for s in exact if s.role == RELATION] == [10, 21]


def test_a_word_inside_a_longer_word_is_not_its_place(tagger):
    caption = "an art party with a car"
    (spans,) = tagger.tag([caption])
    cars = [s for s in spans if s.role == OBJECT and caption[s.start : s.end] == "car"]
    assert cars == [Span(20, 23, OBJECT)]
    (spans,) = tagger.tag(["a carpet under a car"])
    assert Span(17, 20, OBJECT) in spans


def test_a_head_the_parser_reverses_becomes_an_empty_span(tagger, parsed):
    caption = "A glass coffee table sits in a room."  # the parser says "coffee glass table"
    (spans,) = tagger.tag([caption])
    assert Span(0, 0, OBJECT) in spans
    (spans,) = parsed.tag([caption])
    assert words(caption, spans, OBJECT) == ["glass coffee table", "room"]


def test_identity_tells_settings_apart(tagger, parsed):
    assert tagger.identity != parsed.identity
    assert tagger.identity == SceneGraphTagger().identity
    assert "3.8" in tagger.identity


def test_it_travels_to_worker_processes(parsed):
    again = pickle.loads(pickle.dumps(parsed))
    assert again.identity == parsed.identity and again.tag(CAPTIONS) == parsed.tag(CAPTIONS)


def test_unknown_model_and_matching_are_config_errors():
    with pytest.raises(ConfigError, match="'last'; expected one of"):
        SceneGraphTagger(matching="last")
    with pytest.raises(ConfigError, match="no_such_model"):
        SceneGraphTagger("no_such_model")
