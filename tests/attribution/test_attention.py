"""The attention method against open_clip's attention over all 77 tokens."""

from __future__ import annotations

import pytest
import torch

from cae_lib.attribution import get_method
from cae_lib.errors import ConfigError


@pytest.fixture
def rows(batch) -> torch.Tensor:
    """EOT's rows `(L, B, H, 77)` of an explicit softmax attention."""
    return batch.attention_rows().detach()


@pytest.mark.parametrize("layers", [None, (0,), (1, -1)])
def test_mean_over_layers_and_heads(layers, batch, rows) -> None:
    method = get_method("attention", layers=layers)
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    chosen = rows if layers is None else rows[list(layers)]
    torch.testing.assert_close(scores, chosen.mean(dim=(0, 2)), atol=1e-10, rtol=0)


def test_float32(batch, rows) -> None:
    single = batch.single()
    scores = get_method("attention")(single.model, single.tokens, single.image_features).scores
    torch.testing.assert_close(scores, rows.mean(dim=(0, 2)).float(), atol=1e-5, rtol=0)


def test_renormalised_over_the_words(batch, rows) -> None:
    method = get_method("attention", renormalise=True)
    scores = method(batch.model, batch.tokens, batch.image_features).scores
    for score, row, eot in zip(scores, rows.mean(dim=(0, 2)), batch.eot, strict=True):
        expected = row[1:eot] / row[1:eot].sum()
        torch.testing.assert_close(score[1:eot], expected)
        assert score[0] == 0 and score[eot:].abs().max() == 0


@pytest.mark.parametrize("layers", [(4,), (-5,), ()])
def test_layers_must_exist(layers, batch) -> None:
    with pytest.raises(ConfigError, match="tower of 4 layers"):
        get_method("attention", layers=layers)(batch.model, batch.tokens, batch.image_features)
