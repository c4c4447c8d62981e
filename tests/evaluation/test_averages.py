"""The numbers of tables, each averaged by hand from right and wrong items."""

import numpy as np
import pandas as pd
import pytest

from cae_bench.averages import join_by_item, score_weights, weighted_average
from cae_bench.benchmarks.base import ITEM_KEY
from cae_bench.scores import accuracy_table
from cae_lib.errors import ConfigError, DataError


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
    weighted = score_weights(frame, protocol)
    np.testing.assert_allclose(weighted.groupby("score").weight.sum(), 1)
    merged = weighted.merge(frame[["family", "subset", "group", "item", "correct"]])
    assert len(merged) == len(weighted) and (weighted.weight > 0).all()
    assert weighted.groupby(["score", "stratum"]).weight.apply(np.ptp).max() < 1e-12
    return (merged.weight * merged.correct).groupby(merged.score).sum().to_dict()


def test_families_and_their_mean_by_hand():
    parts = [
        part("aro/relation", macro=["on", "eating"], on=(1, 2), eating=(3, 4), near=(0, 9)),
        part("aro/attribution", macro=["a_b"], a_b=(20, 25)),
        part("winoground/group", x=(1, 2), y=(0, 2)),
        part("winoground/text", x=(2, 2)),
        *each("sugarcrepe", {"replace_rel": (3, 4), "add_att": (9, 10), "swap_att": (3, 10)}),
        part("crepe/atom", macro=["4", "5"], **{"4": (1, 2), "5": (0, 6)}),
        part("svo_probes/all", subj=(1, 2), mixed=(2, 2)),
        part("order/coco", coco=(1, 5)),
        part("other/part", g=(1, 2)),
    ]
    table = {"ARO-R": 0.625, "ARO-A": 0.8, "Winoground": 0.25, "SVO": 0.75, "CREPE": 0.25}
    table |= {"SC-Rel": 0.75, "SC-Att": 0.6, "Order": 0.2}
    means = {"ARO": 0.7125, "Winoground": 0.25, "SugarCrepe": 0.675, "SVO-Probes": 0.75}
    means |= {"CREPE": 0.25}
    assert numbers("table", *parts) == pytest.approx(table)
    means |= {"mean": np.mean([*means.values()])}
    assert numbers("family", *parts) == pytest.approx(means)
    assert score_weights(parts[-1], "authors").empty
    with pytest.raises(ConfigError, match="paper"):
        score_weights(parts[0], "paper")


def each(family, right):
    """Subsets of one group each, from right and all items."""
    return [part(f"{family}/{name}", g=pair) for name, pair in right.items()]


VL = "vl_checklist"
RELATIONS = each(
    f"{VL}/Relation",
    {"hake_action": (1, 4), "swig_action": (2, 4), "vg/action": (3, 4), "vg/spatial": (9, 10)},
)
# Absent members give their weight to siblings.
ATTRIBUTES = each(f"{VL}/Attribute", {"vg/color": (1, 2), "vg/size": (2, 2), "vaw/size": (0, 2)})
OBJECTS = each(
    f"{VL}/Object/Size",
    {
        "vg_size/vg_obj_large": (1, 1),
        "hake_size/hake_obj_large": (0, 1),
        "vg_size/vg_obj_small": (1, 1),
    },
)
ARO = [part("aro/relation", macro=["on"], on=(1, 3), pulling=(3, 3), near=(0, 9), eating=(2, 7))]
PAIRS = [part("aro/attribution", a_b=(20, 25), c_d=(24, 24), e_f=(13, 26))]  # c_d has too few
SUGAR = each(
    "sugarcrepe",
    {"add_att": (6, 10), "replace_att": (2, 4), "swap_att": (0, 2), "replace_rel": (3, 3)},
)
VALSE = each(
    "valse",
    {"actant-swap": (1, 2), "action-replacement": (2, 2), "relations": (1, 4), "plurals": (0, 4)},
)
CREPE = [
    part("crepe/atom", macro=["4", "5"], **{"4": (1, 2), "5": (0, 6)}),
    part("crepe/negate", macro=["4", "5"], **{"4": (4, 4), "5": (1, 2)}),
    part("crepe/swap", macro=["4"], **{"4": (0, 2)}),
]
WINOGROUND = each(
    "winoground", {"group": (40, 400), "group/untagged": (43, 172), "group/authors": (19, 171)}
)
SVO = [
    part("svo_probes/all", g=(3, 4)),
    part("svo_probes/match", macro=["p", "n"], p=(1, 2), n=(3, 4)),
]
WHATSUP = each(
    "whatsup",
    {
        "controlled_images": (1, 8),
        "controlled_clevr": (2, 8),
        "coco_qa_one_obj": (3, 8),
        "coco_qa_two_obj": (4, 8),
        "vg_qa_one_obj": (5, 8),
        "vg_qa_two_obj": (8, 8),
    },
)


