"""What sets of one picture, a text that is true of it and a false one have beside their rows."""

import pytest
from samples import ARO, ATTRIBUTES, CHECKLIST, SUGAR, TRIPLE, VALSE

from cae_lib.data.benchmarks import FAMILIES, aro, load_benchmark, valse
from cae_lib.errors import ConfigError, DataError

INVALID = VALSE | {"mturk": {"caption": 1}, "foil": VALSE["caption"]}
PLACE = "Object/Location/swig_location/swig_place/swig_place_mid"
PICTURES = {
    "hake": "hico_20160224_det/images/test2015/1.jpg",
    "swig": "run_1.jpg",
    "vg": "VG_100K/1.jpg",
}
THREE = {"POS": ["ON", "a man", "men"], "NEG": [" customers", "dog", "dogs"]}


@pytest.fixture
def load_aro(put):
    def write(relations, attributes):
        root = put(
            {
                "aro/images/1.jpg": None,
                "aro/visual_genome_relation.json": relations,
                "aro/visual_genome_attribution.json": attributes,
            }
        )
        return load_benchmark("aro", root)

    return write


def test_symmetric_relations_leave_the_macro_average_but_stay_in_the_items(load_aro):
    rows = [ARO | {"relation_name": name} for name in ("on", "pulling", "next to", "next to")]
    relation, attribution = load_aro(rows, [ATTRIBUTES])
    assert relation.headline == "macro"
    assert relation.rule == "mean over 2 relations, 1 symmetric ones left out"
    groups = [item.group for item in relation.items]
    assert [*relation.average.counted_groups(groups)] == ["on", "pulling"]
    assert (relation.n_used, relation.counts["symmetric_items"]) == (4, 2)
    assert attribution.headline == "micro" and "no group qualifies" in attribution.rule


def test_the_official_list_has_157_names_and_the_authors_160():
    official, authors = aro.symmetric_relations(), aro.symmetric_relations("authors")
    assert (len(official), len(authors)) == (157, 160)
    assert authors - official == {"pulling", "pulled by", "leaning against"}
    assert {"next to", "touching", "with"} <= official
    assert not {"on", "to the left of", "riding"} & authors
    with pytest.raises(ConfigError, match="symmetric='all'"):
        aro.symmetric_relations("all")


def test_attribution_averages_pairs_of_at_least_25_items(load_aro):
    other = ATTRIBUTES | {"attributes": ["big", "red"]}
    _, attribution = load_aro([ARO], [ATTRIBUTES] * 25 + [other] * 24)
    groups = [item.group for item in attribution.items]
    assert [*attribution.average.counted_groups(groups)] == ["red_big"]
    assert (attribution.n_used, attribution.counts["items_of_small_groups"]) == (49, 24)


def test_keys_of_sugarcrepe_need_not_be_consecutive(put):
    rows = {"0": SUGAR, "2": SUGAR | {"negative_caption": "A dog."}}
    files = {f"sugar-crepe/data/{name}.json": rows for name in FAMILIES["sugarcrepe"].published}
    parts = load_benchmark("sugarcrepe", put(files | {"coco/val2017/1.jpg": None}))
    assert [part.subset for part in parts] == list(FAMILIES["sugarcrepe"].published)
    assert [item.key for item in parts[0].items] == ["0", "2"]
    assert parts[0].counts == {"same_words": 1, "identical": 0}


def test_sugarcrepe_pp_is_read_by_picture_and_by_text(put):
    root = put(
        {
            "coco/val2017/1.jpg": None,
            "sugarcrepe-pp/data/swap_obj.json": [
                TRIPLE,
                TRIPLE | {"negative_caption": TRIPLE["caption2"]},
            ],
        }
    )
    itt, tot = load_benchmark("sugarcrepe_pp", root)
    assert (itt.subset, itt.task, tot.subset, tot.task) == (
        "itt/swap_obj",
        "itt",
        "tot/swap_obj",
        "tot",
    )
    assert itt.items == tot.items and itt.counts == {"identical": 0, "unwinnable": 1}


@pytest.mark.parametrize("name", valse.SIZES)
def test_only_valid_items_of_valse_count_and_pictures_lie_where_they_may(put, name):
    """Keys repeat across files, `classes` is a number or a list, equal captions are not valid."""
    shared = VALSE | {"mturk": {"caption": 2}, "image_file": "b.jpg", "classes": ["x"]}
    rows = {"actions_test_0": VALSE, "actions_test_1": shared, "actions_test_2": INVALID}
    own = f"{valse.IMAGE_FOLDERS[name]}/run_1.jpg"
    root = put(
        {
            own: None,
            "coco/train2014/b.jpg": None,
            f"valse/data/{name}.json": rows,
            "valse/data/notes.json": {"unrelated": 1},
        }
    )
    [part] = load_benchmark("valse", root)
    assert (part.key, part.n_used, part.n_expected) == (f"valse/{name}", 2, 2)
    assert part.counts == {"not_valid": 1, "identical": 0}
    first, second = (item.images[0].path for item in part.items)
    assert first == root / own and second == root / "coco/train2014/b.jpg"


def test_corpora_of_vl_checklist_that_are_here_and_those_that_are_refused(put):
    same = ["VG_100K/1.jpg", {"POS": ["brown knob"], "NEG": ["brown knob"]}]
    files = {"Attribute/vg/color": [CHECKLIST, same], "Attribute/vaw/color": [CHECKLIST], PLACE: []}
    root = put(
        {"vl-checklist/vg/VG_100K/1.jpg": None}
        | {f"vl-checklist/data/{name}.json": rows for name, rows in files.items()}
    )
    vaw, vg = load_benchmark("vl_checklist", root)
    assert (vaw.subset, vg.subset) == ("Attribute/vaw/color", "Attribute/vg/color")
    assert (vg.n_used, vg.counts) == (2, {"identical": 1})
    put({"vl-checklist/data/Attribute/flickr/color.json": [["1.jpg", {}]]})
    with pytest.raises(DataError, match="cannot tell its images"):
        load_benchmark("vl_checklist", root)


def test_of_three_pairs_of_a_row_the_first_counts_and_each_file_finds_its_images(put):
    root = put({f"vl-checklist/{source}/{name}": None for source, name in PICTURES.items()})
    names = FAMILIES["vl_checklist"].published
    for name in names:
        source = next(s for s in PICTURES if s in name.replace("vaw", "vg"))
        put({f"vl-checklist/data/{name}.json": [[PICTURES[source], THREE]]})
    parts = load_benchmark("vl_checklist", root)
    assert {part.subset: part.n_used for part in parts} == dict.fromkeys(names, 1)
    assert parts[0].items[0].texts == (" customers", "ON")
    parts = load_benchmark("vl_checklist", root, official=True)
    assert {part.subset: part.n_expected for part in parts} == {k: n or 1 for k, n in names.items()}
