from __future__ import annotations

import pytest

from cae_lib.data.benchmarks import valse
from cae_lib.errors import DataError


def entry(votes=3, **changes):
    return {
        "dataset": "SWiG",
        "image_file": "run_1.jpg",
        "caption": "A man chases a dog.",
        "foil": "A dog chases a man.",
        "linguistic_phenomena": "actions",
        "classes": 1,
        "classes_foil": ["2"],
        "mturk": {"foil": 0, "caption": votes, "other": 3 - votes},
        **changes,
    }


@pytest.fixture
def root(tmp_path, write_json, draw):
    folder = tmp_path / "valse"
    draw(folder / "data/actions/images_512", "run_1.jpg")
    draw(tmp_path / "coco/val2017", "7.jpg")
    same = entry(1, foil="A man chases a dog.")
    swap = {"actions_test_0": entry(), "b": entry(2), "c": same}
    write_json(folder / "data/actant-swap.json", swap)
    write_json(folder / "data/relations.json", {"actions_test_0": entry(image_file="7.jpg")})
    write_json(folder / "data/notes.json", {"unrelated": 1})
    return folder


def test_only_valid_items_count_and_the_foil_comes_first(root):
    swap, relations = valse.load(root)
    assert (swap.subset, relations.subset) == ("actant-swap", "relations")
    assert swap.n_used == swap.n_expected == 2
    assert swap.counts == {"not_valid": 1, "identical": 0}
    item = swap.items[0]
    assert item.texts == ("A dog chases a man.", "A man chases a dog.")
    assert item.truth == 1


def test_pictures_come_from_the_official_folder_or_a_shared_one(root):
    swap, relations = valse.load(root)
    assert swap.items[0].images[0].path == root / "data/actions/images_512/run_1.jpg"
    assert relations.items[0].images[0].path == root / "../coco/val2017/7.jpg"


def test_without_the_filter_all_items_count(root):
    swap = valse.load(root, instruments=["actant-swap"], valid_only=False)[0]
    assert swap.n_used == 3
    assert swap.counts["identical"] == 1


def test_official_counts_are_those_of_valid_items_and_need_every_file(root):
    assert sum(valse.OFFICIAL.values()) == 7702
    with pytest.raises(DataError, match="2 items, 949 expected"):
        valse.load(root, official=True)
    with pytest.raises(DataError, match=r"action-replacement\.json: no such annotation file"):
        valse.load(root, official=True, allow_missing=True)


@pytest.mark.parametrize("bad", [entry(mturk=None), entry(foil=5), "text"])
def test_malformed_item_is_named(root, write_json, bad):
    write_json(root / "data/plurals.json", {"x": entry(), "y": bad})
    with pytest.raises(DataError, match=r"plurals\.json, row y"):
        valse.load(root, instruments=["plurals"])


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="none of VALSE's files"):
        valse.load(tmp_path)


@pytest.mark.parametrize("name", valse.OFFICIAL)
def test_all_eleven_files_find_their_pictures_in_the_official_and_in_shared_folders(
    tmp_path, write_json, draw, name
):
    """Keys repeat across files, `classes` is a number or a list, equal captions are not valid."""
    folder = tmp_path / "valse"
    draw(folder / valse.IMAGE_FOLDERS[name], "a.jpg")
    draw(tmp_path / "coco/train2014", "b.jpg")
    entries = {
        "actions_test_0": entry(image_file="a.jpg"),
        "actions_test_1": entry(2, image_file="b.jpg", classes=["x"], classes_foil=3),
        "actions_test_2": entry(1, foil="A man chases a dog."),
    }
    write_json(folder / f"data/{name}.json", entries)
    [benchmark] = valse.load(folder)
    assert benchmark.key == f"valse/{name}"
    assert (benchmark.n_used, benchmark.n_expected) == (2, 2)
    assert benchmark.counts == {"not_valid": 1, "identical": 0}


def test_all_eleven_are_expected_of_the_official_set(tmp_path, write_json, draw):
    folder = tmp_path / "valse"
    draw(folder / "images", "run_1.jpg")
    for name, n in valse.OFFICIAL.items():
        rows = {str(i): entry() for i in range(n)} | {"bad": entry(0)}
        write_json(folder / f"data/{name}.json", rows)
    assert len(valse.load(folder, official=True)) == 11
    (folder / "data/plurals.json").unlink()
    with pytest.raises(DataError, match=r"plurals\.json: no such annotation file"):
        valse.load(folder, official=True)
