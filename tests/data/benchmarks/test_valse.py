from __future__ import annotations

import pytest
from samples import VALSE

from cae_lib.data.benchmarks import valse
from cae_lib.errors import DataError

INVALID = VALSE | {"mturk": {"caption": 1}, "foil": VALSE["caption"]}


@pytest.mark.parametrize("name", valse.OFFICIAL)
def test_only_valid_items_count_the_foil_comes_first_and_pictures_lie_where_they_may(put, name):
    """Keys repeat across files, `classes` is a number or a list, equal captions are not valid."""
    shared = VALSE | {"mturk": {"caption": 2}, "image_file": "b.jpg", "classes": ["x"]}
    rows = {"actions_test_0": VALSE, "actions_test_1": shared, "actions_test_2": INVALID}
    folder = f"valse/{valse.IMAGE_FOLDERS[name]}"
    root = put({f"{folder}/run_1.jpg": None, "coco/train2014/b.jpg": None,
                f"valse/data/{name}.json": rows, "valse/data/notes.json": {"unrelated": 1}})
    [part] = valse.load(root / "valse")
    assert part.key == f"valse/{name}"
    assert (part.n_used, part.n_expected) == (2, 2)
    assert part.counts == {"not_valid": 1, "identical": 0}
    first, second = part.items
    assert first.texts == ("A dog chases a man.", "A man chases a dog.") and first.truth == 1
    assert first.images[0].path.resolve() == (root / folder / "run_1.jpg").resolve()
    assert second.images[0].path.resolve() == root / "coco/train2014/b.jpg"


def test_all_eleven_are_expected_of_the_official_set(put, monkeypatch):
    assert sum(valse.OFFICIAL.values()) == 7702
    sizes = {name: n // 50 for name, n in valse.OFFICIAL.items()}
    monkeypatch.setattr(valse, "FAMILY", valse.FAMILY._replace(published=sizes))
    root = put({"valse/images/run_1.jpg": None}) / "valse"
    for name, n in sizes.items():
        rows = {str(i): VALSE for i in range(n)} | {"bad": INVALID}
        put({f"valse/data/{name}.json": rows})
    assert len(valse.load(root, official=True)) == 11
    (root / "data/plurals.json").unlink()
    with pytest.raises(DataError, match=r"plurals\.json: no such annotation file"):
        valse.load(root, official=True)
    assert len(valse.load(root, official=True, allow_missing=True)) == 10
