from __future__ import annotations

import numpy as np
import pytest
from samples import COLA

from cae_lib.data.benchmarks import cola, load_benchmark
from cae_lib.errors import ConfigError, DataError

LABELS = ["square white plate", "red cup", "blue dog"]
GQA, PACO = (f"cola/data/{cola.SINGLE.format(name)}" for name in ("GQA", "PACO"))


@pytest.fixture
def root(put):
    pictures = dict.fromkeys(f"cola/images/{number}.jpg" for number in (1, 2, 3))
    rows = [
        ["/projectnb/somewhere/1.jpg", {"cup": ["red"]}, [1, 0, 0], [1, 1, 0]],
        ["/projectnb/somewhere/2.jpg", {}, [0, 1, 0], [1, 1, 1]],
    ]
    paco = {"labels": LABELS, "data": [["3.jpg", [0, 0, 1], [0, 0, 1]]]}
    return put(pictures | {f"cola/{cola.MULTI}": [COLA], GQA: [LABELS, rows], PACO: paco}) / "cola"


def test_multi_objects_are_two_pictures_and_two_captions_scored_by_picture(root):
    [benchmark] = load_benchmark("cola", root.parent)
    assert (benchmark.key, benchmark.task) == ("cola/multi", "image")
    [item] = benchmark.items
    assert [ref.path.name for ref in item.images] == ["1.jpg", "2.jpg"]
    assert item.texts == (COLA[1], COLA[3])


def test_list_of_labels_and_rows_with_paths_of_another_machine(root):
    pictures = cola.load_single(root, "GQA")
    assert pictures.labels == tuple(LABELS)
    assert [ref.path.name for ref in pictures.images] == ["1.jpg", "2.jpg"]
    np.testing.assert_array_equal(pictures.present, np.array([[1, 0, 0], [0, 1, 0]], bool))
    np.testing.assert_array_equal(pictures.hard, np.array([[1, 1, 0], [1, 1, 1]], bool))


def test_object_with_keys_and_rows_without_annotation(root):
    pictures = cola.load_single(root, "PACO")
    assert pictures.present.tolist() == [[False, False, True]]
    assert (len(pictures.images), pictures.n_expected) == (1, 1)


def test_what_is_missing_or_malformed_of_single_objects(root, put):
    (root / "images/2.jpg").unlink()
    with pytest.raises(DataError, match=r"GQA\.json, row 1: its picture"):
        cola.load_single(root)
    pictures = cola.load_single(root, allow_missing=True)
    assert (len(pictures.images), pictures.n_expected) == (1, 2)
    assert pictures.present.tolist() == [[True, False, False]]
    assert pictures.counts == {"missing_images": 1}
    put({GQA: [LABELS, [["1.jpg", {}, [1, 0], [1, 1, 1]]]]})
    with pytest.raises(DataError, match=r"GQA\.json, row 0: expected a list of 3"):
        cola.load_single(root)
    put({GQA: {"labels": LABELS}})
    with pytest.raises(DataError, match="expected \\[labels, rows\\]"):
        cola.load_single(root)
    with pytest.raises(ConfigError, match="GQA, CLEVR, PACO"):
        cola.load_single(root, "VG")
