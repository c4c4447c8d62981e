"""The binding method against swaps written by hand and open_clip's encoding of them."""

import dataclasses
import re

import pytest
import torch
from open_clip import SimpleTokenizer
from oracles import Batch, assert_gradient, make_batch
from torch import Tensor

from cae_lib.attribution import get_method
from cae_lib.attribution.binding import swapped_captions
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import text_encoder
from cae_lib.training.losses import AttributionLossOutput, CAELoss
from cae_lib.words.alignment import Alignment, align, token_roles
from cae_lib.words.phrases import stated_bindings
from cae_lib.words.roles import ATTRIBUTE, NO_OFFSETS, OBJECT, RELATION, Offsets, Span, Swap

NAME = "binding"
ROLES = {
    OBJECT: "pterodactyl dog cat umbrella chair fire-hydrant man ball bat",
    ATTRIBUTE: "red small blue striped",
    RELATION: "chasing under on near holding",
}
ROLE = {word: role for role, words in ROLES.items() for word in words.split()}
# Captions with each word that binds and the caption with the two that it binds swapped.
CASES = {
    "a red pterodactyl chasing a dog": {"chasing": ["a red dog chasing a pterodactyl"]},
    "an umbrella under a chair": {"under": ["a chair under an umbrella"]},
    "a small red dog on a blue striped chair": {
        "on": ["a small red chair on a blue striped dog"],
        "small": [
            "a blue red dog on a small striped chair",
            "a striped red dog on a blue small chair",
        ],
        "red": [
            "a small blue dog on a red striped chair",
            "a small striped dog on a blue red chair",
        ],
        "blue": [
            "a blue red dog on a small striped chair",
            "a small blue dog on a red striped chair",
        ],
        "striped": [
            "a striped red dog on a blue small chair",
            "a small striped dog on a blue red chair",
        ],
    },
    "a fire-hydrant near a dog": {"near": ["a dog near a fire-hydrant"]},
    "a red dog and a red cat": {},
    "a dog near a dog": {},
    "chasing a small red dog": {},
    "a man on": {},
}
STATEMENT = "a small red dog on a blue umbrella"
TEXTS = {
    "noun": "a small red umbrella on a blue dog",
    "phrase": "a blue umbrella on a small red dog",
    "attribute": "a small blue dog on a red umbrella",
}


def place(caption: str, text: str) -> Offsets:
    """Return where a text first stands in a caption."""
    start = caption.index(text)
    return start, start + len(text)


def spans(caption: str, said_of: dict[str, tuple[str, ...]] | None = None) -> list[Span]:
    """Return the spans of the words in `ROLE`, with the words that each is said of."""
    said_of = said_of or {}
    return [
        Span(
            word.start(),
            word.end(),
            ROLE[word.group()],
            tuple(place(caption, other) for other in said_of.get(word.group(), ())),
        )
        for word in re.finditer(r"\S+", caption)
        if word.group() in ROLE
    ]


@pytest.fixture(scope="module")
def tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


@pytest.fixture(scope="module")
def words(tokenizer) -> Alignment:
    """Return the captions of `CASES`, whose tagger knows neither arguments nor swaps."""
    return align([*CASES], [spans(caption) for caption in CASES], tokenizer)


@pytest.fixture(scope="module")
def with_swaps(tokenizer) -> Alignment:
    """Return a caption with a swap of a relation's arguments and one of attributes."""

    def at(*texts: str) -> tuple[Offsets, ...]:
        return tuple(place(STATEMENT, text) for text in texts)

    relation = Swap(at("dog", "umbrella"), at("a small red dog", "a blue umbrella"), *at("on"))
    attributes = Swap(at("red", "blue"), at("red", "blue"))
    swaps = [[], [relation, attributes]]
    return align(["a dog", STATEMENT], [[], spans(STATEMENT)], tokenizer, swaps=swaps)


@pytest.fixture
def named(tiny_clip) -> Batch:
    return make_batch(tiny_clip.model, tuple(CASES))


@pytest.fixture
def call(words: Alignment) -> dict[str, Tensor]:
    return {"roles": words.roles, "words": words.words}


