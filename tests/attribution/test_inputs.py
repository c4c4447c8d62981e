"""Words, roles and arguments have to be those of the tokens; anything else is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from families import MODEL_FAMILIES, ROLES, WORDS
from torch import Tensor, nn
from toys import CAPTIONS, WordTagger, toy_clip

from cae_lib.attribution import Attribution, AttributionMethod, Captions, get_method
from cae_lib.attribution.gradient import GradientAttribution
from cae_lib.errors import ConfigError, DataError
from cae_lib.models import text_encoder
from cae_lib.training.batch import placebo_roles
from cae_lib.training.losses import CAELoss
from cae_lib.training.openclip import CAEModel, RoleTokenizer
from cae_lib.words.alignment import Alignment, align

SHUFFLED = [1, 2, 3, 4, 5, 6, 7, 0]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return toy_clip().model


@pytest.fixture(scope="module")
def words(model: nn.Module) -> Alignment:
    """Captions of several lengths, one cut off by the context."""
    captions = [*CAPTIONS[:-1], "two pterodactyls near a wet car and " * 12]
    return align(captions, WordTagger().tag(captions), toy_clip().tokenizer)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(8, 128, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class WordNumbers(AttributionMethod):
    """A user's method: scores are the numbers of the words."""

    def score(self, captions: Captions) -> Attribution:
        """Return the number of each token's word."""
        output = captions.encoder.encode(captions.tokens)
        numbers = captions.word_numbers(output.readout.shape[1])
        return Attribution(numbers.float(), output.features)


@pytest.mark.parametrize(
    ("method", "path"),
    [("attention", "packed"), ("perturbation", "reference"), (WordNumbers(), "auto")],
)
def test_a_shuffled_batch_is_refused(method, path, model, words, images) -> None:
    """Roles and words that belong together, but not to these tokens, are refused as well."""
    loss = CAELoss(model, method, implementation=path, complete_captions=False)
    tokens, roles, numbers = words.tokens, words.roles, words.words
    output = loss(images, tokens, roles, numbers)
    if isinstance(method, WordNumbers):
        assert output.objects == numbers[roles == 1].float().mean()
    for wrong in (
        (roles[SHUFFLED], numbers[SHUFFLED]),
        (roles, numbers[SHUFFLED]),
        (roles[SHUFFLED], numbers),
        (roles[SHUFFLED],),
    ):
        with pytest.raises(DataError, match="caption [1-7] "):  # the first two have words alike
            loss(images, tokens, *wrong)
    scorer = get_method(method)
    with pytest.raises(DataError, match="caption [1-7] "):
        scorer(text_encoder(model, path), tokens, images, words=numbers[SHUFFLED])


def test_words_of_equally_many_tokens_are_told_apart(model, images) -> None:
    """Where each role of another caption would fall on a word."""
    captions = ["red pterodactyls", "pterodactyls red"]
    actual = align(captions, WordTagger().tag(captions), toy_clip().tokenizer)
    assert actual.words[:, 1:7].tolist() == [[1, 2, 2, 2, 2, 2], [1, 1, 1, 1, 1, 2]]
    loss = CAELoss(model)
    loss(images[:2], actual.tokens, actual.roles, actual.words)
    with pytest.raises(DataError, match="caption 0 "):
        loss(images[:2], actual.tokens, actual.roles.flip(0), actual.words.flip(0))


def test_placebos_and_batches_with_captions_twice_are_taken(model, words, images) -> None:
    placebo = placebo_roles(words, "random", 0)
    twice = torch.cat([torch.arange(8), torch.tensor(SHUFFLED)])  # as NegCLIP's batches
    rows = placebo.take(twice)
    output = CAELoss(model, "gradient")(images[twice], rows.tokens, rows.roles, rows.words)
    assert output.n_objects > 0
    length = int((words.tokens[:7] == 49407).int().argmax(1).max()) + 1
    parts = (value[:7, :length] for value in (words.tokens, words.roles, words.words))
    CAELoss(model, "gradient")(images[:7], *parts)  # without the columns that all leave empty


def test_texts_of_open_clips_loop(model) -> None:
    tokenizer = RoleTokenizer(toy_clip().tokenizer, WordTagger())
    texts, pixels = tokenizer(CAPTIONS), torch.randn(8, 3, 112, 112)
    trained = CAEModel(model, method="attention").train()
    trained(pixels, texts)
    texts[:, 1:] = texts[SHUFFLED, 1:]
    with pytest.raises(DataError, match="caption [1-7] "):
        trained(pixels, texts)


@pytest.mark.parametrize("family", ["CLIP", "bert", "roberta", "Hugging Face SigLIP"])
def test_another_vocabulary_takes_no_words_beyond_the_text(family: str) -> None:
    """Its words are not known; those of the longer caption would lie on the shorter one's end."""
    case = MODEL_FAMILIES[family]()
    loss = CAELoss(case.model, "gradient")
    inputs = case.images, case.tokens
    loss(*inputs, ROLES, WORDS)
    loss(*inputs, ROLES)
    for wrong in ((ROLES.flip(0), WORDS.flip(0)), (0 * ROLES, WORDS.flip(0)), (ROLES.flip(0),)):
        with pytest.raises(DataError, match="caption 0"):
            loss(*inputs, *wrong)
    if family == "bert":  # read at its first token, which is no word
        roles, words = ROLES.clone(), WORDS.clone()
        roles[1, 0], words[1, 0] = 1, 6
        with pytest.raises(DataError, match="caption 1"):
            loss(*inputs, roles, words)
    roles = ROLES.clone()
    roles[1, 2] = 1  # of a word of two tokens, whose first has role 3
    with pytest.raises(DataError, match="caption 1"):
        loss(*inputs, roles, WORDS)
    roles[1, 2] = 0  # the parser may tag a part of a word
    loss(*inputs, roles, WORDS)


