"""Taggers by hand, the paper's also against the parser itself, and the phrases of captions."""

import html
import pickle

import pytest
import sng_parser
import torch
from open_clip import SimpleTokenizer

from cae_lib.errors import DataError
from cae_lib.words.alignment import token_roles
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.phrases import ground_truth_phrases, load_ground_truth_phrases, parsed_phrases
from cae_lib.words.pipeline import spacy_model_name
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION
from cae_lib.words.scene_graph import SceneGraphTagger

CAPTIONS = [
    "A woman is playing the piano in the room.",
    "a man next to a man in front of a wooden house",
    "Two brown dogs and a cat sitting next to a big old fire hydrant.",
    "The ball is held by a boy.",
    "A woman is playing with the old piano.",
    "It looks at  a bird\n",
]


@pytest.fixture(scope="module")
def taggers() -> dict[str, SceneGraphTagger | DependencyTagger]:
    return {
        "paper": SceneGraphTagger(),
        "determiners": SceneGraphTagger(determiners=True),
        "dependency": DependencyTagger(),
    }


@pytest.mark.parametrize(
    ("tagger", "caption", "objects", "attributes", "relations"),
    [
        ("paper", CAPTIONS[2], "dogs, cat, fire hydrant", "Two, brown, big, old", "next to"),
        ("paper", "a dog on the mat", "dog, mat", "", "on"),
        ("determiners", "a dog on the mat", "dog, mat", "a", "on"),
        ("dependency", "The horse is brown and white.", "horse", "brown, white", ""),
        ("dependency", "A cat sitting on top of a table.", "cat, table", "", "sitting on top of"),
        ("dependency", "a red cat to the left of a dog", "cat, dog", "red", "to, left of"),
        ("dependency", "The ball is held by a boy.", "ball, boy", "", "held by"),
        ("dependency", "A lamp next to two big beds.", "lamp, beds", "two, big", "next to"),
        ("dependency", "A baseball player is running.", "baseball player", "", ""),
        ("dependency", "A woman picks up a ball.", "woman, ball", "", "picks up"),
        ("dependency", "A bottle stands at the side.", "bottle, side", "", "stands at"),
        ("dependency", "A wooden and metal chair.", "metal chair", "wooden", ""),
    ],
)
def test_roles_by_hand(tagger, caption, objects, attributes, relations, taggers) -> None:
    (spans,) = taggers[tagger].tag([caption])
    actual = [
        ", ".join(caption[s.start : s.end] for s in spans if s.role == role)
        for role in (OBJECT, ATTRIBUTE, RELATION)
    ]
    assert actual == [objects, attributes, relations]


@pytest.mark.parametrize(
    ("tagger", "caption", "role", "expected"),
    [
        # of a word said twice the parser's is the first, since it gives no places
        ("paper", CAPTIONS[1], OBJECT, [(2, 5), (41, 46)]),
        ("dependency", "a man and a man", OBJECT, [(2, 5), (12, 15)]),
        ("paper", "A hot dog on a plate on a table.", RELATION, [(10, 12)]),
        # a word inside a longer one is not its place
        ("paper", "an art party with a car", OBJECT, [(3, 12), (20, 23)]),
        ("paper", "a carpet under a car", OBJECT, [(2, 8), (17, 20)]),
        ("paper", "a hotdog near a dog", OBJECT, [(2, 8), (16, 19)]),
        # the parser says "coffee glass table"
        ("paper", "A glass coffee table sits in a room.", OBJECT, [(0, 0), (31, 35)]),
    ],
)
def test_places_by_hand(tagger, caption, role, expected, taggers) -> None:
    (spans,) = taggers[tagger].tag([caption])
    assert [(s.start, s.end) for s in spans if s.role == role] == expected


@pytest.mark.parametrize("tagger", ["paper", "dependency"])
@pytest.mark.parametrize(
    "caption",
    ["a dog beside a red &amp;amp; white umbrella", "A dog behind the boy&#39;s  small ball"],
)
def test_parser_reads_the_text_that_entities_stand_for(tagger, caption, taggers) -> None:
    plain = html.unescape(html.unescape(caption))
    spans, expected = taggers[tagger].tag([caption, plain])
    texts = [html.unescape(html.unescape(caption[s.start : s.end])) for s in spans]
    assert texts == [plain[s.start : s.end] for s in expected]
    escaped, unescaped = (
        token_roles([text], SimpleTokenizer(), taggers[tagger]) for text in (caption, plain)
    )
    for name in ("tokens", "roles", "words", "arguments", "swaps"):
        actual, same = getattr(escaped, name), getattr(unescaped, name)
        assert actual is same is None or torch.equal(actual, same), name


