"""Swaps of captions by hand: grammatical, false, and none where a relation is mutual."""

import re

import pytest
from open_clip import SimpleTokenizer
from spacy.tokens import Doc

from cae_bench.benchmarks.aro import SYMMETRIC_RELATIONS
from cae_lib.attribution.binding import swapped_captions
from cae_lib.config import bundled_path
from cae_lib.words.alignment import align, misplaced_swaps, token_roles
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.lexicon import ATTRIBUTE_SCALES, MUTUAL_PREPOSITIONS, are_contradictory
from cae_lib.words.pipeline import load_pipeline
from cae_lib.words.swaps import find_swaps
from data.recipes.synthetic_scenes.vocabulary import KIND_OF

NOUNS_AND_PHRASES = {
    "a brown dog to the left of a young boy": (
        {"a brown boy to the left of a young dog"},
        {"a young boy to the left of a brown dog"},
    ),
    "a duck right of a green dog": (
        {"a dog right of a green duck"},
        {"a green dog right of a duck"},
    ),
    "a small cat sitting in front of an umbrella": (
        {"a small umbrella sitting in front of a cat"},
        {"an umbrella sitting in front of a small cat"},
    ),
    "a photo of a cat on top of a small bed": (
        {"a photo of a bed on top of a small cat"},
        {"a photo of a small bed on top of a cat"},
    ),
    "the ball is held by a boy": ({"the boy is held by a ball"}, {"a boy is held by the ball"}),
    "a man who is riding a horse": ({"a horse who is riding a man"},) * 2,
    "there is a person underneath a kite": ({"there is a kite underneath a person"},) * 2,
    "a red dog near a blue cat": ({"a blue dog near a red cat"},) * 2,
    "three dogs near two cats": ({"two dogs near three cats"},) * 2,
    "a tall man behind a short man": (
        {"a short man behind a tall man"},
        {"a short man behind a tall man"},
    ),
    # the number or the article of one noun does not fit the other, so phrases move
    "two dogs chasing a cat": ({"a cat chasing two dogs"},) * 2,
    "a man holding fruit": ({"fruit holding a man"},) * 2,
    # two things are along each other, but who walks and who leans is said
    "a man walking along a road": ({"a road walking along a man"},) * 2,
    "a man leaning against a wall": ({"a wall leaning against a man"},) * 2,
    # an agent and a filling are directed though their prepositions are mutual
    "a horse ridden by a boy": ({"a boy ridden by a horse"},) * 2,
    "a plate filled with an apple": ({"an apple filled with a plate"},) * 2,
    "a man holding an orange": ({"an orange holding a man"},) * 2,  # no colour
    # a quantity moves as a whole
    "a herd of sheep is standing on a hill": ({"a hill is standing on a herd of sheep"},) * 2,
    "a group of people riding horses": ({"horses riding a group of people"},) * 2,
    "a close up of a bowl of fruit on a table": (
        {"a close up of a table on a bowl of fruit"},
        {"a close up of a table on a bowl of fruit"},
    ),
}


@pytest.fixture(scope="module")
def tagger() -> DependencyTagger:
    return DependencyTagger()


def texts(tagger: DependencyTagger, caption: str, moved: str) -> set[str]:
    """Return the captions that training would see."""
    tokenizer = SimpleTokenizer()
    words = token_roles([caption], tokenizer, tagger)
    _, _, variants = swapped_captions(
        words.tokens, words.words, words.roles, swaps=words.swaps, swap_kind=moved
    )
    return {tokenizer.decode(row[1 : int(row.argmax())].tolist()).strip() for row in variants}


@pytest.mark.parametrize("caption", NOUNS_AND_PHRASES)
def test_swaps_of_nouns_and_phrases_by_hand(tagger: DependencyTagger, caption: str) -> None:
    nouns, phrases = NOUNS_AND_PHRASES[caption]
    assert texts(tagger, caption, "noun") == nouns
    assert texts(tagger, caption, "phrase") == phrases


