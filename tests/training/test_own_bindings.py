"""CAE on bindings for captions of one's own: from text to swaps to the loss."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer

import cae_lib as cae
from cae_lib.attribution.binding import BindingAttribution, swapped_captions
from cae_lib.errors import ConfigError

TOKENIZER = SimpleTokenizer()


def swaps_of(caption: str, moved: str = "phrase") -> set[str]:
    """Return the captions that training makes of a caption."""
    words = cae.token_roles([caption], TOKENIZER, "dependency")
    _, _, variants = swapped_captions(
        words.tokens, words.words, words.roles, None, words.swaps, swap_kind=moved
    )
    return {TOKENIZER.decode(ids[1 : ids.index(max(ids))]).strip() for ids in variants.tolist()}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (
            "A black dog chases a white cat.",
            {"a white cat chases a black dog .", "a white dog chases a black cat ."},
        ),
        ("a man in front of an old house", {"an old house in front of a man"}),
        (
            "a brown dog to the left of a young boy",
            {"a young boy to the left of a brown dog"},  # a dog can be brown and young
        ),
        ("two people next to each other", set()),
        ("a dog and a cat", set()),
        ("a group of people", set()),
    ],
)
def test_captions_get_sensible_swaps(caption: str, expected: set[str]) -> None:
    assert swaps_of(caption) == expected


def test_the_loss_is_the_hinge_on_the_drop_by_the_swap(model) -> None:
    words = cae.token_roles(["a dog chases a cat"], TOKENIZER, "dependency")
    images = F.normalize(
        torch.randn(1, 128, generator=torch.Generator().manual_seed(0)).double(), dim=-1
    )
    loss = cae.CAELoss(model, method="binding", margin=0.5, weight=3.0)
    output = loss(images, words.tokens, words.roles, words.words, swaps=words.swaps)
    texts = TOKENIZER(["a dog chases a cat", "a cat chases a dog"])
    true, swapped = (model.encode_text(texts, normalize=True) @ images.T).flatten()
    expected = 3 * torch.relu(0.5 - (true - swapped))
    torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=1e-6)
    by_object = cae.CAELoss(model, method=BindingAttribution(), margin=0.5, weight=3.0)
    actual = by_object(images, words.tokens, words.roles, words.words, swaps=words.swaps)
    assert actual.loss == output.loss


@pytest.mark.parametrize("method", ["binding", BindingAttribution()])
def test_a_hinge_that_needs_scores_of_object_words_is_refused(method, model) -> None:
    with pytest.raises(ConfigError, match="hinge"):
        cae.CAELoss(model, method=method, hinge="difference", margin=0.5)


def test_a_batch_warns_if_most_captions_have_no_swap(model) -> None:
    captions = ["a dog chases a cat", "a sunset", "a dog and a cat"]
    words = cae.token_roles(captions, TOKENIZER, "dependency")
    images = F.normalize(
        torch.randn(3, 128, generator=torch.Generator().manual_seed(0)).double(), dim=-1
    )
    loss = cae.CAELoss(model, method="binding", margin=0.5)
    with pytest.warns(UserWarning, match="swap"):
        loss(images, words.tokens, words.roles, words.words, swaps=words.swaps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = words.take(torch.arange(2))  # of COCO's captions, 30 % have none
        loss(images[:2], half.tokens, half.roles, half.words, swaps=half.swaps)
        other = cae.CAELoss(model, method="counterfactual")  # does not act on swaps
        other(images, words.tokens, words.roles, words.words, swaps=words.swaps)


def test_other_taggers_and_a_missing_margin_are_refused(model) -> None:
    with pytest.raises(ConfigError, match="dependency"):
        cae.token_roles(["a dog"], TOKENIZER, "no such tagger")
    with pytest.raises(ConfigError, match="margin"):
        cae.CAELoss(model, method="binding")
