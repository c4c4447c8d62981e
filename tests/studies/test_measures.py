"""Measures of faithfulness: curves worked by hand, masked captions against open_clip.

Also rank correlation against scipy, and which weights each stage of the cascade replaces.
"""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from book.studies import measures
from book.studies.measures import area, masked_similarity, paired_curves, ranks
from cae_lib.errors import ConfigError
from cae_lib.models import load_clip
from cae_lib.models.text_tower import text_tower
from cae_lib.words.alignment import word_numbers

NAN = float("nan")
WEIGHTS = np.array([[4.0, 1.0, 2.0, NAN], [0.5, 3.0, NAN, NAN]])
N_WORDS = np.array([3, 2])


def bag_of_words(captions: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Return S = 10 plus the weights of the words that are left."""
    return 10 + np.where(masked, 0, np.nan_to_num(WEIGHTS[captions])).sum(axis=1)


def test_ranks_and_curves_of_a_bag_of_words() -> None:
    scores = np.array([[1.0, 3.0, 3.0, NAN], [5.0, -1.0, 0.0, 7.0]])
    assert ranks(scores).tolist() == [[2, 0, 1, 3], [1, 3, 2, 0]]
    (actual,) = paired_curves(ranks(WEIGHTS)[None], N_WORDS, bag_of_words)
    deletion = [[17, 13, 11, 10, NAN], [13.5, 10.5, 10, NAN, NAN]]
    insertion = [[10, 14, 16, 17, NAN], [10, 13, 13.5, NAN, NAN]]
    np.testing.assert_array_equal(actual.deletion, deletion)
    np.testing.assert_array_equal(actual.insertion, insertion)
    np.testing.assert_allclose(area(actual.deletion, N_WORDS), [37.5 / 3, 22.25 / 2])
    np.testing.assert_allclose(area(actual.insertion, N_WORDS), [43.5 / 3, 24.75 / 2])
    grid = measures.on_grid(actual.deletion, N_WORDS, np.array([0, 0.25, 0.5, 1]))
    np.testing.assert_allclose(grid, [[17, 14, 12, 10], [13.5, 12, 10.5, 10]])


@pytest.mark.parametrize("mask", ["mean", "zero", "token"])
def test_masked_words_through_open_clip(mask, batch) -> None:
    words, table = word_numbers(batch.tokens, 49408), batch.model.token_embedding
    masked = np.random.default_rng(0).random((4, int(words.max()))) < 0.5
    inside = torch.from_numpy(np.pad(masked, ((0, 0), (1, 0)))).gather(1, words)
    stand_in = {"mean": table.weight.mean(0), "zero": torch.zeros(()), "token": table.weight[265]}
    embeddings = torch.where(inside.unsqueeze(-1), stand_in[mask].double(), table(batch.tokens))
    inputs = (batch.model, batch.tokens, batch.image_features, words, np.arange(4), masked)
    expected = batch.score(embeddings).detach().numpy()
    np.testing.assert_allclose(masked_similarity(*inputs, mask), expected, atol=1e-10)
    with pytest.raises(ConfigError, match="noise"):
        masked_similarity(*inputs, "noise")


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (2, 40, 9)).astype(float)  # many ties
    lengths = rng.integers(3, 10, 40)
    first[:, 0], first[:, 1], second[:, 0], second[:, 1] = 0, 1, 2, 3  # none is constant
    for row, n in enumerate(lengths):
        first[row, n:] = second[row, n:] = NAN
    expected = [
        spearmanr(a[:n], b[:n]).statistic for a, b, n in zip(first, second, lengths, strict=True)
    ]
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(measures.rank_correlation(first, second), expected, atol=1e-12)
    first = np.array([[1, 2, NAN], [1, 1, 1], [1, 2, 3]])  # two words, no order, an order
    second = np.array([[1, 2, NAN], [1, 2, 3], [3, 2, 1]])
    actual = measures.rank_correlation(first, second)
    np.testing.assert_array_equal(actual, [NAN, NAN, -1])


def _same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    ("most", "names"),
    [
        (3, ["blocks 4-3", "blocks 4-1"]),
        (4, ["block 4", "blocks 4-3", "blocks 4-2", "blocks 4-1"]),
    ],
)
def test_stages_of_the_cascade_add_up_from_the_top(most, names, tiny_clip, monkeypatch) -> None:
    monkeypatch.setattr(measures, "BLOCK_STAGES", most)
    model, fresh = tiny_clip.model, load_clip("clip-mini", seed=1).model
    for value in fresh.ln_final.parameters():
        torch.nn.init.normal_(value)  # else alike in both
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    for stage, mixed in measures.randomize_cascade(model, fresh):
        tower, new = text_tower(mixed), text_tower(fresh)
        seen.append(stage)
        assert torch.equal(tower.text_projection, new.text_projection)
        assert _same(tower.ln_final, new.ln_final)
        lowest = int(stage[-1]) if stage.startswith("block") else 5 if len(seen) == 1 else 1
        blocks = list(zip(tower.transformer.resblocks, new.transformer.resblocks, strict=True))
        assert [_same(a, b) for a, b in blocks] == [number >= lowest for number in range(1, 5)]
        last = stage == "embeddings"
        assert torch.equal(tower.token_embedding.weight, new.token_embedding.weight) == last
        assert torch.equal(tower.positional_embedding, new.positional_embedding) == last
        assert _same(mixed.visual, model.visual)
    assert seen == ["projection", *names, "embeddings"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    tokens = tiny_clip.tokenizer(["a dog chasing a red cat"])
    torch.testing.assert_close(mixed.encode_text(tokens), fresh.encode_text(tokens))
