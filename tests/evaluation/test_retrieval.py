from __future__ import annotations

import json

import numpy as np
import pytest

from cae_lib.errors import DataError
from cae_lib.evaluation.retrieval import RetrievalResult, retrieval


def by_sorting(similarity, image_index, k):
    """Hits one query at a time, from sorted lists, for similarities without ties."""
    text = [
        any(image_index[t] == i for t in np.argsort(-similarity[i])[:k])
        for i in range(len(similarity))
    ]
    image = [
        image_index[t] in np.argsort(-similarity[:, t])[:k] for t in range(similarity.shape[1])
    ]
    return text, image


def unit(rng, n, width=8):
    rows = rng.normal(size=(n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_two_pictures_three_captions_by_hand():
    similarity = np.array([[0.9, 0.2, 0.8], [0.3, 0.5, 0.7]])
    result = retrieval(similarity, np.eye(3), np.array([0, 1, 1]), ks=(1, 2))
    assert result.text_hits[1].tolist() == [True, True]
    assert result.image_hits[1].tolist() == [True, True, False]
    assert result.recall("image", 1) == pytest.approx(2 / 3)
    assert result.recall("image", 2) == 1.0


def test_a_tie_goes_against_the_query_but_not_among_right_captions():
    similarity = np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.5]])
    result = retrieval(similarity, np.eye(3), np.array([0, 0, 1]), ks=(1, 2))
    assert result.text_hits[1].tolist() == [False, True]  # caption 2 ties with 0 and 1
    assert result.text_hits[2].tolist() == [True, True]
    assert result.image_hits[1].tolist() == [True, True, False]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_features_agree_with_sorting_each_query(chunk):
    rng = np.random.default_rng(0)
    images, texts = unit(rng, 20), unit(rng, 53)
    index = np.concatenate([np.arange(20), rng.integers(20, size=33)])
    result = retrieval(images, texts, index, chunk=chunk)
    similarity = images @ texts.T
    for k in (1, 5, 10):
        text, image = by_sorting(similarity, index, k)
        assert result.text_hits[k].tolist() == text
        assert result.image_hits[k].tolist() == image
    assert 0 < result.recall("text", 1) < 1


def test_equal_captions_of_two_pictures_tie_exactly():
    # A product of few rows rounds the last column differently from an equal one before it.
    rng = np.random.default_rng(1)
    for n in [5, 6, 7, 17, 38] * 10:
        images, captions = unit(rng, n, 512), unit(rng, n, 512)
        captions[-1] = captions[0]
        result = retrieval(images, captions, np.arange(n), chunk=1)
        assert not result.text_hits[1][0] and not result.text_hits[1][-1]


def test_record_keeps_every_hit():
    rng = np.random.default_rng(2)
    result = retrieval(unit(rng, 9), unit(rng, 18), np.arange(18) % 9)
    record = json.loads(json.dumps(result.to_record()))
    again = RetrievalResult.from_record(record)
    for k in (1, 5, 10):
        np.testing.assert_array_equal(again.text_hits[k], result.text_hits[k])
        np.testing.assert_array_equal(again.image_hits[k], result.image_hits[k])
    assert again.queries("image")[1].tolist() == [*range(9)] * 2
    assert again.queries("text")[1].tolist() == [*range(9)]
    with pytest.raises(DataError, match="Compute it anew"):
        RetrievalResult.from_record({k: v for k, v in record.items() if k != "pictures"})
    assert record["image"]["n"] == 18
    assert record["text"]["recall"]["5"] == result.recall("text", 5)


def test_shapes_and_bare_pictures_are_refused():
    similarity = np.zeros((3, 3))
    with pytest.raises(DataError, match="expected \\(3,\\)"):
        retrieval(similarity, np.eye(3), np.array([0, 1]))
    with pytest.raises(DataError, match="outside 0..2"):
        retrieval(similarity, np.eye(3), np.array([0, 1, 3]))
    with pytest.raises(DataError, match="1 of 3 pictures have no caption .*row 1"):
        retrieval(similarity, np.eye(3), np.array([0, 2, 2]))
