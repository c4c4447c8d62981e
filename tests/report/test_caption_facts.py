from __future__ import annotations

import json

import pytest

from cae_lib.errors import DataError
from cae_lib.report.caption_facts import coco_captions, measure, pretraining_captions

TEXTS = [
    "a red cat on a small bed",
    "a cat with a dog",
    "a dog to the left of a cat and a kite on the right",
    "a photo of a dog and a cat on the left",
    "a dog and a cat on the left",
    "a dog and a cat on the left",
]


def test_captions_are_counted_by_their_words():
    found = measure(TEXTS)
    assert found.n == 6
    assert found.words == pytest.approx((7 + 5 + 14 + 11 + 8 + 8) / 6)
    assert found.nouns == pytest.approx((2 + 2 + 3 + 2 + 2 + 2) / 6)
    assert found.attribute == pytest.approx(1 / 6)
    assert found.relation == pytest.approx(2 / 6), "'on the left' places one thing"
    assert found.vague == pytest.approx(1 / 6)
    assert found.distinct == pytest.approx(5 / 6)
    with pytest.raises(DataError, match="no captions"):
        measure([])


def test_a_position_is_told_from_a_relation():
    assert measure(["a cat on the left of a dog"]).relation == 1.0
    assert measure(["a cat at the top"]).relation == 0.0


def test_captions_of_both_corpora(home):
    texts = pretraining_captions("smoke", n=5)
    assert len(texts) == 10 and texts == pretraining_captions("smoke", n=5)
    with pytest.raises(DataError, match="cae world build --profile smoke"):
        coco_captions("smoke")
    path = home / "data" / "raw" / "world-smoke" / "coco" / "coco_karpathy_test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"image": "a.jpg", "caption": ["a cat", "a dog"]}]))
    assert coco_captions("smoke") == ["a cat", "a dog"]
    path.write_text("[{}]")
    with pytest.raises(DataError, match="not a Karpathy test file"):
        coco_captions("smoke")
