"""SugarCrepe, VALSE and VL-CheckList: one picture, a text that is true of it, and a false one."""

import pytest
from samples import CHECKLIST, SUGAR, VALSE

from cae_lib.data.benchmarks import load_benchmark, sugarcrepe, valse, vl_checklist
from cae_lib.errors import DataError

INVALID = VALSE | {"mturk": {"caption": 1}, "foil": VALSE["caption"]}
PLACE = "Object/Location/swig_location/swig_place/swig_place_mid"
PICTURES = {"hake": "hico_20160224_det/images/test2015/1.jpg", "swig": "run_1.jpg",
            "vg": "VG_100K/1.jpg"}
THREE = {"POS": ["ON", "a man", "men"], "NEG": [" customers", "dog", "dogs"]}


def test_keys_of_sugarcrepe_need_not_be_consecutive_and_newlines_stay(put):
    rows = {"0": SUGAR, "2": SUGAR}
    files = {f"sugar-crepe/data/{name}.json": rows for name in sugarcrepe.OFFICIAL}
    parts = load_benchmark("sugarcrepe", put(files | {"coco/val2017/1.jpg": None}))
    assert [part.subset for part in parts] == list(sugarcrepe.OFFICIAL)
    assert [item.id for item in parts[0].items] == ["0", "2"]
    item = parts[0].items[0]
    assert item.texts == ("A cat on a\nmat.", "A mat on a cat.") and item.truth == 0
    assert parts[0].counts == {"same_words": 2, "identical": 0}
    assert sum(sugarcrepe.OFFICIAL.values()) == 7511


@pytest.mark.parametrize("name", valse.OFFICIAL)
def test_only_valid_items_of_valse_count_and_pictures_lie_where_they_may(put, name):
    """Keys repeat across files, `classes` is a number or a list, equal captions are not valid."""
    shared = VALSE | {"mturk": {"caption": 2}, "image_file": "b.jpg", "classes": ["x"]}
    rows = {"actions_test_0": VALSE, "actions_test_1": shared, "actions_test_2": INVALID}
    folder = f"valse/{valse.IMAGE_FOLDERS[name]}"
    root = put({f"{folder}/run_1.jpg": None, "coco/train2014/b.jpg": None,
                f"valse/data/{name}.json": rows, "valse/data/notes.json": {"unrelated": 1}})
    [part] = valse.load(root / "valse")
    assert (part.key, part.n_used, part.n_expected) == (f"valse/{name}", 2, 2)
    assert part.counts == {"not_valid": 1, "identical": 0}
    first, second = part.items
    assert first.texts == ("A dog chases a man.", "A man chases a dog.") and first.truth == 1
    assert first.images[0].path.resolve() == (root / folder / "run_1.jpg").resolve()
    assert second.images[0].path.resolve() == root / "coco/train2014/b.jpg"


def test_all_eleven_are_expected_of_the_official_valse(put, monkeypatch):
    assert sum(valse.OFFICIAL.values()) == 7702
    sizes = {name: n // 50 for name, n in valse.OFFICIAL.items()}
    monkeypatch.setattr(valse, "FAMILY", valse.FAMILY._replace(published=sizes))
    root = put({"valse/images/run_1.jpg": None}) / "valse"
    for name, n in sizes.items():
        put({f"valse/data/{name}.json": {str(i): VALSE for i in range(n)} | {"bad": INVALID}})
    assert len(valse.load(root, official=True)) == 11
    (root / "data/plurals.json").unlink()
    with pytest.raises(DataError, match=r"plurals\.json: no such annotation file"):
        valse.load(root, official=True)
    assert len(valse.load(root, official=True, allow_missing=True)) == 10


def test_corpora_of_vl_checklist_that_are_here_and_those_that_are_refused(put):
    same = ["VG_100K/1.jpg", {"POS": ["brown knob"], "NEG": ["brown knob"]}]
    root = put({"vg/VG_100K/1.jpg": None, "data/Attribute/vg/color.json": [CHECKLIST, same],
                "data/Attribute/vaw/color.json": [CHECKLIST], f"data/{PLACE}.json": []})
    vaw, vg = vl_checklist.load(root)
    assert (vaw.subset, vg.subset) == ("Attribute/vaw/color", "Attribute/vg/color")
    assert vaw.items[0].images[0].path == root / "vg/VG_100K/1.jpg"
    assert (vg.n_used, vg.counts) == (2, {"identical": 1})
    put({"data/Attribute/flickr/color.json": [["1.jpg", {}]]})
    for name, message in ((PLACE, "lists no rows"), ("Attribute/flickr/color", "cannot tell")):
        with pytest.raises(DataError, match=message):
            vl_checklist.load(root, subsets=[name])


def test_official_corpora_of_vl_checklist_all_find_their_pictures(put, monkeypatch):
    sizes = dict.fromkeys(vl_checklist.OFFICIAL, 1) | {"Attribute/vg/size": 2695}  # no cap
    family = vl_checklist.FAMILY._replace(published=sizes)
    monkeypatch.setattr(vl_checklist, "FAMILY", family)
    names = vl_checklist.OFFICIAL_CORPORA
    assert len(names) == len(set(names)) == 12 + 2 + 2 * 3 * 7
    assert "Object/Size/hake_size/hake_obj_large" in names
    root = put({f"{source}/{name}": None for source, name in PICTURES.items()})
    for name in names:
        source = next(s for s in PICTURES if s in name.replace("vaw", "vg"))
        put({f"data/{name}.json": [[PICTURES[source], THREE]] * sizes.get(name, 1)})
    parts = {part.subset: part for part in vl_checklist.load(root, official=True)}
    assert sorted(parts) == sorted(names)
    for name, part in parts.items():  # only the first of three, and the negative comes first
        assert part.items[0].texts == (" customers", "ON") and part.items[0].truth == 1
        assert part.n_used == sizes.get(name, 1)
    (root / "data/Relation/hake_action.json").unlink()
    with pytest.raises(DataError, match=r"hake_action\.json: no such annotation file"):
        vl_checklist.load(root, official=True)
    assert len(vl_checklist.load(root, official=True, allow_missing=True)) == len(names) - 1