@pytest.mark.parametrize(
    ("protocol", "parts", "expected"),
    [
        ("table", RELATIONS, {"VLC-Rel": (0.5 + 0.9) / 2}),
        ("table", CREPE, {"CREPE": (0.25 + 0.75 + 0) / 3}),
        ("authors", CREPE, {"crepe/atom": 0.25, "crepe/negate": 0.75, "crepe/swap": 0}),
        ("authors", RELATIONS, {f"{VL}/relation": (0.5 + 0.9) / 2}),
        ("official", RELATIONS, {f"{VL}/relation": (0.25 + 0.5 + 0.75 + 0.9) / 4}),
        ("authors", ATTRIBUTES, {f"{VL}/attribute": (0.5 + (1 + 0) / 2) / 2}),
        ("authors", OBJECTS, {f"{VL}/object": 0.75}),
        ("official", ARO, {"aro/relation": (1 / 3 + 1 + 2 / 7) / 3}),
        ("authors", ARO, {"aro/relation": (1 / 3 + 2 / 7) / 2}),  # and pulling is left out
        ("official", PAIRS, {"aro/attribution": (0.8 + 0.5) / 2}),
        ("official", SUGAR, {"sugarcrepe": 11 / 19}),
        ("authors", SUGAR, {"sugarcrepe/attribute": (0.6 + 0.5 + 0) / 3, "sugarcrepe/relation": 1}),
        ("official", VALSE, {"valse": (0.5 + 1 + 0.25 + 0) / 4}),
        ("authors", VALSE, {"valse/action": 0.75, "valse/relation": 0.5, "valse/spatial": 0.25}),
        ("official", WINOGROUND, {"winoground/group": 0.1}),
        ("authors", WINOGROUND, {"winoground/group": 0.1, "winoground/group/authors": 1 / 9}),
        ("official", SVO, {"svo_probes": 0.625}),
        ("authors", SVO, {"svo_probes": 0.75}),
        ("official", WHATSUP, {"whatsup": 23 / 48}),
        (
            "authors",
            WHATSUP,
            {"whatsup/controlled": 3 / 16, "whatsup/coco": 7 / 16, "whatsup/vg": (5 + 4) / 16},
        ),
        (
            "official",
            [part("aro/attribution", a_b=(20, 24)), part("valse/plurals", g=(1, 2))],
            # No pair has 25 items, so all items weigh alike.
            {"aro/attribution": 20 / 24, "valse": 0.5},
        ),
    ],
)
def test_numbers_by_hand(protocol, parts, expected):
    assert numbers(protocol, *parts) == pytest.approx(expected)


def two_subsets():
    """Items of two subsets, and answers: one of two is right, two of three."""
    items = pd.concat([part("f/one", g=(1, 2)), part("f/two", g=(2, 3))], ignore_index=True)
    answers = items[[*ITEM_KEY, "correct"]]
    return items.drop(columns="correct").assign(chance=0.5, n_expected=9), answers


def test_items_meet_their_answers_in_any_order():
    items, answers = two_subsets()
    for shuffled in (answers, answers[::-1], answers.sample(frac=1, random_state=1)):
        joined = join_by_item(items, shuffled)
        pd.testing.assert_frame_equal(joined.drop(columns="correct"), items)
        assert joined.correct.tolist() == answers.correct.tolist()
        means = weighted_average(shuffled, score_weights(items, "subset"))
        assert means.to_dict() == pytest.approx({"f/one": 1 / 2, "f/two": 2 / 3})
        scores = accuracy_table(shuffled, items).set_index("dataset")
        assert scores.value.to_dict() == pytest.approx(means.to_dict())
        assert scores.n_used.to_dict() == {"f/one": 2, "f/two": 3}
    one = score_weights(items, "subset").query("score == 'f/one'")
    assert weighted_average(answers, one).to_dict() == {"f/one": 0.5}, "further answers do no harm"
    (row,) = accuracy_table(answers[:2], items).itertuples()
    assert (row.dataset, row.chance, row.n_used) == ("f/one", 0.5, 2)


def test_a_score_of_two_protocols_is_refused():
    """Winoground's group score is one of "authors" and of "official": both would give 2 x 0.5."""
    frame = part("winoground/group", x=(1, 2))
    both = pd.concat([score_weights(frame, "authors"), score_weights(frame, "official")])
    with pytest.raises(DataError, match="winoground/group"):
        weighted_average(frame, both)
    renamed = pd.concat([score_weights(frame, "table"), score_weights(frame, "official")])
    assert weighted_average(frame, renamed).to_dict() == {
        "Winoground": 0.5,
        "winoground/group": 0.5,
    }


def test_items_without_an_answer_or_with_two_are_named():
    items, answers = two_subsets()
    for some_items, some_answers in (
        (items, answers.drop(index=3)),
        (items.drop(index=3), answers),
        (items, pd.concat([answers, answers[3:4]])),
        (pd.concat([items, items[3:4]]), answers),
    ):
        with pytest.raises(DataError, match="f/two"):
            join_by_item(some_items, some_answers)
        with pytest.raises(DataError, match="f/two"):
            accuracy_table(some_answers, some_items)
    for some_answers in (answers[:4], pd.concat([answers, answers[4:]])):
        with pytest.raises(DataError, match="f/two"):
            weighted_average(some_answers, score_weights(items, "subset"))
    with pytest.raises(DataError, match="f/two"):
        score_weights(pd.concat([items, items[3:4]]), "subset")
