"""The binding method against swaps written by hand and open_clip's encoding of them."""

import dataclasses
import re

import pytest
import torch
from open_clip import SimpleTokenizer
from oracles import Batch, assert_gradient, make_batch
from torch import Tensor

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
KNOWN = "a small red dog on a blue umbrella"
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
def known(tokenizer) -> Alignment:
    """Return a caption with a swap of a relation's arguments and one of attributes."""

    def at(*texts: str) -> tuple[Offsets, ...]:
        return tuple(place(KNOWN, text) for text in texts)

    relation = Swap(at("dog", "umbrella"), at("a small red dog", "a blue umbrella"), *at("on"))
    attributes = Swap(at("red", "blue"), at("red", "blue"))
    swaps = [[], [relation, attributes]]
    return align(["a dog", KNOWN], [[], spans(KNOWN)], tokenizer, swaps=swaps)


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


def test_swaps_from_roles_by_hand(tokenizer, words) -> None:
    expected = {
        (row, text)
        for row, texts_of in enumerate(CASES.values())
        for texts in texts_of.values()
        for text in texts
    }
    actual = swapped(tokenizer, words)
    assert {(row, text) for row, _, text in actual} == expected
    assert len(actual) == len(expected)
    for row, scored, text in actual:
        assert all(text in [*CASES.values()][row][word] for word in scored.split())
    other_vocabulary = swapped(tokenizer, words, vocabulary_size=None)
    assert other_vocabulary[1][2] == "an chair under a umbrella"  # articles stay as they are


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


def test_articles_that_nothing_moves_next_to_stay(tokenizer) -> None:
    caption = "an hour before a man holding a umbrella, a eel"
    marked = [Span(*place(caption, word), ROLE[word]) for word in ("man", "holding", "umbrella")]
    (actual,) = swapped(tokenizer, align([caption], [marked], tokenizer))
    assert actual[1:] == ("holding", "an hour before an umbrella holding a man , a eel")


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


@torch.no_grad()
def test_a_bag_of_words_binds_nothing(named, call, attribute) -> None:
    """Without positions, with one layer that attends evenly, the features are a sum over words."""
    model = named.model
    model.positional_embedding.zero_()
    for number, block in enumerate(model.transformer.resblocks):
        block.attn.in_proj_weight[: 2 * block.attn.embed_dim] = 0
        block.attn.in_proj_bias[: 2 * block.attn.embed_dim] = 0
        for layer in (block.mlp.c_proj, *([block.attn.out_proj] if number else [])):
            layer.weight.zero_()
            layer.bias.zero_()
    assert attribute(named, "perturbation").scores.abs().max() > 1e-3, "words count"
    actual = attribute(named, NAME, call)
    assert actual.has_score.any() and actual.scores.abs().max() < 1e-12


@torch.no_grad()
def test_samples_and_requested_words(named, call, attribute, words) -> None:
    every, seen = attribute(named, NAME, call), torch.zeros_like(words.roles, dtype=torch.bool)
    torch.manual_seed(0)
    for _ in range(60):
        has_score = attribute(named, NAME, call, samples=1).has_score
        for numbers, scored in zip(words.words[:, : has_score.shape[1]], has_score, strict=True):
            assert len(numbers[scored].unique()) <= 2  # the two attributes of one swap
        seen[:, : has_score.shape[1]] |= has_score
    assert torch.equal(seen[:, : every.sequence_length], every.has_score)
    requested = words.roles == RELATION
    actual = attribute(named, NAME, call | {"requested": requested})
    assert torch.equal(actual.has_score, every.has_score & requested[:, : every.sequence_length])


@pytest.mark.parametrize("source", ["roles", "tagger"])
def test_the_placebo_swaps_any_two_words_for_the_same_words(
    source, tokenizer, words, known
) -> None:
    generator, texts = torch.Generator().manual_seed(0), set()
    words, captions = (words, [*CASES]) if source == "roles" else (known, ["a dog", KNOWN])
    bound = swapped(tokenizer, words)
    options = {"exchange": "any", "generator": generator, "vocabulary_size": None}
    for _ in range(50):
        actual = swapped(tokenizer, words, **options)
        assert [swap[:2] for swap in actual] == [swap[:2] for swap in bound]
        for row, _, text in actual:
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


def test_the_hinge_is_on_words_with_a_score(named, call, attribute) -> None:
    loss = CAELoss(named.model, NAME, 3.0, margin=0.5, hinge="margin")
    output = loss(named.image_features, named.tokens, call["roles"], call["words"])
    actual = attribute(named, NAME, call)
    roles = call["roles"][:, : actual.sequence_length]
    hinges = [
        (0.5 - actual.scores[actual.has_score & (roles == role)]).clamp(min=0).mean()
        for role in (ATTRIBUTE, RELATION)
    ]
    torch.testing.assert_close(output.loss, 3 * (hinges[0] + hinges[1]) / 2)
    with pytest.raises(ConfigError, match="roles"):
        attribute(named, NAME)
    none = {"roles": torch.zeros_like(call["roles"])}
    assert not attribute(named, NAME, none).has_score.any()


@pytest.mark.parametrize("moved", ["noun", "phrase"])
def test_swaps_of_a_tagger_move_what_is_asked(tokenizer, known, moved) -> None:
    expected = [(1, "on", TEXTS[moved]), (1, "red blue", TEXTS["attribute"])]
    assert swapped(tokenizer, known, swap_kind=moved) == expected


