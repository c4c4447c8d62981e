"""Caption files: what is read from hand-made ones, and which row is named in damaged ones."""

from functools import partial
from pathlib import Path

import pytest

from cae_lib.data import captions
from cae_lib.data.captions import load_karpathy, load_negclip_tsv, load_retrieval_set
from cae_lib.errors import ConfigError, DataError

HEADER = ["", "title", "filepath", "neg_caption", "neg_image"]
ROWS = [
    ["0", "a dog\ton a mat", "coco/a.jpg", "['a mat on a dog']", "[1, 2, 1]"],
    ["1", 'a "red" cat,\nasleep ', "coco/b.jpg", '["it\'s a cat", "two"]', "[0, 2, 0]"],
    ["2", "the dog again", "coco/a.jpg", "[]", "[1, 0, 1]"],
]
FLICKR = "flickr30k/flickr30k_test.json"


@pytest.fixture
def written(put):
    """Write a file and give its path; None makes a picture."""

    def write(name, content=None, header=HEADER) -> Path:
        return put({name: [header, *content] if name.endswith(".tsv") else content}) / name

    return write


def test_negclip_tsv_keeps_tabs_quotes_and_newlines_and_lists_each_picture_once(written, tmp_path):
    pictures = [written("coco/a.jpg"), written("coco/b.jpg")]
    pairs = load_negclip_tsv(written("train_neg_clip.tsv", ROWS), tmp_path)
    assert pairs.captions == ["a dog\ton a mat", 'a "red" cat,\nasleep ', "the dog again"]
    assert pairs.image_paths == pictures and pairs.image_index.tolist() == [0, 1, 0]
    assert pairs.negatives == [["a mat on a dog"], ["it's a cat", "two"], []]
    assert pairs.hard_images == [[1, 2, 1], [0, 2, 0], [1, 0, 1]]
    assert (pairs.name, pairs.n_used, pairs.n_expected) == ("train_neg_clip", 3, 3)


def test_negclip_rows_without_pictures_are_named_and_dropping_them_renumbers_the_rest(
    written, tmp_path, capsys
):
    tsv = written("t.tsv", ROWS)
    written("coco/a.jpg")
    with pytest.raises(DataError, match=r"t\.tsv, row 1: .*b\.jpg is missing. In all 1 of 3"):
        load_negclip_tsv(tsv, tmp_path)
    assert load_negclip_tsv(tsv, tmp_path, missing_images="ignore").n_used == 3
    with pytest.raises(DataError, match="t.tsv: 3 rows, 4 expected"):
        load_negclip_tsv(tsv, tmp_path, "ignore", n_expected=4)
    for problem in ("b.jpg is missing", "b.jpg cannot be decoded ("):
        pairs = load_negclip_tsv(tsv, tmp_path, missing_images="drop")
        assert (pairs.n_used, pairs.n_expected) == (2, 3)
        assert pairs.captions == ["a dog\ton a mat", "the dog again"]
        assert pairs.hard_images == [[1], [0]]  # old row 2 is row 1 now, old row 1 is gone
        printed = capsys.readouterr().out
        assert "2 used of 3 expected\n  row 1: " in printed and problem in printed
        written("coco/b.jpg").write_text("<html>gone</html>")


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        (3, "['a mat on", r"t\.tsv, row 1: field 'neg_caption' is .*Python list of texts"),
        (4, "['x']", "row 1: field 'neg_image' .*list of whole numbers"),
        (4, "[3]", r"row 1: neg_image is \[3\]; expected row numbers .* 0 to 2"),
        (1, "  ", "row 1: field 'title'"),
        (slice(3, 5), [], "row 1: has 3 fields"),
        (None, None, "the header lacks title, neg_caption"),
    ],
)
def test_damaged_negclip_row_is_named(written, tmp_path, column, cell, message):
    rows, header = [list(row) for row in ROWS], HEADER
    if column is None:
        header = ["", "a", "filepath", "b", "neg_image"]
    else:
        rows[1][column] = cell
    with pytest.raises(DataError, match=message):
        load_negclip_tsv(written("t.tsv", rows, header), tmp_path, missing_images="ignore")


