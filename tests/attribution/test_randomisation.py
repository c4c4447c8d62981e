"""Which weights each stage of the cascade replaces."""

from __future__ import annotations

import pytest
import torch

from cae_lib.attribution.randomisation import cascade
from cae_lib.models import load_clip
from cae_lib.models.text_tower import text_tower


@pytest.fixture(scope="module")
def pair():
    return load_clip("clip-mini", seed=0).model, load_clip("clip-mini", seed=1).model


def _same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_stages_add_up_from_the_top(pair) -> None:
    model, fresh = pair
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    for stage, mixed in cascade(model, fresh):
        own, new = text_tower(mixed), text_tower(fresh)
        seen.append(stage)
        assert torch.equal(own.text_projection, new.text_projection)
        blocks = list(zip(own.transformer.resblocks, new.transformer.resblocks, strict=True))
        replaced = min(len(seen) - 1, 4)
        assert [_same(a, b) for a, b in blocks] == [False] * (4 - replaced) + [True] * replaced
        last = stage == "embeddings"
        assert torch.equal(own.token_embedding.weight, new.token_embedding.weight) == last
        assert torch.equal(own.positional_embedding, new.positional_embedding) == last
        assert _same(mixed.visual, model.visual)
    assert seen == ["projection", "block 4", "blocks 4-3", "blocks 4-2", "blocks 4-1",
                    "embeddings"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("most", "names"),
    [(1, ["blocks 4-1"]), (2, ["blocks 4-3", "blocks 4-1"]), (3, ["blocks 4-3", "blocks 4-1"]),
     (9, ["block 4", "blocks 4-3", "blocks 4-2", "blocks 4-1"])],
)
def test_blocks_are_grouped(pair, most, names) -> None:
    stages = [stage for stage, _ in cascade(*pair, most_stages=most)]
    assert stages == ["projection", *names, "embeddings"]


def test_a_fully_random_text_tower_is_the_fresh_one(pair, tiny_clip) -> None:
    model, fresh = pair
    *_, (_, mixed) = cascade(model, fresh)
    tokens = tiny_clip.tokenizer(["a dog chasing a red cat"])
    with torch.no_grad():
        torch.testing.assert_close(mixed.encode_text(tokens), fresh.encode_text(tokens))
        assert not torch.allclose(mixed.encode_text(tokens), model.encode_text(tokens), atol=1e-3)
