"""The vectors of masked tokens, by hand."""

from __future__ import annotations

import torch

from cae_lib.attribution.masking import mask_vector
from cae_lib.models import Clip, text_encoder


def test_mask_vectors(tiny_clip: Clip) -> None:
    encoder = text_encoder(tiny_clip.model)
    table = tiny_clip.model.token_embedding.weight
    with torch.no_grad():
        table.fill_(1.0)
        table[265, 0] = 1.0 + len(table)
    assert tiny_clip.tokenizer.encode("*") == [265]
    first = {mask: mask_vector(encoder, mask)[:2] for mask in ("mean", "zero", "token")}
    torch.testing.assert_close(first["mean"], torch.tensor([2.0, 1.0]))
    assert first["zero"].tolist() == [0, 0] and first["token"].tolist() == [1 + len(table), 1]
    assert table.requires_grad and not any(vector.requires_grad for vector in first.values())