def karpathy_image(number, folder, split, *texts):
    image = {"filename": f"{number}.jpg", "split": split, "sentences": [{"raw": t} for t in texts]}
    return image | ({"filepath": folder} if folder else {})


KARPATHY = [
    karpathy_image(1, "val2014", "restval", "one"),
    karpathy_image(2, "train2014", "train", "two", "deux"),
    karpathy_image(3, None, "test", "three\n"),
]


def test_karpathy_restval_is_part_of_train_and_of_nothing_else(written, tmp_path):
    file = written("dataset_coco.json", {"images": KARPATHY, "dataset": "coco"})
    train = load_karpathy(file, tmp_path, "train", missing_images="ignore")
    assert train.captions == ["one", "two", "deux"]
    assert train.image_paths == [tmp_path / "val2014/1.jpg", tmp_path / "train2014/2.jpg"]
    assert train.image_index.tolist() == [0, 1, 1]
    test = load_karpathy(file, tmp_path, "test", missing_images="ignore")
    assert (test.captions, test.image_paths) == (["three\n"], [tmp_path / "3.jpg"])
    assert test.name == "dataset_coco-test"
    with pytest.raises(DataError, match=r"no picture of split 'val'.*'restval', 'test', 'train'"):
        load_karpathy(file, tmp_path, "val")


def test_caption_list_takes_one_caption_or_several(written, tmp_path):
    entries = [{"image": "v/a.jpg", "caption": ["x", "y"]}, {"image": "b.jpg", "caption": "z"}]
    for entry in entries:
        written(entry["image"])
    pairs = captions.load_caption_list(written("coco_karpathy_test.json", entries), tmp_path)
    assert pairs.captions == ["x", "y", "z"]
    assert pairs.image_index.tolist() == [0, 0, 1]


COCO = {
    "images": [{"id": 7, "file_name": "seven.jpg"}, {"id": 9, "file_name": "nine.jpg"}],
    "annotations": [
        {"image_id": number, "caption": text}
        for text, number in {"nine": 9, "seven": 7, "neuf": 9}.items()
    ],
}


def test_coco_captions_follow_the_annotations(written, tmp_path):
    pairs = captions.load_coco_captions(written("c.json", COCO), tmp_path, missing_images="ignore")
    assert pairs.captions == ["nine", "seven", "neuf"]
    names = [pairs.image_paths[i].name for i in pairs.image_index]
    assert names == ["nine.jpg", "seven.jpg", "nine.jpg"]


