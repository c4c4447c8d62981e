from __future__ import annotations

import pytest

from cae_lib.data.benchmarks import vl_checklist
from cae_lib.errors import DataError

OBJECT = "Object/Location/swig_location/swig_agent/swig_agent_mid"


@pytest.fixture
def root(tmp_path, write_json, draw):
    draw(tmp_path / "vg", "VG_100K/1.jpg", "VG_100K_2/2.jpg")
    draw(tmp_path / "swig", "run_1.jpg")
    data = tmp_path / "data"
    row = ["VG_100K/1.jpg", {"POS": ["brown knob"], "NEG": ["teal knob"]}]
    same = ["VG_100K_2/2.jpg", {"POS": ["brown knob"], "NEG": ["brown knob"]}]
    write_json(data / "Attribute/vg/color.json", [row, same])
    write_json(data / "Attribute/vaw/color.json", [row])
    three = {"POS": ["man", "a man", "men"], "NEG": [" customers", "dog", "dogs"]}
    write_json(data / f"{OBJECT}.json", [["run_1.jpg", three]])
    write_json(data / "Object/Location/swig_location/swig_place/swig_place_mid.json", [])
    return tmp_path


def test_present_corpora_with_their_own_pictures(root):
    benchmarks = {b.subset: b for b in vl_checklist.load(root)}
    assert sorted(benchmarks) == ["Attribute/vaw/color", "Attribute/vg/color", OBJECT]
    paths = {name: b.items[0].images[0].path.relative_to(root) for name, b in benchmarks.items()}
    assert str(paths["Attribute/vaw/color"]) == "vg/VG_100K/1.jpg"
    assert str(paths[OBJECT]) == "swig/run_1.jpg"


def test_negative_first_and_only_the_first_of_three(root):
    [benchmark] = vl_checklist.load(root, corpora=[OBJECT])
    [item] = benchmark.items
    assert item.texts == (" customers", "man")
    assert item.truth == 1


def test_rows_whose_negative_is_the_positive_stay_and_are_counted(root):
    [benchmark] = vl_checklist.load(root, corpora=["Attribute/vg/color"])
    assert benchmark.n_used == 2
    assert benchmark.counts["identical"] == 1


def test_empty_or_unknown_corpus_is_refused(root, write_json):
    with pytest.raises(DataError, match="lists no rows"):
        vl_checklist.load(root, corpora=["Object/Location/swig_location/swig_place/swig_place_mid"])
    write_json(root / "data/Attribute/flickr/color.json", [["1.jpg", {}]])
    with pytest.raises(DataError, match="cannot tell where its pictures"):
        vl_checklist.load(root, corpora=["Attribute/flickr/color"])
    with pytest.raises(DataError, match="no corpus is there"):
        vl_checklist.load(root / "vg")


def test_expected_corpus_that_is_absent_is_an_error(root):
    with pytest.raises(DataError, match=r"vg/size\.json: no such annotation file"):
        vl_checklist.load(root, expected={"Attribute/vg/size": 3})


@pytest.mark.parametrize("row", [["a.jpg"], ["a.jpg", {"POS": [], "NEG": ["x"]}], {"POS": ["x"]}])
def test_malformed_row(root, write_json, row):
    write_json(root / "data/Attribute/vg/size.json", [row])
    with pytest.raises(DataError, match=r"vg/size\.json, row 0"):
        vl_checklist.load(root, corpora=["Attribute/vg/size"])


def test_official_corpora_are_all_asked_for_by_name(root):
    names = vl_checklist.OFFICIAL_CORPORA
    assert len(names) == len(set(names)) == 12 + 1 + 2 * 3 * 7
    assert OBJECT in names and "Object/Size/hake_size/hake_obj_large" in names
    with pytest.raises(DataError, match=r"vg/color\.json: 2 items, 11569 expected"):
        vl_checklist.load(root, official=True)
    with pytest.raises(DataError, match=r"action\.json: no such annotation file"):
        vl_checklist.load(root, official=True, allow_missing=True)


@pytest.mark.parametrize("corpus", vl_checklist.OFFICIAL_CORPORA)
def test_every_official_corpus_finds_its_pictures(tmp_path, write_json, draw, corpus):
    source = next(s for s in ("hake", "swig", "vg") if s in corpus.replace("vaw", "vg"))
    name = {"hake": "hico_20160224_det/images/test2015/1.jpg", "swig": "run_1.jpg"}.get(
        source, "VG_100K/1.jpg"
    )
    draw(tmp_path / source, name)
    three = {"POS": ["ON", "a", "b"], "NEG": ["IN", "c", "d"]}
    write_json(tmp_path / "data" / f"{corpus}.json", [[name, three]])
    [benchmark] = vl_checklist.load(tmp_path, corpora=[corpus])
    assert benchmark.items[0].texts == ("IN", "ON")


def test_nothing_is_capped(root, write_json):
    row = ["VG_100K/1.jpg", {"POS": ["brown knob"], "NEG": ["teal knob"]}]
    write_json(root / "data/Attribute/vg/size.json", [row] * 2695)
    [benchmark] = vl_checklist.load(root, corpora=["Attribute/vg/size"], official=True)
    assert benchmark.n_used == 2695
