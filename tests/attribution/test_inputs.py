"""Words, roles and arguments have to be those of the tokens; anything else is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import MODEL_FAMILIES, ROLES, WORDS
from torch import Tensor, nn
from toys import CAPTIONS, WordTagger, toy_clip

from cae_lib.attribution import get_method
from cae_lib.errors import DataError
from cae_lib.models import text_encoder
from cae_lib.training.batch import placebo_roles
from cae_lib.training.losses import CAELoss
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


@pytest.mark.parametrize(("method", "path"), [("attention", "packed"), ("gradient", "reference")])
def test_a_shuffled_batch_is_refused(method, path, model, words, images) -> None:
    """Roles and words that belong together, but not to these tokens, are refused as well."""
    loss = CAELoss(model, method, implementation=path, complete_captions=False)
    tokens, roles, numbers = words.tokens, words.roles, words.words
    loss(images, tokens, roles, numbers)
    for wrong in (
        (roles[SHUFFLED], numbers[SHUFFLED]),
        (roles, numbers[SHUFFLED]),
        (roles[SHUFFLED], numbers),
        (roles[SHUFFLED],),
    ):
        with pytest.raises(DataError, match="caption [1-7] "):  # the first two have words alike
            loss(images, tokens, *wrong)
    with pytest.raises(DataError, match="caption [1-7] "):
        get_method(method)(text_encoder(model, path), tokens, images, words=numbers[SHUFFLED])


@pytest.mark.parametrize("family", ["CLIP", "bert", "roberta", "Hugging Face SigLIP"])
def test_another_vocabulary_takes_no_words_beyond_the_text(family: str) -> None:
    """Its words are not known; those of the longer caption would lie on the shorter one's end."""
    case = MODEL_FAMILIES[family]()
    loss, inputs = CAELoss(case.model, "gradient"), (case.images, case.tokens)
    loss(*inputs, ROLES, WORDS)
    loss(*inputs, ROLES)
    for wrong in ((ROLES.flip(0), WORDS.flip(0)), (0 * ROLES, WORDS.flip(0)), (ROLES.flip(0),)):
        with pytest.raises(DataError, match="caption 0"):
            loss(*inputs, *wrong)
    roles, words = ROLES.clone(), WORDS.clone()
    roles[1, 2] = 0  # the parser may tag a part of a word
    loss(*inputs, roles, WORDS)
    roles[1, 2] = 1  # of a word of two tokens, whose first has role 3
    with pytest.raises(DataError, match="caption 1"):
        loss(*inputs, roles, WORDS)
    if family == "bert":  # read at its first token, which is no word
        roles, words[1, 0] = ROLES.clone(), 6
        roles[1, 0] = 1
        with pytest.raises(DataError, match="caption 1"):
            loss(*inputs, roles, words)


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
    "an empty batch": ("all", lambda v: v[:0]),
    "captions without an end": ("all", lambda v: v if v.is_floating_point() else v[:, :4]),
}


@pytest.mark.parametrize(("name", "change"), WRONG.values(), ids=WRONG)
def test_inputs_that_do_not_fit_are_refused(name, change, model, words, images) -> None:
    arguments = torch.zeros(8, 77, 2, dtype=torch.int16)
    arguments[:, 1, 0] = 1
    values = images, words.tokens, words.roles, words.words, arguments
    inputs = dict(zip(("images", "tokens", "roles", "words", "arguments"), values, strict=True))
    CAELoss(model)(*inputs.values())
    for changed in inputs if name == "all" else (name,):
        inputs[changed] = change(inputs[changed])
    with pytest.raises(DataError):
        CAELoss(model)(*inputs.values())


def test_requested_integers_and_ids_of_another_vocabulary_are_refused(model, words, images) -> None:
    """Integers would be cut to their last bit."""
    with pytest.raises(DataError, match="requested"):
        get_method("perturbation")(model, words.tokens, images, requested=words.roles)
    case = MODEL_FAMILIES["CLIP"]()
    with pytest.raises(DataError, match="caption 0"):
        get_method("attention")(case.model, case.tokens + 1, case.images)


def test_arguments_beyond_the_words_of_their_own_caption_are_refused(model, words, images) -> None:
    """The longest caption of the batch has this many words, the shortest has not."""
    numbers, arguments = words.words.amax(dim=1), torch.zeros(8, 77, 2, dtype=torch.int16)
    row = int(numbers.argmin())
    inputs = images, words.tokens, words.roles, words.words, arguments
    arguments[row, 1, 0] = numbers[row]
    CAELoss(model)(*inputs)
    arguments[row, 1, 0] = numbers.max()
    with pytest.raises(DataError, match=f"caption {row}"):
        CAELoss(model)(*inputs)


def test_placebos_shorter_rows_and_other_integers_are_taken(model, words, images) -> None:
    """Also a batch with captions twice, as NegCLIP's, and rows without the columns of padding."""
    rows = placebo_roles(words, "random", 0).take(torch.cat([torch.arange(8)] * 2))
    loss = CAELoss(model, "gradient", margin=1.0)
    assert loss(images.repeat(2, 1), rows.tokens, rows.roles, rows.words).n_objects > 0
    length = int((words.tokens[:7] == 49407).int().argmax(1).max()) + 1
    parts = [value[:7, :length] for value in (words.tokens, words.roles, words.words)]
    losses = [
        loss(images[:7], *(v.to(kind) for v in parts)).loss for kind in (torch.int64, torch.int32)
    ]
    assert losses[0] == losses[1]
