"""The method of bindings against exchanges written by hand and open_clip's encoding of them."""

import dataclasses

import pytest
import torch
from open_clip import SimpleTokenizer
from oracles import Batch, assert_gradient, make_batch
from torch import Tensor

from cae_lib.attribution.binding import exchanges, swapped_captions
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import text_encoder
from cae_lib.training.batch import placebo_roles
from cae_lib.training.losses import CAELoss
from cae_lib.words.alignment import Alignment, align
from cae_lib.words.phrases import bindings
from cae_lib.words.roles import ATTRIBUTE, NOWHERE, OBJECT, RELATION, Span, Swap

NAME = "binding"
ROLES = {
    OBJECT: "pterodactyl dog cat umbrella chair fire-hydrant man ball bat",
    ATTRIBUTE: "red small blue striped",
    RELATION: "chasing under on near holding",
}
ROLE = {word: role for role, words in ROLES.items() for word in words.split()}
# Captions with each word that binds and the caption with the two that it binds exchanged.
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
    "a dog": {},
}


def spans(caption: str) -> list[Span]:
    found, place = [], 0
    for word in caption.split():
        if word in ROLE:
            found.append(Span(place, place + len(word), ROLE[word]))
        place += len(word) + 1
    return found


@pytest.fixture(scope="module")
def tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


@pytest.fixture(scope="module")
def words(tokenizer) -> Alignment:
    return align([*CASES], [spans(caption) for caption in CASES], tokenizer)


@pytest.fixture
def named(tiny_clip) -> Batch:
    return make_batch(tiny_clip.model, tuple(CASES))


@pytest.fixture
def call(words: Alignment) -> dict[str, Tensor]:
    return {"roles": words.roles, "words": words.words}


def read(tokenizer, tokens: Tensor) -> str:
    return tokenizer.decode(tokens[1 : int(tokens.argmax())].tolist()).strip().replace(" - ", "-")


def made(tokenizer, words: Alignment, **options) -> list[tuple[int, str, str]]:
    """Row, words that bind and text of each exchange."""
    parts = exchanges(words.tokens, words.words, words.roles, words.arguments, **options)
    return [
        (
            int(row),
            tokenizer.decode(words.tokens[row, inside].tolist()).strip(),
            read(tokenizer, variant),
        )
        for row, inside, variant in zip(*parts, strict=True)
    ]


def test_exchanges_by_hand(tokenizer, words) -> None:
    expected = {
        (row, text)
        for row, binds in enumerate(CASES.values())
        for texts in binds.values()
        for text in texts
    }
    found = made(tokenizer, words)
    assert {(row, text) for row, _, text in found} == expected and len(found) == len(expected)
    for row, binders, text in found:
        assert all(text in [*CASES.values()][row][word] for word in binders.split())
    every = exchanges(words.tokens, words.words, words.roles, vocabulary=None)[2]
    assert read(tokenizer, every[1]) == "an chair under a umbrella"  # not CLIP's: as they are


def test_bindings_have_all_that_their_word_is_said_of(tokenizer) -> None:
    """A relation counts with its subject and its object alone, an attribute with its bearer."""

    def word(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text))

    caption = "a red pterodactyl under a dog near a small cat"
    place = {
        word: (caption.index(word), caption.index(word) + len(word)) for word in caption.split()
    }
    said = {
        "red": ("pterodactyl",),
        "small": (None,),
        "under": ("pterodactyl", "dog"),
        "near": ("dog", None),
    }
    marked = [
        dataclasses.replace(
            span,
            of=tuple(
                place.get(other, (0, 0)) for other in said.get(caption[span.start : span.end], ())
            ),
        )
        for span in spans(caption)
    ]
    expected = {
        (ATTRIBUTE, word("red"), word("pterodactyl")),
        (RELATION, word("under"), word("pterodactyl"), word("dog")),
    }
    assert len(word("pterodactyl")) > 1
    assert bindings(align([caption], [marked], tokenizer)) == [expected]


