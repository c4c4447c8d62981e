"""captum's references against closed forms and against CAE's own methods."""

from __future__ import annotations

import pytest
import torch

from cae_lib.attribution import get_method
from cae_lib.attribution.faithfulness import masked_similarity
from cae_lib.attribution.grouping import word_index
from cae_lib.attribution.reference import integrated_gradients, saliency


@pytest.fixture
def short(batch):
    return batch.first(3)


def _words(batch):
    return word_index(batch.tokens, 49408)


def _ends(batch) -> tuple[torch.Tensor, torch.Tensor]:
    """S of the whole captions, and with all words masked."""
    words = _words(batch)
    rows = torch.arange(len(words)).numpy()
    values = [
        masked_similarity(
            batch.model, batch.tokens, batch.image_features, words, rows,
            torch.full((len(words), int(words.max())), masked).numpy(),
        )
        for masked in (False, True)
    ]  # fmt: skip
    return tuple(map(torch.from_numpy, values))


def test_integrated_gradients_add_up(short) -> None:
    words = _words(short)
    found = integrated_gradients(
        short.model, short.tokens, short.image_features, words, tolerance=1e-4
    )
    whole, empty = _ends(short)
    assert (whole - empty).abs().min() > 0.01
    assert found.delta.abs().max() <= 1e-4
    torch.testing.assert_close(
        found.scores.sum(1), whole - empty + found.delta, atol=1e-6, rtol=0
    )
    assert (found.scores * (words[:, : found.scores.shape[1]] == 0)).abs().max() == 0


def test_integrated_gradients_are_the_integral(short) -> None:
    """A rule of midpoints, dense near the baseline, through open_clip's own encoder."""
    single = short.first(1)
    words = _words(single)
    found = integrated_gradients(
        single.model, single.tokens, single.image_features, words, tolerance=1e-6
    )
    table = single.model.token_embedding
    end = table(single.tokens).detach()
    start = torch.where((words > 0).unsqueeze(-1), table.weight.detach().mean(0), end)
    total, points = torch.zeros_like(end), 40
    for i in range(points):
        t = (i + 0.5) / points  # the path is t ** 4, at the speed 4 t ** 3
        x = (start + t**4 * (end - start)).requires_grad_()
        hook = table.register_forward_hook(lambda m, inputs, output, x=x: x)
        value = single.similarity(single.model.encode_text(single.tokens)).sum()
        hook.remove()
        total += torch.autograd.grad(value, x)[0] * 4 * t**3 / points
    expected = (total * (end - start)).sum(-1)[:, : found.scores.shape[1]]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(found.scores, expected, atol=1e-4, rtol=0)


def test_what_does_not_converge_is_told(short) -> None:
    words = _words(short)
    arguments = (short.model, short.tokens, short.image_features, words)
    strict = integrated_gradients(*arguments, steps=1, most_steps=2, tolerance=1e-12)
    assert strict.steps.tolist() == [2, 2, 2] and strict.delta.abs().min() > 1e-12
    loose = integrated_gradients(*arguments, steps=1, most_steps=2, tolerance=10)
    assert loose.steps.tolist() == [1, 1, 1]
    whole, empty = _ends(short)
    for found in (strict, loose):
        error = found.scores.sum(1) - (whole - empty)
        torch.testing.assert_close(found.delta, error, atol=1e-6, rtol=0)


def test_saliency_is_the_gradient_method(short) -> None:
    own = get_method("gradient")(short.model, short.tokens, short.image_features).scores
    other = saliency(short.model, short.tokens, short.image_features)
    torch.testing.assert_close(other, own, atol=1e-10, rtol=0)
    assert own[:, 1].min() > 1e-3