def test_half_of_the_swaps_move_nouns(tokenizer, known) -> None:
    generator = torch.Generator().manual_seed(0)
    options = {"swap_kind": "half", "generator": generator}
    texts = [swapped(tokenizer, known, **options)[0][2] for _ in range(200)]
    assert set(texts) == {TEXTS["noun"], TEXTS["phrase"]}
    assert 70 < texts.count(TEXTS["noun"]) < 130


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


def test_samples_and_requested_words_of_a_tagger_s_swaps(tokenizer, known) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [swapped(tokenizer, known, samples=1, generator=generator) for _ in range(100)]
    assert {text for ((_, _, text),) in drawn} == {TEXTS["noun"], TEXTS["attribute"]}
    blue = known.tokens == tokenizer.encode("blue")[0]
    assert [text for *_, text in swapped(tokenizer, known, requested=blue)] == [TEXTS["attribute"]]


def test_articles_follow_the_sound_of_the_next_word(tokenizer) -> None:
    caption = "an hour on a uniform"
    places = (place(caption, "hour"), place(caption, "uniform"))
    swap = Swap(places, places, place(caption, "on"))
    words = align([caption], [[]], tokenizer, swaps=[[swap]])
    assert swapped(tokenizer, words)[0][2] == "a uniform on an hour"


def test_articles_follow_the_first_letter_where_swaps_come_from_roles(tokenizer) -> None:
    """The published runs with these swaps were trained so."""
    caption = "an hour near a uniform"
    roles = {"hour": OBJECT, "near": RELATION, "uniform": OBJECT}
    marked = [Span(*place(caption, word), role) for word, role in roles.items()]
    (actual,) = swapped(tokenizer, align([caption], [marked], tokenizer))
    assert actual[2] == "an uniform near a hour"


def test_a_swap_cut_off_with_the_caption_s_end_is_left_out(tokenizer) -> None:
    caption = "a dog on a cat on a mat"
    swaps = [
        Swap(2 * (place(caption, a),), 2 * (place(caption, b),), place(caption, "on"))
        for a, b in (("dog", "cat"), ("cat", "mat"))
    ]
    words = align([caption], [[]], tokenizer, context_length=8, swaps=[swaps])
    assert words.swaps.shape == (1, 1, 5, 2)
    assert align([caption], [[]], tokenizer).swaps is None


def test_the_loss_is_that_of_the_texts_that_the_tagger_s_swaps_make(tiny_clip, tokenizer, known):
    batch = make_batch(tiny_clip.model, ("a dog", KNOWN))
    loss = CAELoss(batch.model, NAME, margin=0.5, hinge="margin", swap="phrase")
    inputs = (batch.image_features, known.tokens, known.roles, known.words)
    texts = [KNOWN, TEXTS["attribute"], TEXTS["phrase"]]
    features = batch.model.encode_text(tokenizer(texts))
    whole, *others = torch.cosine_similarity(batch.image_features[1], features)
    hinges = [(0.5 - (whole - other)).clamp(min=0) for other in others]
    output = loss(*inputs, swaps=known.swaps)
    torch.testing.assert_close(output.loss, (hinges[0] + hinges[1]) / 2)
    for wrong in (known.swaps[:1], known.swaps.float(), known.swaps[..., 0]):
        with pytest.raises(DataError, match="swaps"):
            loss(*inputs, swaps=wrong)


DOG, ON, UMBRELLA, NOWHERE = (4, 5), (5, 6), (8, 9), (0, 0)
"""Tokens of words of `KNOWN`, whose end-of-text token is token 9."""

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
"""Two parts and a binder that are no swap of `KNOWN`, by what is wrong."""


@pytest.mark.parametrize(("nouns", "binder"), NO_SWAPS.values(), ids=NO_SWAPS)
@pytest.mark.parametrize("moved", ["nouns", "phrases"])
def test_ranges_that_are_no_swap_of_the_caption_are_refused(
    moved, nouns, binder, tiny_clip, known
) -> None:
    images = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    loss = CAELoss(tiny_clip.model, NAME, margin=0.5)

    def call(nouns: tuple[Offsets, Offsets], binder: Offsets) -> AttributionLossOutput:
        parts = {"nouns": (NOWHERE, NOWHERE), "phrases": (NOWHERE, NOWHERE)} | {moved: nouns}
        swaps = known.swaps.clone()
        swaps[1, 1] = torch.tensor([*parts["nouns"], *parts["phrases"], binder])
        return loss(images, known.tokens, known.roles, known.words, swaps=swaps)

    assert call((DOG, UMBRELLA), ON).n_composition > 0
    with pytest.raises(DataError, match="caption 1 .* swap 1 "):
        call(nouns, binder)


@pytest.mark.parametrize("has_words", [True, False])
def test_swaps_or_roles_of_a_shuffled_batch_are_refused(has_words, tiny_clip, tokenizer) -> None:
    captions = [
        "a black dog chases a white cat",
        "two kids in a field throw a ball to a man",
        "a man in a red shirt rides a small brown horse",
        "the cat",
        "a girl with a blue umbrella walks behind a bus",
        "an old man holding a kite stands on a hill",
    ]
    words = token_roles(captions, tokenizer, "dependency")
    images = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    numbers = words.words if has_words else None
    loss = CAELoss(tiny_clip.model, NAME, margin=0.5)
    loss(images, words.tokens, words.roles, numbers, swaps=words.swaps)
    for shift in range(1, 6):
        for roles, swaps in (
            (words.roles, words.swaps.roll(shift, 0)),
            (words.roles.roll(shift, 0), words.swaps),
        ):
            with pytest.raises(DataError, match="caption "):
                loss(images, words.tokens, roles, numbers, swaps=swaps)