@pytest.mark.parametrize(
    ("caption", "arguments", "expected"),
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
        ("a ball that man holding", {"holding": ("man", "ball")}, {"a man that ball holding"}),
    ],
)
def test_arguments_come_before_the_nearest_objects(caption, arguments, expected, tokenizer) -> None:
    place = {
        word: (caption.index(f" {word}") + 1, caption.index(f" {word}") + 1 + len(word))
        for word in caption.split()[1:]
    }
    marked = [
        dataclasses.replace(
            span, of=tuple(map(place.get, arguments.get(caption[span.start : span.end], ())))
        )
        for span in spans(caption)
    ]
    words = align([caption], [marked], tokenizer)
    assert {text for *_, text in made(tokenizer, words)} == expected
    permuted = placebo_roles(words, "permuted", 0)
    assert permuted.arguments is None
    found = bindings(words)[0]
    assert len(found) == len(arguments)
    assert {len(each) for each in found} <= {3, 4}


def test_articles_that_nothing_moves_next_to_stay(tokenizer) -> None:
    """Also those that the rule of the first letter would have otherwise."""
    caption = "an hour before a man holding a umbrella, a eel"
    words = align([caption], [spans(caption.replace(",", " ,"))], tokenizer)
    roles = words.roles.clone()
    umbrella = tokenizer.encode("umbrella")[0]
    roles[words.tokens == umbrella] = OBJECT
    words = dataclasses.replace(words, roles=roles)
    (found,) = made(tokenizer, words)
    assert found[1:] == ("holding", "an hour before an umbrella holding a man , a eel")


@pytest.mark.parametrize(
    ("caption", "requested", "expected"),
    [
        (
            "a small dog on a blue cat",
            "small",
            {"a blue dog on a small cat"},
        ),  # one of two attributes
        ("a small dog on a blue cat", "blue", {"a blue dog on a small cat"}),
        ("a small dog on a blue cat", "on", {"a small cat on a blue dog"}),
        ("a small dog on a blue cat", "dog", set()),
        (
            "a dog chasing under a cat",
            "under",
            {"a cat chasing under a dog"},
        ),  # of two words as one
        ("a dog chasing under a cat", "chasing", {"a cat chasing under a dog"}),
    ],
)
def test_an_exchange_is_made_for_any_of_its_requested_words(
    caption, requested, expected, tokenizer
):
    words = align([caption], [spans(caption)], tokenizer)
    inside = words.tokens == tokenizer.encode(requested)[0]
    assert {text for *_, text in made(tokenizer, words, requested=inside)} == expected


@pytest.mark.parametrize("path", ["packed", "reference"])
@torch.no_grad()
def test_scores_are_those_of_the_texts_by_hand(
    path, named, call, words, tokenizer, attribute
) -> None:
    batch = dataclasses.replace(named, model=text_encoder(named.model, path))
    found = attribute(batch, NAME, call)
    whole = named.similarity(named.model.encode_text(named.tokens))
    for row, (caption, binds) in enumerate(CASES.items()):
        for number, word in enumerate(caption.replace("-", " - ").split(), start=1):
            tokens = found.scores[row, (words.words[row] == number)[: found.length]]
            texts = binds.get(word, [])
            drops = [
                whole[row]
                - torch.cosine_similarity(
                    named.image_features[row], named.model.encode_text(tokenizer([text]))[0], dim=0
                )
                for text in texts
            ]
            expected = torch.stack(drops).mean() if drops else torch.zeros(())
            torch.testing.assert_close(
                tokens, expected.double().expand_as(tokens), atol=1e-10, rtol=0
            )
            scored = found.has_score[row, (words.words[row] == number)[: found.length]]
            assert bool(scored.all()) == bool(texts) == bool(scored.any())
    assert found.has_score.any()


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
    found = attribute(named, NAME, call)
    assert found.has_score.any() and found.scores.abs().max() < 1e-12


@torch.no_grad()
def test_samples_and_requested_words(named, call, attribute, words) -> None:
    every, seen = attribute(named, NAME, call), torch.zeros_like(words.roles, dtype=torch.bool)
    torch.manual_seed(0)
    for _ in range(60):
        scored = attribute(named, NAME, call, samples=1).has_score
        per_caption = [
            len(set(row[mask].tolist()))
            for row, mask in zip(words.words[:, : scored.shape[1]], scored, strict=True)
        ]
        assert max(per_caption) <= 2  # the two attributes of one exchange
        seen[:, : scored.shape[1]] |= scored
    assert torch.equal(seen[:, : every.length], every.has_score)
    requested = words.roles == RELATION
    found = attribute(named, NAME, call | {"requested": requested})
    assert torch.equal(found.has_score, every.has_score & requested[:, : every.length])