def test_coco_test_set_is_read_from_its_list_or_from_karpathys_file(written, tmp_path):
    """Ten of the 5,000 published pictures have six captions, so that 25,010 are expected."""
    images = [
        karpathy_image(1, "val2014", "test", "one \n", "uno"),
        karpathy_image(2, "val2014", "restval", "two"),
    ]
    entries = [{"image": "val2014/1.jpg", "caption": ["one \n", "uno"]}]
    official = partial(load_retrieval_set, "coco", tmp_path, missing_images="ignore")
    for name, content in (("dataset_coco", {"images": images}), ("coco_karpathy_test", entries)):
        written(f"coco/{name}.json", content)
        pairs = official()
        assert pairs.captions == ["one \n", "uno"]
        assert pairs.image_paths == [tmp_path / "coco/val2014/1.jpg"]
        with pytest.raises(DataError, match=r"\.json: 2 rows, 25010 expected"):
            official(is_published=True)
    with pytest.raises(DataError, match=r"val2014/1\.jpg is missing. In all 2 of 2"):
        load_retrieval_set("coco", tmp_path)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"1.jpg": [6], "2.jpg": [4]}, "1.jpg has 6 captions, at most 5 are"),
        ({"1.jpg": [3, 3], "2.jpg": [4]}, "1.jpg has 6 captions, at most 5 are"),
        ({f"{n}.jpg": [4] for n in range(1250)}, "1,250 images, 1,000 are"),
        ({"1.jpg": [5], "2.jpg": [5]}, ""),
        ({"1.jpg": [5], "2.jpg": [6]}, "5001 rows, 5000 expected"),
    ],
)
def test_more_captions_of_an_image_or_more_images_than_published_are_refused(
    written, tmp_path, sizes, message
):
    """Of 5,000 captions, as many as are published."""
    if len(sizes) == 2:
        sizes = sizes | {f"{n}.png": [5] for n in range(998)}
    rows = [{"image": name, "caption": ["a"] * n} for name, parts in sizes.items() for n in parts]
    written(FLICKR, rows)
    read = partial(load_retrieval_set, "flickr30k", tmp_path, missing_images="ignore")
    if " are" in message:
        message += " published .5,000 captions used of 5,000 published"
    if message:
        with pytest.raises(DataError, match=f"flickr30k_test.json: .*{message}"):
            read(is_published=True)
    else:
        assert read(is_published=True).n_used == 5000


@pytest.mark.parametrize("place", ["flickr30k-images/1.jpg", "images/1.jpg", "1.jpg"])
def test_flickr_pictures_are_found_in_the_usual_places(written, tmp_path, place):
    """The list names pictures with or without their folder; a name that no file can have is that
    of a missing picture."""
    image = written(f"flickr30k/{place}")
    for name in {"1.jpg", place} - {"images/1.jpg"}:
        names = name, name.replace("1.jpg", "2.jpg"), "x" * 300, ".", "a\0b"
        written(FLICKR, [{"image": n, "caption": ["a", "b"]} for n in names])
        pairs = load_retrieval_set("flickr30k", tmp_path, missing_images="drop")
        assert [path.resolve() for path in pairs.image_paths] == [image.resolve()]


def test_unknown_or_absent_retrieval_set_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="coco, flickr30k"):
        load_retrieval_set("flickr8k", tmp_path)
    with pytest.raises(DataError, match="dataset_coco.json beside it"):
        load_retrieval_set("coco", tmp_path)


@pytest.mark.parametrize(
    ("load", "content", "message"),
    [
        ("karpathy", {"images": 5}, "images"),
        ("karpathy", {"images": [KARPATHY[0] | {"sentences": 5}]}, "sentences"),
        ("karpathy", {"images": [KARPATHY[0] | {"filepath": None}]}, "filepath"),
        ("karpathy", {"images": [KARPATHY[1] | {"sentences": []}]}, "image 0: has no sentences"),
        ("coco", COCO | {"annotations": [{"image_id": 8, "caption": "a"}]}, "image_id 8 is not in"),
        (
            "coco",
            COCO | {"images": [{"id": 7.5, "file_name": "a.jpg"}]},
            "image 0: field 'id' is 7",
        ),
        ("coco", COCO | {"images": [{"id": [7], "file_name": "a.jpg"}]}, "image 0: field 'id'"),
        ("coco", COCO | {"images": [COCO["images"][0]] * 2}, "image 1: id 7 stands twice"),
        ("coco", COCO | {"images": []}, "the list 'images' is empty"),
        ("list", [{"img": "a.jpg"}], "row 0: .*'caption'"),
        ("list", [{"image": "a.jpg", "caption": [" "]}], "row 0: .*'caption'"),
    ],
)
def test_damaged_caption_file_is_named(written, tmp_path, load, content, message):
    read = {
        "karpathy": partial(load_karpathy, split="train"),
        "coco": captions.load_coco_captions,
        "list": captions.load_caption_list,
    }[load]
    with pytest.raises(DataError, match=message):
        read(written("captions.json", content), tmp_path, missing_images="ignore")
