"""Phrases of captions from gold and from a parse, worked out by hand."""

from __future__ import annotations

import json

import pytest

from cae_lib.errors import DataError
from cae_lib.words.phrases import gold_phrases, parsed_phrases, world_phrases


def entry(text: str, roles: dict[str, int], **facts) -> dict:
    """The annotation of a caption whose words, in order, have these roles."""
    spans, start = [], 0
    for word, role in roles.items():
        start = text.index(word, start)
        spans.append([start, start + len(word), role])
        start += len(word)
    return {"spans": spans, **{"objects": [0, 1], "attributes": [], "relations": []}, **facts}


@pytest.mark.parametrize(
    ("text", "roles", "facts", "expected"),
    [
        ("a large red cat is to the left of a blue dog",
         {"large": 2, "red": 2, "cat": 1, "left": 3, "blue": 2, "dog": 1},
         {"attributes": [[0, "large"], [0, "red"], [1, "blue"]], "relations": [[0, "left of", 1]]},
         (("cat", "dog"), ("large cat", "red cat", "blue dog"), ("cat to the left of dog",))),
        ("a cat on an apple", {"cat": 1, "on": 3, "apple": 1}, {"relations": [[0, "on", 1]]},
         (("cat", "apple"), (), ("cat on apple",))),
        ("a cat with a dog", {"cat": 1, "with": 3, "dog": 1}, {}, (("cat", "dog"), (), ())),
        ("a dog chasing a cat", {"dog": 1, "chasing": 3, "cat": 1},
         {"objects": [1, 0], "relations": [[1, "chasing", 0]]},
         (("dog", "cat"), (), ("dog chasing cat",))),
    ],
    ids=["rich", "plain", "vague", "other order"],
)
def test_gold_phrases_by_hand(text, roles, facts, expected):
    assert tuple(gold_phrases(text, entry(text, roles, **facts)).values()) == expected


def test_parsed_phrases_by_hand():
    def entity(head: str, *modifiers: tuple[str, str]) -> dict:
        return {"head": head, "modifiers": [{"dep": d, "span": s} for d, s in modifiers]}

    entities = [entity("cat", ("det", "a"), ("amod", "Red")), entity("dogs", ("nummod", "two"))]
    edges = [{"subject": 0, "relation": "chasing", "object": 1}]
    graph = {"entities": entities, "relations": edges}
    (found,) = parsed_phrases([graph])
    assert found == {
        "object": ("cat", "dogs"),
        "attribute": ("red cat", "two dogs"),
        "relation": ("cat chasing dogs",),
    }


def test_every_phrase_of_the_world_is_in_its_caption(smoke_world):
    folder = smoke_world / "coco" / "annotations"
    captions, graphs = (folder / f"{name}_val2014.json" for name in ("captions", "scene_graphs"))
    found = world_phrases(captions, graphs)
    texts = [a["caption"] for a in json.loads(captions.read_text("utf-8"))["annotations"]]
    assert set(found) == set(texts)
    for text, phrases in found.items():
        words = text.split()
        for phrase in (p for kind in phrases.values() for p in kind):
            place = iter(words)
            assert all(word in place for word in phrase.split()), (text, phrase)


def test_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match="no captions with their gold"):
        world_phrases(tmp_path / "a.json", tmp_path / "b.json")