WITHOUT_SWAP = """
a dog near a cat / a dog and a cat / a man sitting next to a dog / a man with a hat
a man standing by a tree / a bus parked by a tree / a bus parked on the other side of a car
a group of people / a view of a giraffe / a picture of a dog / a lot of flowers
a man holding something / he is holding a ball / a dog on the left / a dog at night
a man walking his dog / a dog behind a dog / a dog is chasing cats
a group of people sit on a bench / a group of girls are waiting behind a fence
a man in black / a boy dressed in green / a sandwich cut in half
trees along a road / a bike against a wall / a two story house beside three trees
a small red dog / a red dog near a small cat / a red dog near a red cat
a red dog near a blue dog / a dog
"""
"""Mutual relations, quantities, pronouns and places; "his dog walking a man" before its owner;
"cats is chasing", "a bench sit"; colours are no things; "two" counts no houses; attributes of one
thing, of unlike kinds or alike; and the same scene."""


def test_captions_without_a_swap(tagger: DependencyTagger) -> None:
    captions = ["", *re.split(r" / |\n", WITHOUT_SWAP.strip())]
    swaps = [of_caption for _, of_caption in tagger.tag_with_swaps(captions)]
    assert {text: of_text for text, of_text in zip(captions, swaps, strict=True) if of_text} == {}


def test_swap_names_the_words_that_bind(tagger) -> None:
    caption = "a red dog sitting on a blue mat"
    _, (relation, attributes) = tagger.tag_with_swaps([caption])[0]
    assert caption[slice(*relation.binder)] == "sitting on"
    assert [caption[slice(*place)] for place in attributes.nouns] == ["red", "blue"]
    assert attributes.binder == (0, 0)


def test_things_are_swapped_once_though_two_relations_join_them() -> None:
    """A parse may take the noun after "on top of" for the object of the verb, too."""
    doc = Doc(
        load_pipeline().vocab,
        "a man riding on top of a horse".split(),
        tags="DT NN VBG IN NN IN DT NN".split(),
        pos="DET NOUN VERB ADP NOUN ADP DET NOUN".split(),
        deps="det ROOT acl prep pobj prep det dobj".split(),
        heads=[1, 1, 1, 2, 3, 4, 7, 2],
    )
    (swap,) = find_swaps(doc)
    assert doc.text[slice(*swap.binder)] == "riding on top of"


@pytest.mark.parametrize("change", [str, str.title])
def test_swaps_of_captions_that_people_wrote_fit_their_roles(tagger, change) -> None:
    lines = bundled_path("data/roles/captions.txt").read_text(encoding="utf-8").splitlines()
    captions = [change(re.sub(r"/[-OAR](?= |$)", "", line)) for line in lines]
    spans, swaps = zip(*tagger.tag_with_swaps(captions), strict=True)
    words = align(captions, spans, SimpleTokenizer(), swaps=swaps)
    assert words.swaps.any()
    assert not misplaced_swaps(words.swaps, words.words > 0, words.roles).any()


def test_attributes_of_the_synthetic_scenes_exclude_each_other_by_kind() -> None:
    for first, kind in KIND_OF.items():
        for second, other in KIND_OF.items():
            assert are_contradictory(first, second) == (kind == other and first != second)
    assert not are_contradictory("grey", "gray") and not are_contradictory("wooden", "red")
    assert all(word.islower() for scale in ATTRIBUTE_SCALES for group in scale for word in group)


def test_symmetric_relations_of_aro_are_mutual(tagger) -> None:
    """The other names of ARO's list, such as "sitting under", are directed."""
    mutual = [
        "beside", "by", "close to", "near", "next to", "with", "attached to", "between",
        "sitting next to", "standing near", "lying next to", "parked beside", "playing with",
        "talking to", "hugging", "facing", "walking by", "on the other side of",
    ]  # fmt: skip
    assert set(mutual) <= SYMMETRIC_RELATIONS
    for name in mutual:
        assert tagger.tag_with_swaps([f"a man {name} a woman"])[0][1] == [], name
    assert {"next_to", "beside", "near", "with"} <= MUTUAL_PREPOSITIONS
    assert tagger.tag_with_swaps(["a man sitting under a tree"])[0][1]
