"""Ground-truth roles and swaps against the generators of captions and of what is false."""

import json
from pathlib import Path

import pytest

from cae_lib.errors import DataError
from cae_lib.words.ground_truth import PairedImageTagger, SyntheticSceneTagger
from cae_lib.words.roles import ATTRIBUTE, NO_OFFSETS, swap_substrings
from data.recipes.synthetic_scenes.config import WORLDS
from data.recipes.synthetic_scenes.corpora import coco_images, scene_graphs
from data.recipes.synthetic_scenes.edits import attribute_swaps, swapped
from data.recipes.synthetic_scenes.grammar import true_spans


@pytest.fixture(scope="module")
def corpus():
    return coco_images(WORLDS["smoke"], "train")


@pytest.fixture(scope="module")
def truth(corpus, tmp_path_factory: pytest.TempPathFactory) -> SyntheticSceneTagger:
    folder = tmp_path_factory.mktemp("coco")
    captions = [{"caption": text} for item in corpus for text in item.captions]
    (folder / "captions.json").write_text(json.dumps({"annotations": captions}))
    (folder / "graphs.json").write_text(scene_graphs(corpus))
    return SyntheticSceneTagger([(folder / "captions.json", folder / "graphs.json")])


def without_articles(text: str) -> list[str]:
    return [word for word in text.split() if word not in ("a", "an")]


def test_roles_are_those_of_the_grammar(corpus, truth) -> None:
    for item in corpus:
        for statement in item.statements:
            assert truth.tag([statement.text]) == [true_spans(statement)]


def test_swaps_are_edits_of_the_statement_that_are_certainly_false(corpus, truth) -> None:
    relations = attributes = 0
    for item in corpus:
        for statement in item.statements:
            ((_, swaps),) = truth.tag_with_swaps([statement.text])
            if statement.relation:
                relations += 1
                relation, *swaps = swaps
                for places, fields in ((relation.nouns, ["noun"]), (relation.phrases, [])):
                    expected = swapped(statement, 0, 1, *fields)
                    assert not expected.may_be_true(item.scene)
                    text = swap_substrings(statement.text, *places)
                    assert without_articles(text) == without_articles(expected.text)
            edits = {tuple(without_articles(e.text)): e for e in attribute_swaps(statement)}
            for swap in swaps:
                attributes += 1
                text = swap_substrings(statement.text, *swap.nouns)
                assert not edits[tuple(without_articles(text))].may_be_true(item.scene)
    assert relations > 20 and attributes > 5


def test_unknown_captions_and_broken_files_are_errors(truth, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a caption of nobody"):
        truth.tag(["a caption of nobody"])
    with pytest.raises(DataError, match="captions.json"):
        SyntheticSceneTagger([(tmp_path / "captions.json", tmp_path / "graphs.json")])
    with pytest.raises(DataError, match="a dog near a cat"):
        PairedImageTagger().tag(["a dog near a cat"])


@pytest.mark.parametrize(
    ("caption", "roles", "nouns", "phrases"),
    [
        (
            "a brown hat to the left of a blue coat",
            {"brown": 2, "hat": 1, "left": 3, "blue": 2, "coat": 1},
            "a brown coat to the left of a blue hat",
            "a blue coat to the left of a brown hat",
        ),
        (
            "two children above a rugby player",
            {"two": 2, "children": 1, "above": 3, "rugby player": 1},
            None,
            "a rugby player above two children",
        ),
        (
            "a black and white dog below the german shepherd",
            {"black": 2, "white": 2, "dog": 1, "below": 3, "german shepherd": 1},
            "a black and white german shepherd below the dog",
            "the german shepherd below a black and white dog",
        ),
    ],
)
def test_roles_and_swaps_of_paired_captions_by_hand(caption, roles, nouns, phrases) -> None:
    ((spans, swaps),) = PairedImageTagger().tag_with_swaps([caption])
    assert {caption[span.start : span.end]: span.role for span in spans} == roles
    if nouns is None:
        assert swaps[0].nouns == (NO_OFFSETS, NO_OFFSETS)
    else:
        assert swap_substrings(caption, *swaps[0].nouns) == nouns
    assert swap_substrings(caption, *swaps[0].phrases) == phrases


def test_attributes_of_paired_captions_belong_to_their_own_thing() -> None:
    """Black and white, of one dog, are not swapped; each of them is with the other thing's."""
    caption = "a black and white dog below a brown cat"
    ((spans, (_, *swaps)),) = PairedImageTagger().tag_with_swaps([caption])
    bearers = {
        caption[s.start : s.end]: [caption[slice(*noun)] for noun in s.arguments]
        for s in spans
        if s.role == ATTRIBUTE
    }
    assert bearers == {"black": ["dog"], "white": ["dog"], "brown": ["cat"]}
    pairs = [tuple(caption[slice(*place)] for place in swap.nouns) for swap in swaps]
    assert pairs == [("black", "brown"), ("white", "brown")]
