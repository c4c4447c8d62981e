"""Ground-truth roles and swaps against the generators of captions and of what is false."""

import json
import warnings
from pathlib import Path

import pytest
from open_clip import SimpleTokenizer

from cae_lib.errors import DataError
from cae_lib.words.alignment import align, misplaced_swaps, token_roles
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.ground_truth import PairedImageTagger, SyntheticSceneTagger
from cae_lib.words.pipeline import SwapTagger
from cae_lib.words.roles import ATTRIBUTE, NO_OFFSETS, OBJECT, ROLE_NAMES, swap_substrings
from data.recipes.synthetic_scenes.config import WORLDS
from data.recipes.synthetic_scenes.corpora import coco_images, scene_graphs
from data.recipes.synthetic_scenes.edits import swapped
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


def test_every_swap_is_an_edit_of_the_statement_that_is_certainly_false(corpus, truth) -> None:
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
                    found = swap_substrings(statement.text, *places)
                    assert without_articles(found) == without_articles(expected.text)
            false = {
                " ".join(without_articles(edit.text)): edit
                for i, first in enumerate(statement.mentions)
                for j, second in enumerate(statement.mentions[:i])
                for a in first.attributes
                for b in second.attributes
                for edit in [
                    statement.changed(
                        i, attributes=tuple(b if w == a else w for w in first.attributes)
                    ).changed(j, attributes=tuple(a if w == b else w for w in second.attributes))
                ]
            }
            for swap in swaps:
                attributes += 1
                text = " ".join(without_articles(swap_substrings(statement.text, *swap.nouns)))
                assert not false[text].may_be_true(item.scene)
    assert relations > 20 and attributes > 5


def test_the_dependency_tagger_finds_nearly_the_same_swaps(corpus, truth) -> None:
    captions = [text for item in corpus for text in item.captions]
    found = [swaps for _, swaps in DependencyTagger().tag_with_swaps(captions)]
    known = [swaps for _, swaps in truth.tag_with_swaps(captions)]
    both = [
        {(s.nouns, s.phrases) for s in a} & {(s.nouns, s.phrases) for s in b}
        for a, b in zip(found, known, strict=True)
    ]
    n_both, n_found, n_known = (sum(map(len, some)) for some in (both, found, known))
    assert n_both >= 0.95 * n_found and n_both >= 0.93 * n_known


def test_captions_of_the_scenes_are_no_titles(corpus, truth) -> None:
    captions = [text for item in corpus for text in item.captions]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        token_roles(captions, SimpleTokenizer(), truth)


@pytest.mark.parametrize("tagger", ["truth", "dependency"])
def test_no_swap_of_a_tagger_contradicts_its_roles(tagger, corpus, truth) -> None:
    captions = [text for item in corpus for text in item.captions]
    used = truth if tagger == "truth" else DependencyTagger()
    assert_swaps_fit(captions, used)


def test_no_swap_of_paired_captions_contradicts_their_roles() -> None:
    phrases = ["a brown hat", "two children", "a black and white dog", "the german shepherd"]
    relations = ["to the left of", "to the right of", "above", "below"]
    captions = [f"{a} {relation} {b}" for a in phrases for b in phrases for relation in relations]
    assert_swaps_fit(captions, PairedImageTagger())


def assert_swaps_fit(captions: list[str], tagger: SwapTagger) -> None:
    """Assert that `CAELoss` would take all swaps of a tagger."""
    spans, swaps = zip(*tagger.tag_with_swaps(captions), strict=True)
    words = align(captions, spans, SimpleTokenizer(), swaps=swaps)
    assert words.swaps.any()
    assert not misplaced_swaps(words.swaps, words.words > 0, words.roles).any()


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
def test_paired_captions_by_hand(caption, roles, nouns, phrases) -> None:
    ((spans, swaps),) = PairedImageTagger().tag_with_swaps([caption])
    assert {caption[span.start : span.end]: span.role for span in spans} == roles
    assert {ROLE_NAMES[span.role] for span in spans if span.arguments} <= {"attribute", "relation"}
    assert sum(span.role == OBJECT for span in spans) == 2
    if nouns is None:
        assert swaps[0].nouns == (NO_OFFSETS, NO_OFFSETS)
    else:
        assert swap_substrings(caption, *swaps[0].nouns) == nouns
    assert swap_substrings(caption, *swaps[0].phrases) == phrases


def test_attributes_of_a_paired_caption_belong_to_their_own_thing() -> None:
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
