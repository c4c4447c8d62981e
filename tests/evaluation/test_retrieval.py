from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cae_lib.data.captions import Pairs
from cae_lib.errors import DataError
from cae_lib.evaluation.retrieval import DIRECTIONS, ranks, retrieval_ranks


def by_direction(frame):
    return [frame[frame.direction == name]["rank"].tolist() for name in DIRECTIONS]


def by_sorting(similarity, image_index):
    """Ranks one query at a time, from sorted lists, for similarities without ties."""
    text = []
    for i, row in enumerate(similarity):
        own = [image_index[t] == i for t in np.argsort(-row)]
        text.append(1 + own.index(True))
    image = [
        1 + np.argsort(-similarity[:, t]).tolist().index(image_index[t])
        for t in range(similarity.shape[1])
    ]
    return [text, image]


def unit(rng, n, width=8):
    rows = rng.normal(size=(n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_two_pictures_three_captions_by_hand():
    similarity = np.array([[0.9, 0.2, 0.8], [0.3, 0.5, 0.7]])
    found = ranks(similarity, np.eye(3), np.array([0, 1, 1]))
    assert by_direction(found) == [[1, 1], [1, 1, 2]]
    assert found["query"].tolist() == [0, 1, 0, 1, 2]
    assert found["picture"].tolist() == [0, 1, 0, 1, 1]


def test_a_tie_goes_against_the_query_but_not_among_right_captions():
    similarity = np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.5]])
    found = ranks(similarity, np.eye(3), np.array([0, 0, 1]))
    assert by_direction(found) == [[2, 1], [1, 1, 2]]  # caption 2 ties with 0 and 1


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_features_agree_with_sorting_each_query(chunk):
    rng = np.random.default_rng(0)
    images, texts = unit(rng, 20), unit(rng, 53)
    index = np.concatenate([np.arange(20), rng.integers(20, size=33)])
    found = by_direction(ranks(images, texts, index, chunk=chunk))
    assert found == by_sorting(images @ texts.T, index)
    assert 0 < np.mean(np.array(found[0]) == 1) < 1


def test_equal_captions_of_two_pictures_tie_exactly():
    # A product of few rows rounds the last column differently from an equal one before it.
    rng = np.random.default_rng(1)
    for n in [5, 6, 7, 17, 38] * 10:
        images, captions = unit(rng, n, 512), unit(rng, n, 512)
        captions[-1] = captions[0]
        text, _ = by_direction(ranks(images, captions, np.arange(n), chunk=1))
        assert text[0] > 1 and text[-1] > 1


def test_a_set_of_pictures_and_captions(hand_encoder):
    encoder = hand_encoder({"a": [1.0, 0.0], "b": [0.0, 1.0]}, {"s": [1.0, 0.0], "t": [0.6, 0.8]})
    pairs = Pairs([Path("a"), Path("b")], ["s", "t"], torch.tensor([0, 1]), "toy", 2, 2)
    found = retrieval_ranks(encoder, pairs, "coco")
    assert found.columns.tolist() == ["set", "direction", "query", "picture", "rank"]
    assert set(found["set"]) == {"coco"} and found["rank"].tolist() == [1, 1, 1, 1]


def test_shapes_and_bare_pictures_are_refused():
    similarity = np.zeros((3, 3))
    with pytest.raises(DataError, match="expected \\(3,\\)"):
        ranks(similarity, np.eye(3), np.array([0, 1]))
    with pytest.raises(DataError, match="outside 0..2"):
        ranks(similarity, np.eye(3), np.array([0, 1, 3]))
    with pytest.raises(DataError, match="1 of 3 pictures have no caption .*row 1"):
        ranks(similarity, np.eye(3), np.array([0, 2, 2]))
