"""Words, roles and arguments have to be those of the tokens; anything else is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from families import FAMILIES, ROLES, WORDS
from oracles import Batch
from torch import Tensor, nn
from toys import CAPTIONS, WordTagger, toy_clip

from cae_lib.attribution import Attribution, AttributionMethod, Captions, get_method
from cae_lib.attribution.gradient import GradientAttribution
from cae_lib.errors import CaeError, ConfigError, DataError
from cae_lib.models import text_encoder
from cae_lib.training.batch import placebo_roles
from cae_lib.training.losses import CAELoss
from cae_lib.training.openclip import CaeModel, RoleTokenizer
from cae_lib.words.alignment import Alignment, align, word_index

EVERY = pytest.mark.parametrize(
    "method",
    [
        "attention",
        "gradcam",
        "perturbation",
        "gradient",
        "integrated_gradients",
        "counterfactual",
        "binding",
    ],
)
PATH = pytest.mark.parametrize("path", ["packed", "reference", "auto"])
READS_ROLES = ("counterfactual", "binding")
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


@PATH
@EVERY
def test_a_shuffled_batch_is_refused(method, path, model, words, images) -> None:
    """Though the roles and words are those of one another; in their own order they are taken."""
    task = CAELoss(model, method, path=path)
    tokens, roles, numbers = words.tokens, words.roles, words.words
    task(images, tokens, roles, numbers)
    for given in (
        (roles[SHUFFLED], numbers[SHUFFLED]),
        (roles, numbers[SHUFFLED]),
        (roles[SHUFFLED], numbers),
        (roles[SHUFFLED],),
    ):
        with pytest.raises(DataError, match="caption [1-7] "):  # the first two have words alike
            task(images, tokens, *given)
    encoder, scorer = text_encoder(model, path), get_method(method)
    for given in (
        {"roles": roles[SHUFFLED], "words": numbers[SHUFFLED]},
        {"roles": roles, "words": numbers[SHUFFLED]},
        {"roles": roles[SHUFFLED]},
    ):
        scorer(encoder, tokens, images, roles=roles, words=numbers)
        with pytest.raises(DataError, match="caption [1-7] "):
            scorer(encoder, tokens, images, **given)


@EVERY
def test_words_of_equally_many_tokens_are_told_apart(method, model, images) -> None:
    """Where each role of another caption would fall on a word."""
    captions = ["red pterodactyls", "pterodactyls red"]
    actual = align(captions, WordTagger().tag(captions), toy_clip().tokenizer)
    assert actual.words[:, 1:7].tolist() == [[1, 2, 2, 2, 2, 2], [1, 1, 1, 1, 1, 2]]
    task, pair = CAELoss(model, method), images[:2]
    task(pair, actual.tokens, actual.roles, actual.words)
    with pytest.raises(DataError, match="caption 0 "):
        task(pair, actual.tokens, actual.roles.flip(0), actual.words.flip(0))
    for words in (actual.words.flip(0), 2 * actual.words, actual.words.clamp(max=1)):
        with pytest.raises(DataError, match="caption 0 "):
            get_method(method)(model, actual.tokens, pair, words=words, roles=actual.roles)


def test_a_users_method_gets_checked_captions(model, words, images) -> None:
    method = WordNumbers()
    task = CAELoss(model, method, complete_captions=False)
    actual = task(images, words.tokens, words.roles, words.words)
    assert actual.objects == words.words[words.roles == 1].float().mean()
    with pytest.raises(DataError, match="caption [1-7] "):
        CAELoss(model, method)(images, words.tokens, words.roles[SHUFFLED], words.words[SHUFFLED])


@pytest.mark.parametrize("kind", ["permuted", "random"])
def test_placebos_and_batches_with_captions_twice_are_taken(kind, model, words, images) -> None:
    placebo = placebo_roles(words, kind, 0)
    assert not torch.equal(placebo.roles, words.roles)
    both = torch.cat([torch.arange(8), torch.tensor(SHUFFLED)])  # as NegCLIP's batches
    rows = placebo.take(both)
    output = CAELoss(model, "gradient")(images[both], rows.tokens, rows.roles, rows.words)
    assert output.n_objects > 0
    short = int((words.tokens[:7] == 49407).int().argmax(1).max()) + 1  # columns left out by all
    parts = (value[:7, :short] for value in (words.tokens, words.roles, words.words))
    CAELoss(model, "gradient")(images[:7], *parts)


def test_texts_of_open_clips_loop(model, words) -> None:
    tokenizer = RoleTokenizer(toy_clip().tokenizer, WordTagger())
    texts, pictures = tokenizer(CAPTIONS), torch.randn(8, 3, 112, 112)
    trained = CaeModel(model, method="attention").train()
    trained(pictures, texts)
    texts[:, 1:] = texts[SHUFFLED, 1:]
    with pytest.raises(DataError, match="caption [1-7] "):
        trained(pictures, texts)


def test_hugging_faces_clip(words, images) -> None:
    transformers = pytest.importorskip("transformers")
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "projection_dim": 8,
    }
    text = {**small, "vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406}
    config = transformers.CLIPConfig(text_config=text, vision_config=small, projection_dim=8)
    task = CAELoss(transformers.CLIPModel(config), "gradient")
    task(images[:, :8], words.tokens, words.roles, words.words)
    with pytest.raises(DataError, match="caption [1-7] "):
        task(images[:, :8], words.tokens, words.roles[SHUFFLED], words.words[SHUFFLED])


FIRST = ("bert", "bert, last", "m2m_100")  # towers that are read at the first token


@pytest.mark.parametrize("path", ["auto", "reference"])
@pytest.mark.parametrize("family", FAMILIES)
def test_another_vocabulary_takes_no_words_beyond_the_text(family: str, path) -> None:
    """Its words are not known; those of the longer caption would lie on the shorter one's end."""
    case = FAMILIES[family]()
    task = CAELoss(case.model, "gradient", path=path)
    task(case.images, case.tokens, ROLES, WORDS)
    task(case.images, case.tokens, ROLES)
    both = case.images, case.tokens
    for given in ((ROLES.flip(0), WORDS.flip(0)), (0 * ROLES, WORDS.flip(0)), (ROLES.flip(0),)):
        with pytest.raises(DataError, match="caption 0"):
            task(*both, *given)
    start = [value.clone() for value in (ROLES, WORDS)]
    start[0][1, 0], start[1][1, 0] = 1, 6
    if family in FIRST:
        with pytest.raises(DataError, match="caption 1"):
            task(*both, *start)
    apart = ROLES.clone()
    apart[1, 2] = 1  # of a word of two tokens, whose first has role 3
    with pytest.raises(DataError, match="caption 1"):
        task(*both, apart, WORDS)
    apart[1, 2] = 0  # the parser may tag a part of a word
    task(*both, apart, WORDS)


