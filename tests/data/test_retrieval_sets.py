from __future__ import annotations

import json

import pytest

from cae_lib.data.retrieval_sets import load_retrieval_set
from cae_lib.errors import ConfigError, DataError

NAME = "COCO_val2014_{:012d}.jpg"


def counts(number):
    """Captions of a picture: six for ten of them, else five."""
    return 6 if number % 500 == 3 else 5


def texts(number):
    return [f"caption {k} of {number} \n" for k in range(counts(number))]


@pytest.fixture
def full(tmp_path):
    """COCO's test split in full size, in both files; no pictures."""
    own = [{"image": f"val2014/{NAME.format(i)}", "caption": texts(i)} for i in range(5000)]
    raw = [
        {"filename": NAME.format(i), "filepath": "val2014", "split": "test",
         "sentences": [{"raw": text} for text in texts(i)]}
        for i in range(5000)
    ]
    raw.insert(7, {"filename": "x.jpg", "filepath": "val2014", "split": "restval",
                   "sentences": [{"raw": "of the training set"}]})
    folder = tmp_path / "coco"
    folder.mkdir()
    (folder / "coco_karpathy_test.json").write_text(json.dumps(own), "utf-8")
    (folder / "dataset_coco.json").write_text(json.dumps({"images": raw}), "utf-8")
    return tmp_path


def test_both_files_hold_the_same_25010_captions(full):
    own = load_retrieval_set("coco", full, missing="ignore", official=True)
    (full / "coco/coco_karpathy_test.json").unlink()
    raw = load_retrieval_set("coco", full, missing="ignore", official=True)
    for pairs in (own, raw):
        assert (len(pairs.image_paths), pairs.n_used, pairs.n_expected) == (5000, 25_010, 25_010)
    assert own.captions == raw.captions
    assert own.image_paths == raw.image_paths
    assert own.captions[0].endswith(" \n")


def test_five_captions_a_picture_make_25000(full):
    pairs = load_retrieval_set("coco", full, missing="ignore", captions_per_image=5)
    assert pairs.n_used == pairs.n_expected == 25_000
    assert pairs.image_index.bincount().tolist() == [5] * 5000
    assert "caption 5 of 3 \n" not in pairs.captions


def test_another_number_than_the_published_one_is_refused(full):
    path = full / "coco/coco_karpathy_test.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8"))[:-1]), "utf-8")
    with pytest.raises(DataError, match="4999 pictures with 25005 captions, 5000 with 25010"):
        load_retrieval_set("coco", full, missing="ignore", official=True)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("flickr30k-images/1.jpg", "flickr30k-images/1.jpg"),
        ("flickr30k-images/1.jpg", "1.jpg"),
        ("images/1.jpg", "1.jpg"),
        ("1.jpg", "1.jpg"),
    ],
)
def test_flickr_pictures_are_found_in_the_usual_places(tmp_path, place, name):
    """The list names pictures with or without their folder."""
    folder = tmp_path / "flickr30k"
    picture = folder / place
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"")
    rows = [{"image": name, "caption": ["one", "two"]}]
    (folder / "flickr30k_test.json").write_text(json.dumps(rows), "utf-8")
    pairs = load_retrieval_set("flickr30k", tmp_path)
    assert [path.resolve() for path in pairs.image_paths] == [picture.resolve()]


def test_missing_pictures_name_the_official_place(full):
    with pytest.raises(DataError, match=r"25010 of 25010 rows have no picture.*coco/val2014/COCO"):
        load_retrieval_set("coco", full)


def test_world_sets_come_from_either_file(smoke_world):
    for name in ("coco", "flickr30k"):
        pairs = load_retrieval_set(name, smoke_world)
        assert pairs.n_used == pairs.n_expected > 0
        assert all(path.is_file() for path in pairs.image_paths)


def test_unknown_set_and_nothing_there(tmp_path):
    with pytest.raises(ConfigError, match="coco, flickr30k"):
        load_retrieval_set("flickr8k", tmp_path)
    with pytest.raises(DataError, match="dataset_coco.json beside it"):
        load_retrieval_set("coco", tmp_path)
