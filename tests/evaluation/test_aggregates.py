from __future__ import annotations

import numpy as np
import pytest

from cae_lib.errors import DataError
from cae_lib.evaluation.aggregates import aggregate
from cae_lib.evaluation.results import ChoiceResult


def result(key, right, n, n_expected=None):
    name, subset = key.split("/", 1)
    return ChoiceResult(
        name, subset, np.arange(n) < right, {"g": n}, n_expected or n, "micro", "mean over items",
        None, 0.5, "strict", "", {}, {}, np.arange(n),
    )  # fmt: skip


def test_nested_mean_of_relations_by_hand():
    results = [
        result("vl_checklist/Relation/hake_action", 1, 4),
        result("vl_checklist/Relation/swig_action", 2, 4),
        result("vl_checklist/Relation/vg/action", 3, 4),
        result("vl_checklist/Relation/vg/spatial", 9, 10, n_expected=12),
        result("vl_checklist/Attribute/vg/color", 0, 10),
    ]
    total = aggregate(results, "vl_checklist/relation")
    assert total.value == pytest.approx(((0.25 + 0.5 + 0.75) / 3 + 0.9) / 2)
    assert total.weights["vl_checklist/Relation/vg/spatial"] == pytest.approx(0.5)
    assert sum(total.weights.values()) == pytest.approx(1)
    assert (total.n_used, total.n_expected, total.absent) == (22, 24, ())


def test_absent_members_give_their_weight_to_siblings_and_are_named():
    results = [
        result("vl_checklist/Attribute/vg/color", 1, 2),
        result("vl_checklist/Attribute/vg/size", 2, 2),
        result("vl_checklist/Attribute/vaw/size", 0, 2),
    ]
    total = aggregate(results, "vl_checklist/attribute")
    assert total.value == pytest.approx((0.5 + (1 + 0) / 2) / 2)
    assert "vl_checklist/Attribute/vaw/color" in total.absent and len(total.absent) == 7


def test_patterns_average_all_they_fit():
    folder = "vl_checklist/Object/Size"
    results = [
        result(f"{folder}/vg_size/vg_obj_large", 1, 1),
        result(f"{folder}/hake_size/hake_obj_large", 0, 1),
        result(f"{folder}/vg_size/vg_obj_small", 1, 1),
    ]
    assert aggregate(results, "vl_checklist/object").value == pytest.approx(0.75)


def test_micro_weighs_by_items():
    results = [result("sugarcrepe/swap_att", 1, 1), result("sugarcrepe/add_att", 0, 3)]
    assert aggregate(results, "all", "sugarcrepe/*").value == 0.5
    assert aggregate(results, "all", "sugarcrepe/*", micro=True).value == 0.25


def test_valse_relation_is_the_mean_of_action_and_spatial():
    results = [
        result("valse/actant-swap", 1, 2),
        result("valse/action-replacement", 2, 2),
        result("valse/relations", 0, 2),
    ]
    assert aggregate(results, "valse/action").value == 0.75
    assert aggregate(results, "valse/relation").value == 0.375


def test_nothing_fits():
    with pytest.raises(DataError, match="no result"):
        aggregate([], "valse/action")