def swapped(tokenizer, words: Alignment, **options) -> list[tuple[int, str, str]]:
    """Return row, binding words and text of each swap."""
    tensors = (words.tokens, words.words, words.roles, words.arguments, words.swaps)
    actual = []
    for row, scored, variant in zip(*swapped_captions(*tensors, **options), strict=True):
        text = tokenizer.decode(variant[1 : int(variant.argmax())].tolist())
        scored_words = tokenizer.decode(words.tokens[row, scored].tolist()).strip()
        actual.append((int(row), scored_words, text.strip().replace(" - ", "-")))
    return actual


@pytest.mark.parametrize(
    ("caption", "said_of", "expected"),
    [
        # the parser knows that the man holds the bat, and that the ball is red
        (
            "a man near a ball holding a bat",
            {"holding": ("man", "bat"), "near": ("man", "ball")},
            {"a bat near a ball holding a man", "a ball near a man holding a bat"},
        ),
        (
            "a man near a ball holding a bat",
            {},
            {"a man near a bat holding a ball", "a ball near a man holding a bat"},
        ),
        (
            "a red ball near a small blue bat",
            {"red": ("ball",), "small": ("ball",), "blue": ("bat",)},
            {
                "a red bat near a small blue ball",
                "a blue ball near a small red bat",
                "a red ball near a blue small bat",
            },
        ),
        (  # of "small" nothing is known, but no object stands between the two
            "a red small ball near a bat",
            {"red": ("ball",)},
            {"a red small bat near a ball"},
        ),
        ("a ball that man holding", {"holding": ("man", "ball")}, {"a man that ball holding"}),
    ],
)
def test_arguments_come_before_the_nearest_objects(caption, said_of, expected, tokenizer) -> None:
    words = align([caption], [spans(caption, said_of)], tokenizer)
    assert {text for *_, text in swapped(tokenizer, words)} == expected
    (actual,) = stated_bindings(words)
    assert len(actual) == len(said_of)


def test_bindings_have_all_that_their_word_is_said_of(tokenizer) -> None:
    """A relation counts with its subject and its object alone, an attribute with its bearer."""
    caption = "a red pterodactyl under a dog near a small cat"
    said_of = {"red": ("pterodactyl",), "under": ("pterodactyl", "dog"), "near": ("dog",)}

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text))

    assert len(ids("pterodactyl")) > 1
    assert stated_bindings(align([caption], [spans(caption, said_of)], tokenizer)) == [
        {
            (ATTRIBUTE, ids("red"), ids("pterodactyl")),
            (RELATION, ids("under"), ids("pterodactyl"), ids("dog")),
        }
    ]


@pytest.mark.parametrize(
    ("caption", "requested", "expected"),
    [
        ("a small dog on a blue cat", "blue", {"a blue dog on a small cat"}),
        ("a small dog on a blue cat", "on", {"a small cat on a blue dog"}),
        ("a small dog on a blue cat", "dog", set()),
        ("a dog chasing under a cat", "under", {"a cat chasing under a dog"}),  # a unit of two
    ],
)
def test_a_swap_is_made_for_any_of_its_requested_words(caption, requested, expected, tokenizer):
    words = align([caption], [spans(caption)], tokenizer)
    is_requested = words.tokens == tokenizer.encode(requested)[0]
    assert {text for *_, text in swapped(tokenizer, words, requested=is_requested)} == expected


@pytest.mark.parametrize("path", ["packed", "reference"])
@torch.no_grad()
def test_scores_are_those_of_the_texts_by_hand(path, named, call, words, tokenizer, attribute):
    batch = dataclasses.replace(named, model=text_encoder(named.model, path))
    actual = attribute(batch, NAME, call)
    whole = named.similarity(named.model.encode_text(named.tokens))
    for row, (caption, texts_of) in enumerate(CASES.items()):
        for number, word in enumerate(caption.replace("-", " - ").split(), start=1):
            inside = (words.words[row] == number)[: actual.sequence_length]
            texts = texts_of.get(word, [])
            expected = torch.zeros((), dtype=torch.float64)
            if texts:
                features = named.model.encode_text(tokenizer(texts))
                image = named.image_features[row]
                expected = (whole[row] - torch.cosine_similarity(image, features)).mean()
            scores = actual.scores[row, inside]
            torch.testing.assert_close(scores, expected.expand_as(scores), atol=1e-10, rtol=0)
            assert (actual.has_score[row, inside] == bool(texts)).all()
    assert actual.has_score.any()


