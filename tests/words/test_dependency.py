"""The dependency tagger on the kinds of caption that SceneGraphParser 0.1.0 reads badly."""

from __future__ import annotations

import pytest

from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION


@pytest.fixture(scope="module")
def tagger() -> DependencyTagger:
    return DependencyTagger()


@pytest.mark.parametrize(
    ("caption", "objects", "attributes", "relations"),
    [
        ("The horse is brown and white.", ["horse"], ["brown", "white"], []),
        ("The cat is on the mat.", ["cat", "mat"], [], ["on"]),
        ("A cat sitting on top of a table.", ["cat", "table"], [], ["sitting on top of"]),
        ("A car parked in front of a house.", ["car", "house"], [], ["parked in front of"]),
        ("a red cat to the left of a dog", ["cat", "dog"], ["red"], ["to", "left of"]),
        ("The ball is held by a boy.", ["ball", "boy"], [], ["held by"]),
        ("A bed covered with blankets.", ["bed", "blankets"], [], ["covered with"]),
        (
            "A man is riding a horse and holding a cup.",
            ["man", "horse", "cup"],
            [],
            ["riding", "holding"],
        ),
        ("A lamp next to two big beds.", ["lamp", "beds"], ["two", "big"], ["next to"]),
        ("A baseball player is running.", ["baseball player"], [], []),
        ("a man and a man", ["man", "man"], [], []),
    ],
)
def test_roles_by_hand(tagger, caption, objects, attributes, relations):
    (spans,) = tagger.tag([caption])
    found = {
        role: [caption[s.start : s.end] for s in spans if s.role == role] for role in (1, 2, 3)
    }
    assert found == {OBJECT: objects, ATTRIBUTE: attributes, RELATION: relations}


def test_repeated_words_have_places_of_their_own(tagger):
    (spans,) = tagger.tag(["a man and a man"])
    assert [(s.start, s.end) for s in spans] == [(2, 5), (12, 15)]


def test_order_and_identity(tagger):
    several = tagger.tag(["a dog", "a cat", "a dog"])
    assert several == [*tagger.tag(["a dog"]), *tagger.tag(["a cat"]), *tagger.tag(["a dog"])]
    assert tagger.identity.startswith("dependency rules")
