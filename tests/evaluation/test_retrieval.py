"""Ranks of captions, pictures, classes and labels, and cosines of texts, by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cae_bench import retrieval
from cae_bench.labelled import LabelledImages
from cae_bench.retrieval import DIRECTIONS, PROMPT_TEMPLATES, rank_pairs
from cae_bench.similarity import SentencePairs
from cae_bench.text_similarity import pair_similarities, phrase_cosines
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.errors import DataError

CLASSES = ("apple", "bed", "cup")


def by_direction(frame):
    return [frame[frame.direction == name]["rank"].tolist() for name in DIRECTIONS]


def by_sorting(similarity, index):
    """Ranks one query at a time, from sorted lists, for similarities without ties."""
    text = [1 + index[np.argsort(-row)].tolist().index(i) for i, row in enumerate(similarity)]
    image = [
        1 + np.argsort(-row).tolist().index(i) for i, row in zip(index, similarity.T, strict=True)
    ]
    return [text, image]


def unit(rng, n, width=8):
    rows = rng.normal(size=(n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_features_agree_with_sorting_each_query(chunk):
    rng = np.random.default_rng(0)
    images, texts = unit(rng, 20), unit(rng, 53)
    index = np.concatenate([np.arange(20), rng.integers(20, size=33)])
    result = by_direction(rank_pairs(images, texts, index, chunk_size=chunk))
    assert result == by_sorting(images @ texts.T, index)
    assert 0 < np.mean(np.array(result[0]) == 1) < 1


def test_equal_captions_of_two_pictures_tie_exactly():
    # A product of few rows rounds the last column differently from an equal one before it.
    rng = np.random.default_rng(1)
    for n in [5, 6, 7, 17, 38] * 10:
        images, captions = unit(rng, n, 512), unit(rng, n, 512)
        captions[-1] = captions[0]
        text, _ = by_direction(rank_pairs(images, captions, np.arange(n), chunk_size=1))
        assert text[0] > 1 and text[-1] > 1


def test_a_set_of_pictures_and_captions(hand_encoder):
    encoder = hand_encoder({"a": [1.0, 0.0], "b": [0.0, 1.0]}, {"s": [1.0, 0.0], "t": [0.6, 0.8]})
    pairs = ImageCaptionPairs(
        [Path("a"), Path("b")], ["s", "t", "s"], torch.tensor([0, 1, 1]), "toy", 3, 3
    )
    result = retrieval.retrieval_ranks(encoder, pairs, "coco")
    assert result.to_dict("list") == {
        "set": ["coco"] * 5,
        "direction": [DIRECTIONS[0]] * 2 + [DIRECTIONS[1]] * 3,
        "query": [0, 1, 0, 1, 2],
        "picture": [0, 1, 0, 1, 1],
        "rank": [2, 1, 1, 1, 2],
    }
    # a tie goes against the query, but not among right captions: number 2 ties with 0 and 1
    tied = rank_pairs(np.array([[0.5, 0.5, 0.5], [0.1, 0.2, 0.5]]), np.eye(3), np.array([0, 0, 1]))
    assert by_direction(tied) == [[2, 1], [1, 1, 2]]
    with pytest.raises(DataError, match="row 1"):
        rank_pairs(np.zeros((3, 3)), np.eye(3), np.array([0, 2, 2]))


@pytest.mark.parametrize(
    ("shown", "cup", "expected"),
    [
        ({"a": (0,), "b": (1,), "c": (2,)}, (-1, 0), [1, 2, 3]),  # one class an image: top k
        ({"a": (0, 1), "b": (2, 1)}, (-1, 0), [1, 1, 2, 2]),  # those of one image do not compete
        ({"a": (1,)}, (0, 1), [3]),  # a tie with the cup is wrong
    ],
)
def test_classes_of_images(hand_encoder, shown, cup, expected):
    """Cosines .8 to the apple, .6 to the bed, -.8 or .6 to the cup."""
    vectors = {"an apple": (1, 0), "a bed": (0, 1), "a cup": cup}
    texts = {prompt.format(name): vectors[name] for name in vectors for prompt in PROMPT_TEMPLATES}
    images = LabelledImages([Path(name) for name in shown], [*shown.values()], CLASSES, 9)
    encoder = hand_encoder(dict.fromkeys(shown, (0.8, 0.6)), texts)
    assert retrieval.class_ranks(encoder, images)["rank"].tolist() == expected


def test_a_class_is_the_mean_of_its_prompts(hand_encoder):
    texts = {"a photo of an apple": (1.0, 0.0), "an apple": (0.0, 1.0)}
    mean = retrieval.class_vectors(hand_encoder({}, texts), ["apple"])
    np.testing.assert_allclose(mean, [[2**-0.5, 2**-0.5]], rtol=1e-6)


def test_sentences(hand_encoder):
    encoder = hand_encoder({}, {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, 1.0]})
    true_scores, sizes = np.array([3.0, 1.0, 5.0]), {"one": 1, "two": 2}
    pairs = SentencePairs("SICK-R", ("a", "a", "b"), ("b", "c", "b"), true_scores, sizes, 4, {})
    result = pair_similarities(encoder, pairs)
    assert result.drop(columns="score").to_dict("list") == {
        "set": ["SICK-R"] * 3,
        "part": ["one", "two", "two"],
        "pair": [0, 1, 2],
        "gold": [3, 1, 5],
    }
    np.testing.assert_allclose(result.score, [0.6, 0.0, 1.0], atol=1e-7)


def test_phrases_of_a_caption_and_of_others_are_weighed_once(hand_encoder):
    nan, red_big, red = np.nan, ("red cat", "big cat"), ("red cat",)
    vectors = {"one": (1, 0), "two": (0, 1), "three": (0.6, 0.8), "cat": (1, 0), "dog": (0.6, 0.8)}
    vectors |= {"red cat": (0.8, 0.6), "big cat": (0, 1), "dog on bed": (0, -1)}
    encoder = hand_encoder({}, vectors)
    for phrases, *columns in (
        ([("cat",), ("dog",), ("dog",)], [1, 1, 1], [1.0, 0.8, 1.0], [0.6, 0.0, 0.6]),
        ([red_big, red, ()], [2, 1, 0], [0.4, 0.6, nan], [nan, 1.0, nan]),
        ([(), ("dog on bed",), ()], [0, 1, 0], [nan, -1.0, nan], [nan, nan, nan]),
    ):
        result = phrase_cosines(encoder, ("one", "two", "three"), phrases)
        np.testing.assert_allclose([*result.values()], columns, atol=1e-6, err_msg=str(phrases))