@pytest.mark.parametrize("source", ["roles", "tagger"])
def test_the_placebo_swaps_any_two_words_for_the_same_words(source, tokenizer, words, with_swaps):
    words, captions = (words, [*CASES]) if source == "roles" else (with_swaps, ["a dog", STATEMENT])
    options = {"exchange": "any", "generator": torch.Generator().manual_seed(0)}
    bound, texts = swapped(tokenizer, words), set()
    for _ in range(50):
        placebo = swapped(tokenizer, words, **options, vocabulary_size=None)
        assert [swap[:2] for swap in placebo] == [swap[:2] for swap in bound]
        for row, _, text in placebo:
            old, new = (caption.replace("-", " - ").split() for caption in (captions[row], text))
            assert sorted(old) == sorted(new)
            assert sum(a != b for a, b in zip(old, new, strict=True)) == 2
            texts |= {text} if row == 1 else set()
    assert len(texts) == (10 if source == "roles" else 27)  # pairs of different words


def test_gradient_is_that_of_finite_differences(named, call, attribute) -> None:
    def score() -> Tensor:
        scores = attribute(named, NAME, call | {"create_graph": True}).scores
        return (scores * torch.linspace(-1, 1, scores.shape[1])).sum()

    assert_gradient(score, named.model.transformer.resblocks[1].mlp.c_fc.weight)


@pytest.mark.parametrize(
    ("moved", "texts"), [("noun", {"noun"}), ("phrase", {"phrase"}), ("half", {"noun", "phrase"})]
)
def test_swaps_of_a_tagger_move_nouns_phrases_or_half_of_each(
    tokenizer, with_swaps, moved, texts
) -> None:
    options = {"swap_kind": moved, "generator": torch.Generator().manual_seed(0)}
    drawn = [swapped(tokenizer, with_swaps, **options) for _ in range(100)]
    assert {draw[0] for draw in drawn} == {(1, "on", TEXTS[text]) for text in texts}
    assert all(draw[1:] == [(1, "red blue", TEXTS["attribute"])] for draw in drawn)
    if moved == "half":
        assert 30 < sum(draw[0][2] == TEXTS["noun"] for draw in drawn) < 70
    sampled = [swapped(tokenizer, with_swaps, samples=1, **options) for _ in range(100)]
    assert {text for ((_, _, text),) in sampled} == {TEXTS[t] for t in (*texts, "attribute")}
    blue = with_swaps.tokens == tokenizer.encode("blue")[0]
    (attributes,) = swapped(tokenizer, with_swaps, requested=blue, **options)
    assert attributes[2] == TEXTS["attribute"]


@pytest.mark.parametrize("moved", ["noun", "phrase", "half"])
def test_where_nouns_cannot_move_phrases_do_and_the_other_way_round(moved, tokenizer) -> None:
    caption = "two dogs on a cat"
    nouns = (place(caption, "dogs"), place(caption, "cat"))
    phrases = (place(caption, "two dogs"), place(caption, "a cat"))
    nowhere, binder = (NO_OFFSETS, NO_OFFSETS), place(caption, "on")
    for swap, expected in (
        (Swap(nowhere, phrases, binder), "a cat on two dogs"),
        (Swap(nouns, nowhere, binder), "two cat on a dogs"),
    ):
        words = align([caption], [[]], tokenizer, swaps=[[swap]])
        assert [text for *_, text in swapped(tokenizer, words, swap_kind=moved)] == [expected]


def test_articles_follow_sounds_in_a_tagger_s_swaps_and_letters_in_those_from_roles(tokenizer):
    """The published runs with swaps from roles were trained so; articles elsewhere stay."""
    caption = "an hour on a uniform with a eel"
    places = (place(caption, "hour"), place(caption, "uniform"))
    swaps = [[Swap(places, places, place(caption, "on"))]]
    roles = {"hour": OBJECT, "on": RELATION, "uniform": OBJECT}
    marked = [Span(*place(caption, word), role) for word, role in roles.items()]
    by_tagger = swapped(tokenizer, align([caption], [[]], tokenizer, swaps=swaps))
    by_roles = swapped(tokenizer, align([caption], [marked], tokenizer))
    assert by_tagger[0][2] == "a uniform on an hour with a eel"
    assert by_roles[0][2] == "an uniform on a hour with a eel"
    other = swapped(tokenizer, align([caption], [marked], tokenizer), vocabulary_size=None)
    assert other[0][2] == "an uniform on a hour with a eel"  # of another vocabulary as they were


