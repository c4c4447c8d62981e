from __future__ import annotations

import pytest
from samples import CHECKLIST

from cae_lib.data.benchmarks import vl_checklist
from cae_lib.errors import DataError

OBJECT = "Object/Location/swig_location/swig_agent/swig_agent_mid"
PLACE = "Object/Location/swig_location/swig_place/swig_place_mid"
PICTURES = {"hake": "hico_20160224_det/images/test2015/1.jpg", "swig": "run_1.jpg",
            "vg": "VG_100K/1.jpg"}
THREE = {"POS": ["ON", "a man", "men"], "NEG": [" customers", "dog", "dogs"]}


@pytest.fixture
def root(put):
    same = ["VG_100K/1.jpg", {"POS": ["brown knob"], "NEG": ["brown knob"]}]
    return put({
        "vg/VG_100K/1.jpg": None, "data/Attribute/vg/color.json": [CHECKLIST, same],
        "data/Attribute/vaw/color.json": [CHECKLIST], f"data/{PLACE}.json": [],
    })


def test_present_corpora_and_rows_whose_negative_is_the_positive(root):
    parts = {part.subset: part for part in vl_checklist.load(root)}
    assert list(parts) == ["Attribute/vaw/color", "Attribute/vg/color"]
    assert parts["Attribute/vaw/color"].items[0].images[0].path == root / "vg/VG_100K/1.jpg"
    assert parts["Attribute/vg/color"].n_used == 2
    assert parts["Attribute/vg/color"].counts == {"identical": 1}


def test_empty_unknown_and_absent_corpora_are_refused(root, put):
    with pytest.raises(DataError, match="lists no rows"):
        vl_checklist.load(root, subsets=[PLACE])
    with pytest.raises(DataError, match=r"vg/size\.json: no such annotation file"):
        vl_checklist.load(root, expected={"Attribute/vg/size": 3})
    put({"data/Attribute/flickr/color.json": [["1.jpg", {}]]})
    with pytest.raises(DataError, match="cannot tell where its pictures"):
        vl_checklist.load(root, subsets=["Attribute/flickr/color"])


def test_official_corpora_are_all_asked_for_and_find_their_pictures(put, monkeypatch):
    sizes = dict.fromkeys(vl_checklist.OFFICIAL, 1) | {"Attribute/vg/size": 2695}  # no cap
    family = vl_checklist.FAMILY._replace(published=sizes)
    monkeypatch.setattr(vl_checklist, "FAMILY", family)
    names = vl_checklist.OFFICIAL_CORPORA
    assert len(names) == len(set(names)) == 12 + 1 + 2 * 3 * 7
    assert OBJECT in names and "Object/Size/hake_size/hake_obj_large" in names
    root = put({f"{source}/{name}": None for source, name in PICTURES.items()})
    for name in names:
        source = next(s for s in PICTURES if s in name.replace("vaw", "vg"))
        rows = [[PICTURES[source], THREE]] * sizes.get(name, 1)
        put({f"data/{name}.json": rows})
    parts = {part.subset: part for part in vl_checklist.load(root, official=True)}
    assert sorted(parts) == sorted(names)
    assert all(p.n_used == sizes.get(name, 1) for name, p in parts.items())
    for part in parts.values():  # only the first of three, and the negative comes first
        assert part.items[0].texts == (" customers", "ON") and part.items[0].truth == 1
    (root / "data/Relation/hake_action.json").unlink()
    with pytest.raises(DataError, match=r"hake_action\.json: no such annotation file"):
        vl_checklist.load(root, official=True)
    assert len(vl_checklist.load(root, official=True, allow_missing=True)) == len(names) - 1