def test_any_two_words_are_exchanged_for_the_same_words(tokenizer, words) -> None:
    generator = torch.Generator().manual_seed(0)
    bound, texts = made(tokenizer, words), set()
    for _ in range(50):
        found = made(tokenizer, words, kind="any", generator=generator, vocabulary=None)
        assert [each[:2] for each in found] == [each[:2] for each in bound]
        for row, _, text in found:
            old, new = ([*CASES][row].replace("-", " - ").split(), text.replace("-", " - ").split())
            assert sorted(old) == sorted(new)
            assert sum(a != b for a, b in zip(old, new, strict=True)) == 2
        texts |= {text for row, _, text in found if row == 1}
    assert len(texts) == 10  # pairs of five words
    with pytest.raises(ConfigError, match="exchange is 'all': expected one of bound, any"):
        CAELoss(object.__new__(object), NAME, exchange="all")


def test_gradient_is_that_of_finite_differences(named, call, attribute) -> None:
    weight = named.model.transformer.resblocks[1].mlp.c_fc.weight

    def score() -> Tensor:
        scores = attribute(named, NAME, call | {"create_graph": True}).scores
        return (scores * torch.linspace(-1, 1, scores.shape[1])).sum()

    assert_gradient(score, weight)


def test_the_hinge_is_on_words_with_a_score(named, call, attribute) -> None:
    loss = CAELoss(named.model, NAME, 3.0, margin=0.5, hinge="margin")
    output = loss(named.image_features, named.tokens, call["roles"], call["words"])
    found = attribute(named, NAME, call)
    roles = call["roles"][:, : found.length]
    kinds = [
        (0.5 - found.scores[found.has_score & (roles == role)]).clamp(min=0).mean()
        for role in (ATTRIBUTE, RELATION)
    ]
    torch.testing.assert_close(output.loss, 3 * (kinds[0] + kinds[1]) / 2)
    with pytest.raises(ConfigError, match="binding needs roles"):
        attribute(named, NAME)
    with pytest.raises(ConfigError, match="samples is 0: expected 1 or more"):
        attribute(named, NAME, samples=0)
    none = {"roles": torch.zeros_like(call["roles"])}
    assert not attribute(named, NAME, none).has_score.any()


# A caption with one swap of a relation's arguments and one of attributes, as a tagger gives them.
KNOWN = "a small red dog on a blue umbrella"
TEXTS = {
    "noun": "a small red umbrella on a blue dog",
    "phrase": "a blue umbrella on a small red dog",
    "attribute": "a small blue dog on a red umbrella",
}


def place(caption: str, text: str) -> tuple[int, int]:
    start = caption.index(text)
    return start, start + len(text)


@pytest.fixture(scope="module")
def known(tokenizer) -> Alignment:
    def at(*texts):
        return tuple(place(KNOWN, text) for text in texts)

    relation = Swap(at("dog", "umbrella"), at("a small red dog", "a blue umbrella"), *at("on"))
    attributes = Swap(at("red", "blue"), at("red", "blue"))
    none = "a dog"
    return align(
        [none, KNOWN],
        [[Span(2, 5, OBJECT)], spans(KNOWN)],
        tokenizer,
        swaps=[[], [relation, attributes]],
    )


def swapped(tokenizer, known: Alignment, *args, **options) -> list[tuple[int, str, str]]:
    parts = swapped_captions(known.tokens, known.words, known.swaps, *args, **options)
    return [
        (
            int(row),
            tokenizer.decode(known.tokens[row, inside].tolist()).strip(),
            read(tokenizer, variant),
        )
        for row, inside, variant in zip(*parts, strict=True)
    ]


@pytest.mark.parametrize("moved", ["noun", "phrase"])
def test_swaps_of_a_tagger_move_what_is_asked(tokenizer, known, moved) -> None:
    expected = [(1, "on", TEXTS[moved]), (1, "red blue", TEXTS["attribute"])]
    assert swapped(tokenizer, known, moved) == expected


