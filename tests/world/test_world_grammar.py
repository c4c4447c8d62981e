from __future__ import annotations

import re

import numpy as np
import pytest

from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION
from cae_lib.world.config import COCO, WEB
from cae_lib.world.grammar import (
    CaptionStyle,
    captions,
    clause,
    describe,
    phrase,
    position_phrase,
)
from cae_lib.world.layout import Placement
from cae_lib.world.scenes import Content, Thing, arrange
from cae_lib.world.vocabulary import COLORS, NOUNS, PATTERNS, RELATIONS, SIZES, VAGUE_RELATIONS

ADJECTIVES = {*COLORS, *SIZES, *PATTERNS}
FULL = CaptionStyle(attribute=1, second=1, relation=1, extra=1, position=0, prefix=0, copula=1)


def test_phrases_and_clauses():
    assert phrase("apple") == "an apple"
    assert phrase("apple", ["red"]) == "a red apple"
    assert phrase("cat", ["orange"], "the") == "the orange cat"
    assert clause("the cat", "above", "the dog") == "the cat is above the dog"


def test_a_full_caption_word_by_word():
    content = Content((Thing("cat", "red", "small"), Thing("owl", "blue")), "riding")
    caption = describe(arrange(content, 0), FULL, np.random.default_rng(0))
    assert caption.text == "a small red cat is riding a blue owl"
    words = [(caption.text[s.start : s.end], s.role) for s in caption.spans]
    assert words == [
        ("small", ATTRIBUTE),
        ("red", ATTRIBUTE),
        ("cat", OBJECT),
        ("riding", RELATION),
        ("blue", ATTRIBUTE),
        ("owl", OBJECT),
    ]
    assert caption.objects == (0, 1)
    assert caption.attributes == ((0, "small"), (0, "red"), (1, "blue"))
    assert caption.relations == ((0, "riding", 1),)


@pytest.mark.parametrize("style", [WEB, COCO])
def test_spans_are_the_words_of_their_role(sampled, style):
    relation_words = {w for kind in RELATIONS.values() for x in kind.wordings for w in x.split()}
    relation_words |= {word for vague in VAGUE_RELATIONS for word in vague.split()}
    known = {OBJECT: set(NOUNS), ATTRIBUTE: ADJECTIVES, RELATION: relation_words}
    for index, scene in enumerate(sampled[:300]):
        caption = describe(scene, style, np.random.default_rng(index))
        covered = [caption.text[s.start : s.end] for s in caption.spans]
        assert all(w in known[s.role] for w, s in zip(covered, caption.spans, strict=True))
        content = [w for w in caption.text.split() if w in known[OBJECT] | known[ATTRIBUTE]]
        assert [w for w, s in zip(covered, caption.spans, strict=True) if s.role != RELATION] == (
            content
        )
        starts = [span.start for span in caption.spans]
        assert starts == sorted(starts)


def test_captions_say_only_what_holds(sampled):
    for index, scene in enumerate(sampled[:300]):
        caption = describe(scene, COCO, np.random.default_rng(index))
        things = scene.content.things
        said = re.findall(r"\w+", caption.text)
        assert [w for w in said if w in NOUNS] == [things[i].noun for i in caption.objects]
        assert all(word in things[i].attributes for i, word in caption.attributes)
        assert [w for w in said if w in ADJECTIVES] == [word for _, word in caption.attributes]
        for subject, name, obj in caption.relations:
            assert (subject, name, obj) == (0, scene.content.relation, 1)
            assert any(f" {x} " in caption.text for x in RELATIONS[name].wordings)


@pytest.mark.parametrize("style", [WEB, COCO])
def test_rates_are_those_of_the_style(sampled, style):
    texts = [describe(s, style, np.random.default_rng(i)) for i, s in enumerate(sampled)]
    pairs = list(zip(texts, sampled, strict=True))
    could = sum(len(s.content.things[i].attributes) for t, s in pairs for i in t.objects)
    said = sum(len(t.attributes) for t in texts)
    assert said / could == pytest.approx(style.attribute, abs=0.03)
    both = [t for t in texts if 1 in t.objects]
    assert len(both) / len(texts) == pytest.approx(style.second, abs=0.04)
    assert np.mean([bool(t.relations) for t in both]) == pytest.approx(style.relation, abs=0.05)
    extras = [(i in t.objects) for t, s in pairs for i in range(2, len(s.content.things))]
    assert np.mean(extras) == pytest.approx(style.extra, abs=0.06)


def test_a_place_is_named_when_it_is_clearly_on_one_side():
    assert position_phrase(Placement(0.1, 0.5, 0.2)) == "on the left"
    assert position_phrase(Placement(0.9, 0.6, 0.2)) == "on the right"
    assert position_phrase(Placement(0.5, 0.1, 0.2)) == "at the top"
    assert position_phrase(Placement(0.6, 0.95, 0.2)) == "at the bottom"
    assert position_phrase(Placement(0.45, 0.6, 0.2)) is None


def test_captions_are_a_function_of_their_generator(sampled):
    first = captions(sampled[0], COCO, np.random.default_rng(3), 5)
    assert first == captions(sampled[0], COCO, np.random.default_rng(3), 5)
    assert len(first) == 5 and len({caption.text for caption in first}) > 1
