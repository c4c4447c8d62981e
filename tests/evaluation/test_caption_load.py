"""What captions state: by hand on sentences that the parser reads well, and through the record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cae_lib.data.benchmarks.base import Choice, ImageRef
from cae_lib.data.training_set import default_tagger
from cae_lib.data.world.wording import stated
from cae_lib.errors import DataError
from cae_lib.evaluation import caption_load, suite
from cae_lib.evaluation.caption_load import (
    caption_load_record,
    caption_loads,
    item_loads,
    load_of,
    pack_loads,
    true_captions,
    unpack_loads,
)
from cae_lib.evaluation.choice import evaluate

PICTURES = (ImageRef(Path("a.png")), ImageRef(Path("b.png")))


@pytest.mark.parametrize(
    ("pictures", "texts", "truth", "expected"),
    [
        (1, ("false", "true"), 1, ("true",)),
        (2, ("true",), 1, ("true",)),
        (2, ("first", "second"), 0, ("first", "second")),
    ],
)
def test_true_captions(pictures: int, texts: tuple, truth: int, expected: tuple) -> None:
    assert true_captions(Choice(PICTURES[:pictures], texts, truth, "g", "0")) == expected


def test_load_of_a_graph() -> None:
    article, color, number = ({"dep": dep} for dep in ("det", "amod", "nummod"))
    graph = {
        "entities": [{"modifiers": [article, color]}, {"modifiers": [number]}],
        "relations": [{"subject": 0, "object": 1, "relation": "chasing"}],
    }
    assert load_of("a red cat chasing two dogs", graph) == (2, 2, 1, 6)


def test_captions_by_hand() -> None:
    captions = ["a red cat", "a red cat is chasing a small red dog", "a red cat"]
    found = caption_loads(captions, default_tagger(), world=True)
    assert found.tolist() == [[1, 1, 0, 3, 1, 1, 0], [2, 3, 1, 9, 2, 3, 1], [1, 1, 0, 3, 1, 1, 0]]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a small striped cat is to the left of a dog", (2, 2, 1)),
        ("a cat on top of a bed near a chair", (3, 0, 2)),
        ("a red ball on the left", (1, 1, 0)),
        ("a cat underneath a cup with a hat at the top", (3, 0, 2)),
    ],
)
def test_the_worlds_own_words(caption: str, expected: tuple) -> None:
    assert stated(caption) == expected


def test_an_item_of_two_captions_has_the_larger_counts() -> None:
    item = Choice(PICTURES, ("x", "y"), 0, "g", "0")
    known = {"x": np.array([2, 0, 1, 5]), "y": np.array([2, 3, 0, 4])}
    assert item_loads([item], known).tolist() == [[2, 3, 1, 5]]


def test_packed_loads_come_back() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 9, (n, 4)) for n in (5, 1, 40)]
    rows, digits = pack_loads(parts)
    for part, text in zip(parts, digits, strict=True):
        assert np.array_equal(unpack_loads(rows, text, len(part)), part)
    with pytest.raises(DataError, match="40 items, not 39"):
        unpack_loads(rows, digits[2], 39)
    with pytest.raises(DataError, match="damaged"):
        unpack_loads(rows[:1], "ffff", 1)


@pytest.fixture
def world_home(home: Path, smoke_world: Path) -> Path:
    """A home whose raw folder is that of the smoke world."""
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    suite.benchmarks.cache_clear()
    suite.retrieval_pairs.cache_clear()
    yield home
    suite.benchmarks.cache_clear()
    suite.retrieval_pairs.cache_clear()


def test_the_record_pairs_with_answers(world_home: Path, tiny_clip, monkeypatch) -> None:
    """Digests are those of answers, counts are in their order, and the record is made once."""
    from cae_lib.evaluation.embed import Encoder

    found = caption_load_record("smoke")
    encoder = Encoder(tiny_clip)
    for part in suite.benchmarks("smoke"):
        if part.key in ("aro/relation", "winoground/group", "svo_probes/all", "crepe/atom"):
            answer, stored = evaluate(part, encoder), found["subsets"][part.key]
            assert (stored["items"], stored["n_used"]) == (answer.items, answer.n_used)
            loads = unpack_loads(found["rows"], stored["loads"], stored["n_used"])
            words = dict.fromkeys(answer.sizes)
            for group in words:
                words[group] = [max(len(t.split()) for t in true_captions(item))
                                for item in part.items if item.group == group]  # fmt: skip
            assert loads[:, 3].tolist() == [n for group in words.values() for n in group]
    captions = suite.retrieval_pairs("smoke", "coco").captions
    loads = unpack_loads(found["rows"], found["retrieval"]["loads"], len(captions))
    assert loads[:, 3].tolist() == [len(caption.split()) for caption in captions]
    assert loads[:, 5].tolist() == [stated(caption)[1] for caption in captions]
    monkeypatch.setattr(caption_load, "caption_loads", None)
    assert caption_load_record("smoke") == found