def test_half_of_the_swaps_move_nouns(tokenizer, known) -> None:
    generator = torch.Generator().manual_seed(0)
    texts = [swapped(tokenizer, known, "half", generator=generator)[0][2] for _ in range(200)]
    assert set(texts) == {TEXTS["noun"], TEXTS["phrase"]}
    assert 70 < texts.count(TEXTS["noun"]) < 130


def test_where_nouns_cannot_move_phrases_do_and_the_other_way_round(tokenizer) -> None:
    caption = "two dogs on a cat"
    both = (place(caption, "dogs"), place(caption, "cat"))
    phrases = (place(caption, "two dogs"), place(caption, "a cat"))
    nowhere, binder = (NOWHERE, NOWHERE), place(caption, "on")
    for swap, expected in (
        (Swap(nowhere, phrases, binder), "a cat on two dogs"),
        (Swap(both, nowhere, binder), "two cat on a dogs"),
    ):
        words = align([caption], [[]], tokenizer, swaps=[[swap]])
        for moved in ("noun", "phrase", "half"):
            assert [text for *_, text in swapped(tokenizer, words, moved)] == [expected]


def test_samples_requested_words_and_the_placebo_of_a_tagger_s_swaps(tokenizer, known) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [swapped(tokenizer, known, samples=1, generator=generator) for _ in range(100)]
    assert {len(some) for some in drawn} == {1}
    assert {text for ((_, _, text),) in drawn} == {TEXTS["noun"], TEXTS["attribute"]}
    blue = known.tokens == tokenizer.encode("blue")[0]
    assert [text for *_, text in swapped(tokenizer, known, requested=blue)] == [TEXTS["attribute"]]
    for _ in range(20):
        found = swapped(tokenizer, known, kind="any", generator=generator, vocabulary=None)
        assert [binder for _, binder, _ in found] == ["on", "red blue"]
        for *_, text in found:
            assert sorted(text.split()) == sorted(KNOWN.split())
            assert sum(a != b for a, b in zip(text.split(), KNOWN.split(), strict=True)) == 2


def test_articles_follow_the_sound_of_the_next_word(tokenizer) -> None:
    caption = "an hour on a uniform"
    places = (place(caption, "hour"), place(caption, "uniform"))
    swap = Swap(places, places, place(caption, "on"))
    words = align([caption], [[]], tokenizer, swaps=[[swap]])
    assert swapped(tokenizer, words)[0][2] == "a uniform on an hour"


def test_a_swap_cut_off_with_the_caption_s_end_is_left_out(tokenizer) -> None:
    caption = "a dog on a cat on a mat"
    swaps = [
        Swap(2 * (place(caption, a),), 2 * (place(caption, b),), place(caption, "on"))
        for a, b in (("dog", "cat"), ("cat", "mat"))
    ]
    words = align([caption], [[]], tokenizer, context_length=8, swaps=[swaps])
    assert words.swaps.shape == (1, 1, 5, 2)
    assert align([caption], [[]], tokenizer).swaps is None


def test_the_loss_is_that_of_the_texts_that_the_tagger_s_swaps_make(
    tiny_clip, tokenizer, known
) -> None:
    batch = make_batch(tiny_clip.model, ("a dog", KNOWN))
    loss = CAELoss(batch.model, NAME, margin=0.5, hinge="margin", swap="phrase")
    output = loss(batch.image_features, known.tokens, known.roles, known.words, swaps=known.swaps)
    image = batch.image_features[1]

    def similarity(text: str) -> Tensor:
        features = batch.model.encode_text(tokenizer([text]))[0]
        return torch.cosine_similarity(image, features, dim=0)

    hinges = [
        (0.5 - (similarity(KNOWN) - similarity(TEXTS[kind]))).clamp(min=0)
        for kind in ("attribute", "phrase")
    ]
    torch.testing.assert_close(output.loss, (hinges[0] + hinges[1]) / 2)
    for wrong in (known.swaps[:1], known.swaps.float(), known.swaps[..., 0], known.swaps - 1):
        with pytest.raises(DataError, match="swaps"):
            loss(batch.image_features, known.tokens, known.roles, known.words, swaps=wrong)
