from __future__ import annotations

import numpy as np
import pytest

from cae_lib.errors import DataError
from cae_lib.report.attribution import RoleScores, role_scores, stored_methods


def scores(objects, attributes, relations, n_tokens=(4, 2, 2)) -> RoleScores:
    roles = ("object", "attribute", "relation")
    captions = dict(zip(roles, (np.atleast_2d(x) for x in (objects, attributes, relations)),
                        strict=True))  # fmt: skip
    return RoleScores(captions, {}, dict(zip(roles, n_tokens, strict=True)))


def test_a_mean_leaves_out_captions_without_the_role():
    found = scores([4.0, 2.0, 3.0], [1.0, np.nan, 2.0], [np.nan, np.nan, 0.5])
    assert found.means["object"].estimate == 3.0
    assert found.means["attribute"].estimate == 1.5
    assert found.means["relation"].estimate == 0.5
    assert (found.n_captions, found.n_seeds) == (3, 1)


def test_composition_weighs_roles_by_their_tokens():
    found = scores([3.0, 3.0], [1.0, 1.0], [2.0, 2.0], n_tokens=(2, 3, 1))
    assert found.means["composition"].estimate == pytest.approx((3 * 1.0 + 1 * 2.0) / 4)
    assert found.gap.estimate == pytest.approx(3.0 - 1.25)
    assert found.contrast == pytest.approx((3.0 - 1.25) / (3.0 + 1.25))
    assert found.lead("relation").estimate == pytest.approx(1.0)
    assert found.ratio("attribute").estimate == pytest.approx(3.0)


def test_a_ratio_to_what_may_be_zero_is_not_given():
    assert scores([3.0, 3.0], [1.0, -1.0], [1.0, 1.0]).ratio("attribute") is None
    assert scores([3.0, 3.0], [-1.0, -1.0], [1.0, 1.0]).ratio("attribute") is None


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    found = scores(values, values, values).means["object"].interval()
    error = values.std() / np.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_seeds_are_resampled_too():
    level = np.array([[1.0], [2.0], [3.0]]) + np.zeros(50)
    found = scores(level, level, level).means["object"].interval()
    assert found.estimate == 2.0 and found.n_seeds == 3
    assert found.low < 1.5 and found.high > 2.5


def test_runs_are_compared_on_the_same_captions():
    values = np.random.default_rng(0).normal(1.0, 1.0, 100)
    noisy, shifted = scores(values, 0 * values, 0 * values), scores(
        values - 0.5, 0 * values, 0 * values)  # fmt: skip
    difference = noisy.gap.minus(shifted.gap).interval()
    assert difference.low == pytest.approx(0.5) and difference.high == pytest.approx(0.5)


def test_decimals_follow_the_size_of_the_scores():
    assert scores([0.2], [0.1], [0.1]).decimals == 3
    assert scores([0.0021], [0.1], [0.1]).decimals == 5
    assert scores([25.0], [0.1], [0.1]).decimals == 1


def test_records_are_read_seed_by_seed(store):
    found = role_scores("clip-ft", "smoke", "gradcam", 2)
    assert found.captions["object"].shape == (2, 60)
    assert np.isnan(found.captions["attribute"][:, ::3]).all()
    assert found.percentiles["object"].shape == (101,)
    names = ("gradient", "attention")
    assert stored_methods("base", "smoke", names, 1) == list(names)


def test_what_a_record_lacks_is_named(store):
    store.attribution("base", {"object": 0.2, "attribute": 0.1, "relation": 0.1}, ("attention",))
    assert stored_methods("base", "smoke", ("attention", "gradient"), 1) == ["attention"]
    with pytest.raises(DataError, match="base/0/attribution has no attribution by gradient"):
        role_scores("base", "smoke", "gradient", 1)
    part = {"n_tokens": 0, "mean": None, "percentiles": [], "captions": [None]}
    store.save("clip-ft/0/attribution", {"attention": dict.fromkeys(
        ("object", "attribute", "relation"), part) | {"n_captions": 1}})  # fmt: skip
    with pytest.raises(DataError, match="no object word was found"):
        role_scores("clip-ft", "smoke", "attention", 1)