def test_scene_graph_gives_the_bearers_of_attributes_and_relations(taggers) -> None:
    caption = "a red dog chasing a small cat under a tree"
    (spans,) = taggers["paper"].tag([caption])
    bearers = {caption[s.start : s.end]: [caption[slice(*of)] for of in s.arguments] for s in spans}
    assert bearers == {"dog": [], "cat": [], "tree": [], "red": ["dog"], "small": ["cat"]} | {
        "chasing": ["dog", "cat"],
        "under": ["dog", "tree"],
    }


def test_scene_graphs_are_the_plain_parsers_each_made_once_and_in_order(
    taggers, monkeypatch
) -> None:
    plain = sng_parser.Parser("spacy", model=spacy_model_name())
    tagger, seen = taggers["paper"], []
    assert tagger.graphs(CAPTIONS) == [plain.parse(caption) for caption in CAPTIONS]
    parse = tagger._parser.parse
    monkeypatch.setattr(tagger._parser, "parse", lambda doc: seen.append(doc.text) or parse(doc))
    first, second = CAPTIONS[:2]
    spans = tagger.tag([second, first, second])
    assert seen == [second, first]
    assert spans == [*tagger.tag([second]), *tagger.tag([first]), spans[0]]


def test_identity_tells_taggers_apart_and_is_pickled(taggers) -> None:
    identities = {tagger.identity for tagger in taggers.values()}
    assert len(identities) == 3 and all("3.8" in identity for identity in identities)
    again = pickle.loads(pickle.dumps(taggers["determiners"]))
    assert again.identity == taggers["determiners"].identity
    assert again.tag(CAPTIONS) == taggers["determiners"].tag(CAPTIONS)


@pytest.mark.parametrize(
    ("text", "roles", "facts", "expected"),
    [
        (
            "a large red cat is to the left of a blue dog",
            {"large": 2, "red": 2, "cat": 1, "left": 3, "blue": 2, "dog": 1},
            {
                "attributes": [[0, "large"], [0, "red"], [1, "blue"]],
                "relations": [[0, "left of", 1]],
            },
            (("cat", "dog"), ("large cat", "red cat", "blue dog"), ("cat to the left of dog",)),
        ),
        ("a cat with a dog", {"cat": 1, "with": 3, "dog": 1}, {}, (("cat", "dog"), (), ())),
        (
            "a dog chasing a cat",
            {"dog": 1, "chasing": 3, "cat": 1},
            {"objects": [1, 0], "relations": [[1, "chasing", 0]]},
            (("dog", "cat"), (), ("dog chasing cat",)),
        ),
    ],
    ids=["rich", "vague", "other order"],
)
def test_gold_phrases_by_hand(text, roles, facts, expected) -> None:
    spans = [[text.index(word), text.index(word) + len(word), role] for word, role in roles.items()]
    entry = {"spans": spans, "objects": [0, 1], "attributes": [], "relations": [], **facts}
    assert tuple(ground_truth_phrases(text, entry).values()) == expected


def test_parsed_phrases_by_hand() -> None:
    heads = {"cat": [("det", "a"), ("amod", "Red")], "dogs": [("nummod", "two")]}
    entities = [
        {"head": head, "modifiers": [{"dep": dep, "span": span} for dep, span in modifiers]}
        for head, modifiers in heads.items()
    ]
    edges = [{"subject": 0, "relation": "chasing", "object": 1}]
    (actual,) = parsed_phrases([{"entities": entities, "relations": edges}])
    assert tuple(actual) == ("object", "attribute", "relation")
    expected = (("cat", "dogs"), ("red cat", "two dogs"), ("cat chasing dogs",))
    assert tuple(actual.values()) == expected


def test_gold_phrases_that_are_not_there_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match="a.json"):
        load_ground_truth_phrases(tmp_path / "a.json", tmp_path / "b.json")