def test_the_loss_is_that_of_the_texts_that_the_tagger_s_swaps_make(
    tiny_clip, tokenizer, with_swaps
):
    """Of the attribute `small`, which is in no swap, there is no hinge."""
    batch = make_batch(tiny_clip.model, ("a dog", STATEMENT))
    loss = CAELoss(batch.model, NAME, 3.0, margin=0.5, hinge="margin", swap="phrase")
    inputs = (batch.image_features, with_swaps.tokens, with_swaps.roles, with_swaps.words)
    texts = [STATEMENT, TEXTS["attribute"], TEXTS["phrase"]]
    features = batch.model.encode_text(tokenizer(texts))
    whole, *others = torch.cosine_similarity(batch.image_features[1], features)
    hinges = [(0.5 - (whole - other)).clamp(min=0) for other in others]
    output = loss(*inputs, swaps=with_swaps.swaps)
    torch.testing.assert_close(output.loss, 3 * (hinges[0] + hinges[1]) / 2)
    with pytest.raises(ConfigError, match="roles"):
        get_method(NAME)(batch.model, batch.tokens, batch.image_features)
    for wrong in (with_swaps.swaps[:1], with_swaps.swaps.float(), with_swaps.swaps[..., 0]):
        with pytest.raises(DataError, match="swaps"):
            loss(*inputs, swaps=wrong)


DOG, ON, UMBRELLA, NOWHERE = (4, 5), (5, 6), (8, 9), (0, 0)
"""Tokens of words of `STATEMENT`, whose end-of-text token is token 9."""

NO_SWAPS = {
    "the later noun first": ((UMBRELLA, DOG), ON),
    "nouns that overlap": (((3, 8), (7, 9)), ON),
    "a noun read backwards": (((5, 4), UMBRELLA), ON),
    "a single noun": ((DOG, NOWHERE), ON),
    "the start token": (((0, 5), UMBRELLA), ON),
    "the end token": ((DOG, (8, 10)), ON),
    "padding": ((DOG, (20, 21)), ON),
    "beyond the tokens": ((DOG, (8, 78)), ON),
    "before the tokens": (((-1, 5), UMBRELLA), ON),
    "an object as binder": ((DOG, UMBRELLA), DOG),
    "the end token in the binder": ((DOG, UMBRELLA), (5, 10)),
}
"""Two parts and a binder that are no swap of `STATEMENT`, by what is wrong."""


@pytest.mark.parametrize(("nouns", "binder"), NO_SWAPS.values(), ids=NO_SWAPS)
@pytest.mark.parametrize("moved", ["nouns", "phrases"])
def test_ranges_that_are_no_swap_of_the_caption_are_refused(
    moved, nouns, binder, tiny_clip, with_swaps
) -> None:
    images = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    loss = CAELoss(tiny_clip.model, NAME, margin=0.5)

    def call(nouns: tuple[Offsets, Offsets], binder: Offsets) -> AttributionLossOutput:
        parts = {"nouns": (NOWHERE, NOWHERE), "phrases": (NOWHERE, NOWHERE)} | {moved: nouns}
        swaps = with_swaps.swaps.clone()
        swaps[1, 1] = torch.tensor([*parts["nouns"], *parts["phrases"], binder])
        return loss(images, with_swaps.tokens, with_swaps.roles, with_swaps.words, swaps=swaps)

    assert call((DOG, UMBRELLA), ON).n_composition > 0
    with pytest.raises(DataError, match="caption 1 .* swap 1 "):
        call(nouns, binder)


@pytest.mark.parametrize("has_words", [True, False])
def test_swaps_or_roles_of_a_shuffled_batch_are_refused(has_words, tiny_clip, tokenizer) -> None:
    captions = [
        "a black dog chases a white cat",
        "two kids in a field throw a ball to a man",
        "the cat",
        "a girl with a blue umbrella walks behind a bus",
    ]
    words = token_roles(captions, tokenizer, "dependency")
    images = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    numbers = words.words if has_words else None
    loss = CAELoss(tiny_clip.model, NAME, margin=0.5)
    loss(images, words.tokens, words.roles, numbers, swaps=words.swaps)
    for roles, swaps in (
        (words.roles, words.swaps.roll(1, 0)),
        (words.roles.roll(1, 0), words.swaps),
    ):
        with pytest.raises(DataError, match="caption "):
            loss(images, words.tokens, roles, numbers, swaps=swaps)
