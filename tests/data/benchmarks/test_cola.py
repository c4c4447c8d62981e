from __future__ import annotations

import numpy as np
import pytest

from cae_lib.data.benchmarks import cola, load_benchmark
from cae_lib.errors import ConfigError, DataError

URL = "https://cs-people.bu.edu/array/data/vg_gqa_images/{}.jpg"
LABELS = ["square white plate", "red cup", "blue dog"]


@pytest.fixture
def root(tmp_path, write_json, draw):
    folder = tmp_path / "cola"
    draw(folder / "images", "1.jpg", "2.jpg", "3.jpg")
    first, second = "a red cup on a blue plate", "a blue cup on a red plate"
    rows = [[URL.format(1), first, URL.format(2), second]]
    write_json(folder / cola.MULTI, rows)
    rows = [
        ["/projectnb/somewhere/1.jpg", {"cup": ["red"]}, [1, 0, 0], [1, 1, 0]],
        ["/projectnb/somewhere/2.jpg", {}, [0, 1, 0], [1, 1, 1]],
    ]
    write_json(folder / "data" / cola.SINGLE.format("GQA"), [LABELS, rows])
    paco = {"labels": LABELS, "data": [["3.jpg", [0, 0, 1], [0, 0, 1]]]}
    write_json(folder / "data" / cola.SINGLE.format("PACO"), paco)
    return folder


def test_multi_objects_are_two_pictures_and_two_captions_scored_by_picture(root):
    [benchmark] = load_benchmark("cola", root.parent)
    assert (benchmark.key, benchmark.task, benchmark.chance) == ("cola/multi", "image", 0.25)
    [item] = benchmark.items
    assert [ref.path for ref in item.images] == [root / "images/1.jpg", root / "images/2.jpg"]
    assert item.texts[0].startswith("a red cup")
    with pytest.raises(DataError, match="1 items, 210 expected"):
        cola.load(root, official=True)


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


def test_missing_picture_is_refused_or_counted(root):
    (root / "images/2.jpg").unlink()
    with pytest.raises(DataError, match=r"row 0: its picture .*2\.jpg"):
        cola.load(root)
    with pytest.raises(DataError, match=r"GQA\.json, row 1: its picture"):
        cola.load_single(root)
    pictures = cola.load_single(root, allow_missing=True)
    assert (len(pictures.images), pictures.n_expected) == (1, 2)
    assert pictures.present.tolist() == [[True, False, False]]
    assert pictures.counts == {"missing_images": 1}


def test_malformed_rows_and_unknown_sets(root, write_json):
    write_json(root / cola.MULTI, [[URL.format(1), "a", "b"]])
    with pytest.raises(DataError, match=r"matching_benchmark\.json, row 0"):
        cola.load(root)
    path = root / "data" / cola.SINGLE.format("GQA")
    write_json(path, [LABELS, [["1.jpg", {}, [1, 0], [1, 1, 1]]]])
    with pytest.raises(DataError, match=r"GQA\.json, row 0: expected a list of 3"):
        cola.load_single(root)
    write_json(path, {"labels": LABELS})
    with pytest.raises(DataError, match="expected \\[labels, rows\\]"):
        cola.load_single(root)
    with pytest.raises(ConfigError, match="GQA, CLEVR, PACO"):
        cola.load_single(root, "VG")