@pytest.mark.parametrize("path", ["packed", "reference"])
@pytest.mark.parametrize("family", ["CLIP", "custom text"])
def test_from_the_end_on_there_is_no_word(family: str, path) -> None:
    tokens = torch.tensor([[38, 11, 12, 39, 0], [38, 11, 12, 13, 39]])
    outside = text_encoder(FAMILIES[family]().model, path).non_word_tokens(tokens)
    assert outside.int().tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]


def test_start_and_end_by_the_configuration() -> None:
    case = FAMILIES["roberta"]()  # starts with 0, ends in 2, pads with 1
    tokens = torch.tensor([[0, 11, 12, 2, 1], [0, 11, 12, 13, 2]])
    outside = text_encoder(case.model).non_word_tokens(tokens)
    assert outside.int().tolist() == [[1, 0, 0, 1, 1], [1, 0, 0, 0, 1]]


def test_padding_that_ends_a_text_as_well() -> None:
    """As SigLIP's: each end is known where it repeats."""
    case = FAMILIES["Hugging Face SigLIP"]()
    tokens = torch.tensor([[11, 12, 1, 1, 1, 1], [11, 12, 13, 14, 15, 1]])
    outside = text_encoder(case.model).non_word_tokens(tokens)
    assert outside.int().tolist() == [[0, 0, 1, 1, 1, 1], [0] * 6]


