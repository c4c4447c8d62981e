from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cae_lib.data.benchmarks.base import Benchmark
from cae_lib.errors import ConfigError
from cae_lib.evaluation.choice import evaluate
from cae_lib.evaluation.protocol_rules import PROTOCOLS
from cae_lib.evaluation.protocols import protocol_scores
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.statistics import weighted_interval


def result(key, n_expected=None, metrics=None, **groups):
    """A result from the number of right items and of items in each group."""
    name, subset = key.split("/", 1)
    groups = groups or {"g": (1, 2)}
    marks = [i < right for right, n in groups.values() for i in range(n)]
    return ChoiceResult(
        name, subset, np.array(marks), {group: n for group, (_, n) in groups.items()},
        n_expected or len(marks), "micro", "mean over items", None, 0.5, "strict", "", {},
        metrics or {}, np.arange(len(marks)),
    )  # fmt: skip


def test_aro_relation_with_157_and_160_names_and_rounding_by_hand():
    groups = {"on": (1, 3), "pulling": (3, 3), "near": (0, 9), "eating": (2, 7)}
    aro = result("aro/relation", n_expected=30, **groups)
    official = protocol_scores([aro], "official")["aro/relation"]
    assert official.value == pytest.approx((1 / 3 + 1 + 2 / 7) / 3)
    assert (official.n_used, official.n_expected) == (22, 30)
    authors = protocol_scores([aro], "authors")["aro/relation"]
    assert authors.value == (0.3333 + 0.2857) / 2
    assert "160" in authors.words and "157" in official.words


def test_aro_attribution_leaves_pairs_of_fewer_than_25_out():
    aro = result("aro/attribution", a_b=(20, 25), c_d=(24, 24), e_f=(13, 26))
    assert protocol_scores([aro])["aro/attribution"].value == pytest.approx((0.8 + 0.5) / 2)
    small = result("aro/attribution", a_b=(20, 24))
    assert "aro/attribution" not in protocol_scores([small])


def test_sugarcrepe_is_micro_for_its_authors_and_three_macros_for_cae_s():
    sizes = {"add_att": (6, 10), "replace_att": (2, 4), "swap_att": (0, 2), "replace_rel": (3, 3)}
    results = [result(f"sugarcrepe/{name}", g=pair) for name, pair in sizes.items()]
    official, authors = protocol_scores(results), protocol_scores(results, "authors")
    assert official["sugarcrepe"].value == pytest.approx(11 / 19)
    assert authors["sugarcrepe/attribute"].value == pytest.approx((0.6 + 0.5 + 0) / 3)
    assert authors["sugarcrepe/relation"].value == 1
    assert "sugarcrepe/object" not in authors


def test_vl_checklist_and_valse_by_hand():
    results = [
        result("vl_checklist/Relation/swig_action", g=(1, 4)),
        result("vl_checklist/Relation/vg/action", g=(3, 4)),
        result("vl_checklist/Relation/vg/spatial", g=(4, 4)),
        result("valse/actant-swap", g=(1, 2)),
        result("valse/action-replacement", g=(2, 2)),
        result("valse/relations", g=(1, 4)),
        result("valse/plurals", g=(0, 4)),
    ]
    official, authors = protocol_scores(results), protocol_scores(results, "authors")
    assert official["vl_checklist/relation"].value == pytest.approx(2 / 3)
    assert authors["vl_checklist/relation"].value == pytest.approx((0.5 + 1) / 2)
    assert authors["vl_checklist/relation"].absent == ("vl_checklist/Relation/hake_action*",)
    assert official["valse"].value == pytest.approx((0.5 + 1 + 0.25 + 0) / 4)
    assert authors["valse/relation"].value == pytest.approx((0.75 + 0.25) / 2)


def test_winoground_full_and_clean_are_two_numbers():
    results = [
        result("winoground/group", g=(40, 400)),
        result("winoground/group/untagged", g=(43, 172)),
        result("winoground/group/authors", g=(19, 171)),
    ]
    official, authors = protocol_scores(results), protocol_scores(results, "authors")
    assert official["winoground/group"].value == authors["winoground/group"].value == 0.1
    assert authors["winoground/group/authors"].value == pytest.approx(1 / 9)
    assert "winoground/group/authors" not in official


def test_svo_probes_has_a_metric_of_its_own_beside_the_papers():
    svo = result("svo_probes/all", metrics={"match/all": 0.625}, g=(3, 4))
    assert protocol_scores([svo])["svo_probes"].value == 0.625
    assert protocol_scores([svo], "authors")["svo_probes"].value == 0.75
    assert "svo_probes" not in protocol_scores([result("svo_probes/all")])


def test_whatsup_with_the_slip_of_the_reference():
    subsets = {"controlled_images": 1, "controlled_clevr": 2, "coco_qa_one_obj": 3,
               "coco_qa_two_obj": 4, "vg_qa_one_obj": 5, "vg_qa_two_obj": 8}  # fmt: skip
    results = [result(f"whatsup/{name}", g=(right, 8)) for name, right in subsets.items()]
    assert protocol_scores(results)["whatsup"].value == pytest.approx(23 / 48)
    authors = protocol_scores(results, "authors")
    assert authors["whatsup/controlled"].value == pytest.approx(3 / 16)
    assert authors["whatsup/vg"].value == pytest.approx((5 + 4) / 16)


def test_ties_by_the_reference_where_its_true_option_comes_first(choice, hand_encoder):
    """A caption and a shuffle that equals it: wrong, and right by the argmax of the reference."""
    encoder = hand_encoder({"p": [1.0]}, {"true": [0.5], "false": [0.1], "best": [0.9]})
    items = (
        choice(["p"], ["true", "true", "false"]),
        choice(["p"], ["best", "true", "false"]),
        choice(["p"], ["false", "true", "best"]),
    )
    order = evaluate(Benchmark("order", "coco", items, 3), encoder)
    turned = tuple(dataclasses.replace(item, texts=item.texts[::-1], truth=2) for item in items)
    valse = evaluate(Benchmark("valse", "plurals", turned, 3), encoder)
    scores = {ties: protocol_scores([order, valse], ties=ties) for ties in ("strict", "reference")}
    assert scores["strict"]["order/coco"].value == pytest.approx(1 / 3)
    assert scores["reference"]["order/coco"].value == pytest.approx(2 / 3)
    assert {scores[ties]["valse"].value for ties in scores} == {1 / 3}
    assert evaluate(Benchmark("order", "coco", items, 3), encoder, "argmax").micro == (
        order.metrics["argmax"]
    )


def test_strata_give_the_value_and_an_interval():
    aro = result("aro/relation", on=(10, 30), eating=(20, 70), near=(0, 9))
    results = [aro, result("valse/plurals", g=(30, 40)), result("valse/relations", g=(10, 60))]
    for name in PROTOCOLS:
        for score in protocol_scores(results, name).values():
            interval = weighted_interval(score.strata, score.weights, resamples=200)
            assert interval.estimate == pytest.approx(score.value, abs=1e-4)
            assert interval.low < score.value < interval.high


def test_records_are_enough():
    aro = result("aro/relation", on=(1, 3), eating=(2, 7), near=(0, 9))
    stored = ChoiceResult.from_record(aro.to_record())
    for name in PROTOCOLS:
        assert protocol_scores([stored], name)["aro/relation"].value == (
            protocol_scores([aro], name)["aro/relation"].value
        )


def test_unknown_names():
    with pytest.raises(ConfigError, match="official, authors"):
        protocol_scores([], "paper")
    with pytest.raises(ConfigError, match="ties='argmax'"):
        protocol_scores([], ties="argmax")
