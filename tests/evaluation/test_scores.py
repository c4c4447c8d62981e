"""The numbers of tables, each averaged by hand from right and wrong items."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cae_lib.errors import ConfigError
from cae_lib.evaluation.scores import FAMILIES, NESTED, PROTOCOLS, TABLE, absent, weights
from cae_lib.statistics import levels


def part(key, macro=None, **groups):
    """Items of a subset from the right and all items of each group; `macro`: groups averaged."""
    family, subset = key.split("/", 1)
    rows = [(g, i < right) for g, (right, n) in groups.items() for i in range(n)]
    frame = pd.DataFrame(rows, columns=["group", "correct"])
    frame = frame.assign(family=family, subset=subset, item=range(len(rows)))
    if macro is None:
        return frame.assign(weight=1 / len(rows), stratum=key)
    sizes = frame.groupby("group").group.transform("size")
    weight = frame.group.isin(macro) / sizes / len(macro)
    return frame.assign(weight=weight, stratum=key + frame.group)


def numbers(protocol, *parts):
    frame = pd.concat(parts, ignore_index=True)
    found = weights(frame, protocol)
    np.testing.assert_allclose(found.groupby("score").weight.sum(), 1)
    merged = found.merge(frame[["family", "subset", "group", "item", "correct"]])
    assert len(merged) == len(found) and (found.weight > 0).all()
    assert found.groupby(["score", "stratum"]).weight.apply(np.ptp).max() < 1e-12
    return (merged.weight * merged.correct).groupby(merged.score).sum().to_dict()


def missing(protocol, *parts):
    return absent(pd.concat(parts, ignore_index=True), protocol)


def test_seven_families_as_the_paper_has_them():
    assert list(FAMILIES) == ["ARO", "Winoground", "SugarCrepe", "VL-CheckList", "VALSE",
                              "SVO-Probes", "CREPE"]
    assert [c for columns in FAMILIES.values() for c in columns] == [c for c in TABLE][:-1]
    for key, name in (("SC-Att", "sugarcrepe/attribute"), ("VLC-Rel", "vl_checklist/relation"),
                      ("VLC-Att", "vl_checklist/attribute"),
                      ("VALSE-Rel", "valse/relation")):
        assert TABLE[key].tree == NESTED[name]


def test_families_and_their_mean_by_hand():
    parts = [
        part("aro/relation", macro=["on", "eating"], on=(1, 2), eating=(3, 4), near=(0, 9)),
        part("aro/attribution", macro=["a_b"], a_b=(20, 25)),
        part("winoground/group", x=(1, 2), y=(0, 2)),
        part("winoground/text", x=(2, 2)),
        part("sugarcrepe/replace_rel", g=(3, 4)),
        part("sugarcrepe/add_att", g=(9, 10)),
        part("sugarcrepe/swap_att", g=(3, 10)),
        part("crepe/atom", macro=["4", "5"], **{"4": (1, 2), "5": (0, 6)}),
        part("svo_probes/all", subj=(1, 2), mixed=(2, 2)),
        part("order/coco", coco=(1, 5)),
    ]
    table, family = numbers("table", *parts), numbers("family", *parts)
    assert table == pytest.approx({
        "ARO-R": 0.625, "ARO-A": 0.8, "Winoground": 0.25, "SC-Rel": 0.75, "SC-Att": 0.6,
        "CREPE": 0.25, "SVO": 0.75, "Order": 0.2,
    })
    means = {"ARO": 0.7125, "Winoground": 0.25, "SugarCrepe": 0.675, "SVO-Probes": 0.75,
             "CREPE": 0.25}
    assert family == pytest.approx(means | {"mean": np.mean(list(means.values()))})
    frame = pd.concat(parts, ignore_index=True).assign(run="base", seed=0)
    tested = levels(frame.assign(picture=frame.index), weights=weights(frame, "family"))
    assert tested.set_index("score").estimate.to_dict() == pytest.approx(family)
    assert missing("table", *parts)["SC-Att"] == ("sugarcrepe/replace_att",)
    assert missing("table", *parts)["CREPE"] == ("crepe/negate", "crepe/swap")
    assert missing("table", *parts)["ARO-R"] == ()


def test_nested_mean_of_relations_by_hand():
    parts = [
        part("vl_checklist/Relation/hake_action", g=(1, 4)),
        part("vl_checklist/Relation/swig_action", g=(2, 4)),
        part("vl_checklist/Relation/vg/action", g=(3, 4)),
        part("vl_checklist/Relation/vg/spatial", g=(9, 10)),
        part("vl_checklist/Attribute/vg/color", g=(0, 10)),
    ]
    expected = ((0.25 + 0.5 + 0.75) / 3 + 0.9) / 2
    assert numbers("table", *parts)["VLC-Rel"] == pytest.approx(expected)
    assert numbers("authors", *parts)["vl_checklist/relation"] == pytest.approx(expected)
    assert missing("authors", *parts)["vl_checklist/relation"] == ()
    found = weights(pd.concat(parts), "table").query("score == 'VLC-Rel'")
    assert found.groupby("subset").weight.sum()["Relation/vg/spatial"] == pytest.approx(0.5)


def test_absent_members_give_their_weight_to_siblings_and_are_named():
    parts = [
        part("vl_checklist/Attribute/vg/color", g=(1, 2)),
        part("vl_checklist/Attribute/vg/size", g=(2, 2)),
        part("vl_checklist/Attribute/vaw/size", g=(0, 2)),
    ]
    name = "vl_checklist/attribute"
    assert numbers("authors", *parts)[name] == pytest.approx((0.5 + (1 + 0) / 2) / 2)
    found = missing("authors", *parts)[name]
    assert "vl_checklist/Attribute/vaw/color" in found and len(found) == 7


def test_patterns_average_all_they_fit():
    folder = "vl_checklist/Object/Size"
    parts = [
        part(f"{folder}/vg_size/vg_obj_large", g=(1, 1)),
        part(f"{folder}/hake_size/hake_obj_large", g=(0, 1)),
        part(f"{folder}/vg_size/vg_obj_small", g=(1, 1)),
    ]
    assert numbers("authors", *parts)["vl_checklist/object"] == pytest.approx(0.75)


def test_aro_relation_with_157_and_160_names_by_hand():
    groups = {"on": (1, 3), "pulling": (3, 3), "near": (0, 9), "eating": (2, 7)}
    aro = part("aro/relation", macro=["on"], **groups)
    assert numbers("official", aro)["aro/relation"] == pytest.approx((1 / 3 + 1 + 2 / 7) / 3)
    assert numbers("authors", aro)["aro/relation"] == pytest.approx((1 / 3 + 2 / 7) / 2)
    assert numbers("authors", aro)["aro/relation"] == pytest.approx((0.3333 + 0.2857) / 2, abs=5e-5)
    words = (PROTOCOLS[name]["aro/relation"].words for name in ("official", "authors"))
    assert all(n in text for n, text in zip(("157", "160"), words, strict=True))


def test_aro_attribution_leaves_pairs_of_fewer_than_25_out():
    aro = part("aro/attribution", a_b=(20, 25), c_d=(24, 24), e_f=(13, 26))
    assert numbers("official", aro)["aro/attribution"] == pytest.approx((0.8 + 0.5) / 2)
    small = part("aro/attribution", a_b=(20, 24))
    assert "aro/attribution" not in numbers("official", small, part("valse/plurals", g=(1, 2)))


def test_sugarcrepe_is_micro_for_its_authors_and_three_macros_for_cae_s():
    sizes = {"add_att": (6, 10), "replace_att": (2, 4), "swap_att": (0, 2), "replace_rel": (3, 3)}
    parts = [part(f"sugarcrepe/{name}", g=pair) for name, pair in sizes.items()]
    authors = numbers("authors", *parts)
    assert numbers("official", *parts) == {"sugarcrepe": pytest.approx(11 / 19)}
    assert authors["sugarcrepe/attribute"] == pytest.approx((0.6 + 0.5 + 0) / 3)
    assert authors["sugarcrepe/relation"] == 1
    assert "sugarcrepe/object" not in authors


def test_vl_checklist_and_valse_by_hand():
    parts = [
        part("vl_checklist/Relation/swig_action", g=(1, 4)),
        part("vl_checklist/Relation/vg/action", g=(3, 4)),
        part("vl_checklist/Relation/vg/spatial", g=(4, 4)),
        part("valse/actant-swap", g=(1, 2)),
        part("valse/action-replacement", g=(2, 2)),
        part("valse/relations", g=(1, 4)),
        part("valse/plurals", g=(0, 4)),
    ]
    official, authors = (numbers(name, *parts) for name in ("official", "authors"))
    assert official["vl_checklist/relation"] == pytest.approx(2 / 3)
    assert authors["vl_checklist/relation"] == pytest.approx((0.5 + 1) / 2)
    gone = missing("authors", *parts)["vl_checklist/relation"]
    assert gone == ("vl_checklist/Relation/hake_action*",)
    assert official["valse"] == pytest.approx((0.5 + 1 + 0.25 + 0) / 4)
    assert authors["valse/action"] == pytest.approx(0.75)
    assert authors["valse/relation"] == pytest.approx((0.75 + 0.25) / 2)


def test_winoground_full_and_clean_are_two_numbers():
    parts = [
        part("winoground/group", g=(40, 400)),
        part("winoground/group/untagged", g=(43, 172)),
        part("winoground/group/authors", g=(19, 171)),
    ]
    official, authors = (numbers(name, *parts) for name in ("official", "authors"))
    assert official["winoground/group"] == pytest.approx(0.1)
    assert authors == pytest.approx({"winoground/group": 0.1, "winoground/group/authors": 1 / 9})
    assert "winoground/group/authors" not in official


def test_svo_probes_has_a_metric_of_its_own_beside_the_papers():
    svo = part("svo_probes/all", g=(3, 4))
    match = part("svo_probes/match", macro=["p", "n"], p=(1, 2), n=(3, 4))
    assert numbers("official", svo, match) == {"svo_probes": pytest.approx(0.625)}
    assert numbers("authors", svo, match) == {"svo_probes": 0.75}
    assert missing("official", svo)["svo_probes"] == ("svo_probes/match",)


def test_whatsup_with_the_slip_of_the_reference():
    right = {"controlled_images": 1, "controlled_clevr": 2, "coco_qa_one_obj": 3,
             "coco_qa_two_obj": 4, "vg_qa_one_obj": 5, "vg_qa_two_obj": 8}
    parts = [part(f"whatsup/{name}", g=(n, 8)) for name, n in right.items()]
    assert numbers("official", *parts)["whatsup"] == pytest.approx(23 / 48)
    authors = numbers("authors", *parts)
    assert authors["whatsup/controlled"] == pytest.approx(3 / 16)
    assert authors["whatsup/vg"] == pytest.approx((5 + 4) / 16)


def test_nothing_fits_and_unknown_protocols():
    frame = part("other/part", g=(1, 2))
    assert weights(frame, "authors").empty
    with pytest.raises(ConfigError, match="table, family, official, authors"):
        weights(frame, "paper")
