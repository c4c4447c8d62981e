"""Caption files: what is read from hand-made ones, and what is said about damaged ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cae_lib.data.captions import (
    load_caption_list,
    load_coco_captions,
    load_karpathy,
    load_negclip_tsv,
)
from cae_lib.errors import DataError

ROWS = [
    ["0", "a dog\ton a mat", "coco/a.jpg", "['a mat on a dog']", "[1, 2, 1]"],
    ["1", 'a "red" cat,\nasleep ', "coco/b.jpg", '["it\'s a cat", "two"]', "[0, 2, 0]"],
    ["2", "the dog again", "coco/a.jpg", "[]", "[1, 0, 1]"],
]


def write_tsv(path: Path, rows: list[list[str]], header: list[str] | None = None) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(header or ["", "title", "filepath", "neg_caption", "neg_image"])
        writer.writerows(rows)
    return path


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_tsv_keeps_tabs_quotes_and_newlines_and_lists_each_picture_once(tmp_path):
    tsv = write_tsv(tmp_path / "train_neg_clip.tsv", ROWS)
    pairs = load_negclip_tsv(tsv, touch(tmp_path, "coco/a.jpg", "coco/b.jpg"))
    assert pairs.captions == ["a dog\ton a mat", 'a "red" cat,\nasleep ', "the dog again"]
    assert pairs.image_paths == [tmp_path / "coco/a.jpg", tmp_path / "coco/b.jpg"]
    assert pairs.image_index.tolist() == [0, 1, 0]
    assert pairs.negatives == [["a mat on a dog"], ["it's a cat", "two"], []]
    assert pairs.hard_images == [[1, 2, 1], [0, 2, 0], [1, 0, 1]]
    assert (pairs.name, pairs.n_used, pairs.n_expected) == ("train_neg_clip", 3, 3)


def test_missing_pictures_are_named_and_dropping_them_renumbers_the_rows(tmp_path):
    tsv = write_tsv(tmp_path / "t.tsv", ROWS)
    touch(tmp_path, "coco/a.jpg")
    with pytest.raises(DataError, match=r"1 of 3 rows have no picture, first row 1: .*b\.jpg"):
        load_negclip_tsv(tsv, tmp_path)
    pairs = load_negclip_tsv(tsv, tmp_path, missing="drop")
    assert (pairs.n_used, pairs.n_expected) == (2, 3)
    assert pairs.captions == ["a dog\ton a mat", "the dog again"]
    assert pairs.hard_images == [[1], [0]]  # old row 2 is row 1 now, old row 1 is gone
    assert load_negclip_tsv(tsv, tmp_path, missing="ignore").n_used == 3


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        (3, "['a mat on", r"t\.tsv, row 1: neg_caption is .*Python list of str"),
        (3, "__import__('os').getcwd()", r"row 1: neg_caption"),
        (3, "[1]", r"row 1: neg_caption"),
        (4, "['x']", r"row 1: neg_image .*list of int"),
        (4, "[3]", r"row 1: neg_image is \[3\]; expected row numbers .* 0 to 2"),
        (1, "  ", r"row 1: title"),
    ],
)
def test_a_damaged_cell_is_named_with_file_and_row(tmp_path, column, cell, message):
    rows = [list(row) for row in ROWS]
    rows[1][column] = cell
    with pytest.raises(DataError, match=message):
        load_negclip_tsv(write_tsv(tmp_path / "t.tsv", rows), tmp_path, missing="ignore")


def test_a_row_cut_short_and_a_wrong_header_are_errors(tmp_path):
    with pytest.raises(DataError, match="row 2: neg_caption is None"):
        tsv = write_tsv(tmp_path / "t.tsv", [*ROWS[:2], ROWS[2][:3]])
        load_negclip_tsv(tsv, tmp_path, missing="ignore")
    with pytest.raises(DataError, match="no column title, neg_caption"):
        header = ["", "caption", "filepath", "negatives", "neg_image"]
        load_negclip_tsv(write_tsv(tmp_path / "u.tsv", ROWS, header), tmp_path)
    with pytest.raises(DataError, match="no such file"):
        load_negclip_tsv(tmp_path / "absent.tsv", tmp_path)


def write_karpathy(path: Path) -> Path:
    images = [
        {"filename": "1.jpg", "filepath": "val2014", "split": "restval",
         "sentences": [{"raw": "one"}]},
        {"filename": "2.jpg", "filepath": "train2014", "split": "train",
         "sentences": [{"raw": "two"}, {"raw": "deux"}]},
        {"filename": "3.jpg", "split": "test", "sentences": [{"raw": "three\n"}]},
    ]
    path.write_text(json.dumps({"images": images, "dataset": "coco"}), encoding="utf-8")
    return path


def test_karpathy_restval_is_part_of_train_and_of_nothing_else(tmp_path):
    file = write_karpathy(tmp_path / "dataset_coco.json")
    train = load_karpathy(file, tmp_path, "train", missing="ignore")
    assert train.captions == ["one", "two", "deux"]
    assert train.image_paths == [tmp_path / "val2014/1.jpg", tmp_path / "train2014/2.jpg"]
    assert train.image_index.tolist() == [0, 1, 1]
    test = load_karpathy(file, tmp_path, "test", missing="ignore")
    assert (test.captions, test.image_paths) == (["three\n"], [tmp_path / "3.jpg"])
    assert test.name == "dataset_coco-test"
    with pytest.raises(DataError, match=r"no picture of split 'val'.*'restval', 'test', 'train'"):
        load_karpathy(file, tmp_path, "val")


def test_caption_list_takes_one_caption_or_several(tmp_path):
    file = tmp_path / "coco_karpathy_test.json"
    entries = [
        {"image": "val2014/a.jpg", "caption": ["x", "y"]},
        {"image": "b.jpg", "caption": "z"},
    ]
    file.write_text(json.dumps(entries), encoding="utf-8")
    pairs = load_caption_list(file, touch(tmp_path, "val2014/a.jpg", "b.jpg"))
    assert pairs.captions == ["x", "y", "z"]
    assert pairs.image_index.tolist() == [0, 0, 1]
    file.write_text(json.dumps([{"img": "b.jpg"}]), encoding="utf-8")
    with pytest.raises(DataError, match="entry 0: expected an object with the field 'caption'"):
        load_caption_list(file, tmp_path)


def test_coco_captions_follow_the_annotations(tmp_path):
    file = tmp_path / "captions_val2014.json"
    content = {
        "images": [{"id": 7, "file_name": "seven.jpg"}, {"id": 9, "file_name": "nine.jpg"}],
        "annotations": [
            {"image_id": 9, "id": 1, "caption": "nine"},
            {"image_id": 7, "id": 2, "caption": "seven"},
            {"image_id": 9, "id": 3, "caption": "neuf"},
        ],
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    pairs = load_coco_captions(file, tmp_path, missing="ignore")
    assert pairs.captions == ["nine", "seven", "neuf"]
    assert [pairs.image_paths[i].name for i in pairs.image_index] == [
        "nine.jpg",
        "seven.jpg",
        "nine.jpg",
    ]
    content["annotations"][1]["image_id"] = 8
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="annotation 1: image_id 8 is not in `images`"):
        load_coco_captions(file, tmp_path)


def test_broken_json_is_a_data_error(tmp_path):
    file = tmp_path / "x.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="not valid JSON"):
        load_coco_captions(file, tmp_path)
