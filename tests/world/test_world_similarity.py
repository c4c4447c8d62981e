from __future__ import annotations

import pytest

from cae_lib.world.grammar import Caption
from cae_lib.world.scenes import Content, Thing, arrange
from cae_lib.world.similarity import export_similarity, f_score, facts

THINGS = (Thing("cat", "red"), Thing("dog", "blue", "large"), Thing("hat", "green"))


def stated(objects, attributes=(), relations=(), relation="riding", things=THINGS):
    scene = arrange(Content(things, relation), 0)
    return facts(scene, Caption("", (), tuple(objects), tuple(attributes), tuple(relations)))


def test_facts_are_things_adjectives_and_relations_by_noun():
    found = stated([0, 1], [(1, "large")], [(0, "riding", 1)])
    assert found == {("cat",), ("dog",), ("dog", "large"), ("cat", "riding", "dog")}
    turned = stated([0, 1], [], [(1, "right of", 0)])
    assert turned == stated([0, 1], [], [(0, "left of", 1)])
    assert turned != stated([0, 1], [], [(1, "left of", 0)])


def test_f_score_by_hand():
    first = stated([0, 1], [(0, "red")], [(0, "riding", 1)])
    second = stated([0, 1, 2], [(1, "red")], [(1, "riding", 0)])
    assert f_score(first, first) == 1
    assert f_score(first, second) == pytest.approx(2 * 2 / (4 + 5))
    assert f_score(first, stated([2])) == 0


def test_scores_spread_and_no_sentence_has_a_tab(config):
    export = export_similarity(config)
    rows = export.texts["STS/STSBenchmark/sts-test.csv"].splitlines()
    assert len(rows) == config.sizes.similarity
    assert {len(row.split("\t")) for row in rows} == {7, 8}
    scores = [float(row.split("\t")[4]) for row in rows]
    assert min(scores) == 0 and max(scores) > 4 and len({*scores}) > 8
    assert export_similarity(config).texts == export.texts