WRONG: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "tokens as a list": ("tokens", Tensor.tolist),
    "float tokens": ("tokens", Tensor.float),
    "bool tokens": ("tokens", Tensor.bool),
    "ids of a larger vocabulary": ("tokens", lambda v: v.clamp(min=49408)),
    "negative ids": ("tokens", lambda v: v - 1),
    "no roles": ("roles", lambda v: None),
    "roles as a list": ("roles", Tensor.tolist),
    "bool roles": ("roles", Tensor.bool),
    "float roles": ("roles", Tensor.float),
    "bool words": ("words", Tensor.bool),
    "float words": ("words", Tensor.float),
    "words as a list": ("words", Tensor.tolist),
    "one argument": ("arguments", lambda v: v[..., :1]),
    "arguments of no pair": ("arguments", lambda v: v[..., 0]),
    "float arguments": ("arguments", Tensor.float),
    "negative arguments": ("arguments", lambda v: v - 1),
    "arguments beyond the words": ("arguments", lambda v: v + 80 * (v > 0).short()),
    "arguments of no word": ("arguments", lambda v: v.clamp(min=1)),
    "integer images": ("images", Tensor.long),
    "images as a list": ("images", Tensor.tolist),
    "no images": ("images", lambda v: None),
    "fewer images": ("images", lambda v: v[:5]),
}


@EVERY
@pytest.mark.parametrize(("name", "made"), WRONG.values(), ids=WRONG)
def test_what_is_no_input_is_refused(name, made, method, model, words, images) -> None:
    arguments = torch.zeros(8, 77, 2, dtype=torch.int16)
    arguments[:, 1, 0] = 1
    given = {
        "images": images,
        "tokens": words.tokens,
        "roles": words.roles,
        "words": words.words,
        "arguments": arguments,
    }
    CAELoss(model, method)(*given.values())
    given[name] = made(given[name])
    with pytest.raises(DataError):
        CAELoss(model, method)(*given.values())
    tokens, features = given.pop("tokens"), given.pop("images")
    if given["roles"] is not None or method in READS_ROLES:
        with pytest.raises(CaeError):
            get_method(method)(model, tokens, features, **given)


@EVERY
def test_integers_of_other_widths_are_taken(method, model, words, images) -> None:
    losses = []
    for kind in (torch.int64, torch.int32):
        torch.manual_seed(0)
        given = (value.to(kind) for value in (words.tokens, words.roles, words.words))
        losses.append(CAELoss(model, method, margin=1.0)(images, *given).loss)
    assert losses[0] == losses[1]


@EVERY
def test_requested_tokens_are_true_or_false(method, model, words, images) -> None:
    """Integers would be cut to their last bit."""
    with pytest.raises(DataError, match="requested"):
        get_method(method)(model, words.tokens, images, requested=words.roles, roles=words.roles)


def test_ids_beyond_the_vocabulary_with_words_unknown() -> None:
    case = FAMILIES["CLIP"]()
    with pytest.raises(DataError, match="caption 0"):
        get_method("attention")(case.model, case.tokens + 1, case.images)


def test_settings_of_another_kind_are_refused(model) -> None:
    for options in ({"all_sum": 3}, {"weight": -0.1}, {"method": GradientAttribution}):
        with pytest.raises(ConfigError):
            CAELoss(model, **options)
    with pytest.raises(ConfigError, match="GradientAttribution"):
        get_method(GradientAttribution)


def test_a_caption_without_its_end_says_so(model, words, images) -> None:
    parts = [value[:, :4] for value in (words.tokens, words.roles, words.words)]
    with pytest.raises(DataError, match="end-of-text"):
        CAELoss(model)(images, *parts)


def test_words_of_tokens_are_one_to_their_end_marks(batch: Batch) -> None:
    """Ids beyond the vocabulary have no word to be looked up, and no error of their own."""
    tokens = batch.tokens.clone()
    expected = word_index(tokens, 49408)
    tokens[tokens == 0] = 60000
    assert torch.equal(word_index(tokens, 49408), expected)
