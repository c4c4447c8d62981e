from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.benchmarks.cola import LabelledPictures
from cae_lib.errors import DataError
from cae_lib.evaluation.labels import average_precision, label_precisions


def test_average_precision_by_hand():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    positive = np.array([True, False, True, False])
    assert average_precision(scores, positive) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(-scores, positive) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_equal_scores_are_one_threshold_whatever_their_order():
    scores = np.array([0.5, 0.5, 0.5, 0.1])
    for positive in ([1, 0, 0, 0], [0, 0, 1, 0]):
        assert average_precision(scores, np.array(positive, bool)) == pytest.approx(1 / 3)


def test_average_precision_equals_a_loop_over_thresholds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 6, 20) / 5
        positive = rng.random(20) < 0.4
        positive[0] = True
        expected, before = 0.0, 0.0
        for threshold in sorted({*scores.tolist()}, reverse=True):
            taken = scores >= threshold
            recall = (positive & taken).sum() / positive.sum()
            expected += (recall - before) * (positive & taken).sum() / taken.sum()
            before = recall
        assert average_precision(scores, positive) == pytest.approx(expected)


def test_labels_use_their_hard_pictures_and_those_without_positive_are_left_out(hand_encoder):
    images = tuple(ImageRef(Path(name)) for name in "abc")
    encoder = hand_encoder(
        {"a": [1.0, 0.0], "b": [0.8, 0.6], "c": [0.0, 1.0]}, {"x": [1.0, 0.0], "y": [0.0, 1.0]}
    )
    present = np.array([[0, 0], [1, 0], [0, 1]], dtype=bool)
    hard = np.array([[0, 1], [1, 1], [1, 0]], dtype=bool)
    found = label_precisions(
        LabelledPictures("GQA", ("x", "y"), images, present, hard, 4, {}), encoder
    )
    assert found["set"].tolist() == ["GQA", "GQA"] and found.label.tolist() == ["x", "y"]
    np.testing.assert_array_equal(found.precision, [1, np.nan])
    assert found.precision.mean() == 1  # over the labels that are scored
    everything = LabelledPictures("GQA", ("x", "y"), images, present, np.ones((3, 2), bool), 4, {})
    assert label_precisions(everything, encoder).precision.tolist() == pytest.approx([0.5, 1])


def test_lengths_have_to_agree():
    with pytest.raises(DataError, match="average precision"):
        average_precision(np.zeros(3), np.zeros(2, bool))