@pytest.mark.parametrize(
    ("family", "path", "tokens", "expected"),
    [
        (
            "CLIP",
            "packed",
            [[38, 11, 12, 39, 0], [38, 11, 12, 13, 39]],
            [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]],
        ),
        (
            "custom text",
            "reference",
            [[38, 11, 12, 39, 0], [38, 11, 12, 13, 39]],
            [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]],
        ),
        (  # its configuration says: starts with 0, ends in 2, pads with 1
            "roberta",
            "reference",
            [[0, 11, 12, 2, 1], [0, 11, 12, 13, 2]],
            [[1, 0, 0, 1, 1], [1, 0, 0, 0, 1]],
        ),
        (  # padding that ends a text as well is known where it repeats
            "Hugging Face SigLIP",
            "reference",
            [[11, 12, 1, 1, 1, 1], [11, 12, 13, 14, 15, 1]],
            [[0, 0, 1, 1, 1, 1], [0] * 6],
        ),
    ],
)
def test_tokens_that_are_no_word(family, path, tokens, expected) -> None:
    outside = text_encoder(MODEL_FAMILIES[family]().model, path).non_word_mask(torch.tensor(tokens))
    assert outside.int().tolist() == expected


WRONG: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "tokens as a list": ("tokens", Tensor.tolist),
    "float tokens": ("tokens", Tensor.float),
    "ids of a larger vocabulary": ("tokens", lambda v: v.clamp(min=49408)),
    "negative ids": ("tokens", lambda v: v - 1),
    "no roles": ("roles", lambda v: None),
    "bool roles": ("roles", Tensor.bool),
    "float roles": ("roles", Tensor.float),
    "roles above 3": ("roles", lambda v: 2 * v),
    "fewer columns of roles": ("roles", lambda v: v[:, :20]),
    "bool words": ("words", Tensor.bool),
    "float words": ("words", Tensor.float),
    "no words": ("words", lambda v: 0 * v),
    "negative words": ("words", lambda v: -v),
    "one argument": ("arguments", lambda v: v[..., :1]),
    "float arguments": ("arguments", Tensor.float),
    "negative arguments": ("arguments", lambda v: v - 1),
    "arguments beyond the words": ("arguments", lambda v: v + 80 * (v > 0).short()),
    "arguments of no word": ("arguments", lambda v: v.clamp(min=1)),
    "integer images": ("images", Tensor.long),
    "no images": ("images", lambda v: None),
    "fewer images": ("images", lambda v: v[:5]),
    "images of another width": ("images", lambda v: v[:, :1]),
}


@pytest.mark.parametrize(("name", "change"), WRONG.values(), ids=WRONG)
def test_what_is_no_input_is_refused(name, change, model, words, images) -> None:
    arguments = torch.zeros(8, 77, 2, dtype=torch.int16)
    arguments[:, 1, 0] = 1
    inputs = {
        "images": images,
        "tokens": words.tokens,
        "roles": words.roles,
        "words": words.words,
        "arguments": arguments,
    }
    CAELoss(model)(*inputs.values())
    inputs[name] = change(inputs[name])
    with pytest.raises(DataError):
        CAELoss(model)(*inputs.values())


def test_arguments_beyond_the_words_of_their_own_caption_are_refused(model, words, images) -> None:
    """The longest caption of the batch has this many words, the shortest has not."""
    numbers = words.words.amax(dim=1)
    row, highest = int(numbers.argmin()), int(numbers.max())
    assert numbers[row] < highest
    arguments = torch.zeros(8, 77, 2, dtype=torch.int16)
    for argument in (numbers[row], highest):
        arguments[row, 1, 0] = argument
        inputs = images, words.tokens, words.roles, words.words, arguments
        if argument == highest:
            with pytest.raises(DataError, match=f"caption {row}"):
                CAELoss(model)(*inputs)
        else:
            CAELoss(model)(*inputs)


def test_an_empty_batch_is_refused(model, words, images) -> None:
    parts = (value[:0] for value in (images, words.tokens, words.roles, words.words))
    with pytest.raises(DataError):
        CAELoss(model)(*parts)


def test_integers_of_other_widths_are_taken(model, words, images) -> None:
    losses = []
    for dtype in (torch.int64, torch.int32):
        inputs = (value.to(dtype) for value in (words.tokens, words.roles, words.words))
        losses.append(CAELoss(model, "perturbation", margin=1.0)(images, *inputs).loss)
    assert losses[0] == losses[1]


def test_requested_tokens_are_true_or_false(model, words, images) -> None:
    """Integers would be cut to their last bit."""
    with pytest.raises(DataError, match="requested"):
        get_method("perturbation")(model, words.tokens, images, requested=words.roles)


def test_ids_beyond_the_vocabulary_with_words_unknown() -> None:
    case = MODEL_FAMILIES["CLIP"]()
    with pytest.raises(DataError, match="caption 0"):
        get_method("attention")(case.model, case.tokens + 1, case.images)


def test_a_class_is_no_method(model) -> None:
    with pytest.raises(ConfigError, match="GradientAttribution"):
        CAELoss(model, method=GradientAttribution)


def test_a_caption_without_its_end_says_so(model, words, images) -> None:
    parts = [value[:, :4] for value in (words.tokens, words.roles, words.words)]
    with pytest.raises(DataError, match="end-of-text"):
        CAELoss(model)(images, *parts)
