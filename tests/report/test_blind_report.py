"""Blind choosers beside models with the picture, from records written by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from cae_lib.errors import DataError
from cae_lib.evaluation.bits import pack_bits, pack_numbers
from cae_lib.report import blind_gain_tables as gains
from cae_lib.report import blind_tables as tables
from cae_lib.report.blind import blind_answers, chooser_label, without_captions
from cae_lib.report.blind_figures import gain_figure, solved_figure
from cae_lib.report.blind_finding import blind_summary, finding
from cae_lib.report.blind_gains import (
    ABOVE,
    AT,
    BELOW,
    by_standing,
    compared_subsets,
    correlation,
    gains_without_pictures,
)
from cae_lib.report.markup import NONE, Text

N = 200
SHARES = {"crepe/atom": 0.9, "aro/relation": 0.5, "sugarcrepe/add_att": 0.2, "svo_probes/all": None,
          "winoground/text": 0.0, "winoground/group": 0.0}  # fmt: skip
CHOOSERS = ["shorter", "longer", "likelihood", "likelihood_per_word", "average_picture/base",
            "average_picture/clip-ft", "average_picture/cae-attention"]  # fmt: skip


def right(share: float) -> dict[str, str]:
    """Marks of a chooser that is right on the first items."""
    return {"1": pack_bits(np.arange(N) < round(share * N))}


def subset(key: str, share: float | None, items: str = "abc") -> dict:
    name, _, part = key.partition("/")
    marks: dict = {}
    if share is not None:
        marks = {chooser: right(share) for chooser in CHOOSERS}
        marks["shorter"] = {"2": pack_bits(np.ones(N))}  # ties of two everywhere
        marks["average_picture/cae-attention"] = right(share + 0.05)
    return {
        "name": name, "subset": part, "n_used": N, "n_expected": N, "headline": "micro",
        "rule": "mean over items", "macro_groups": None, "chance": 0.5, "counts": {},
        "groups": [["a", N // 2], ["b", N // 2]], "items": items, "choosers": marks,
        "pictures": pack_numbers(np.arange(N)),
    }  # fmt: skip


def record(**changes) -> dict:
    subsets = {key: subset(key, share) for key, share in SHARES.items()}
    return {"n_captions": 20, "n_captions_expected": 21, "n_pictures": 5, "choosers": CHOOSERS,
            "subsets": subsets | changes}  # fmt: skip


@pytest.fixture
def measured(store):
    store.save("blind", record())
    for method in ("attention", "gradcam", "perturbation", "gradient"):
        levels = {"crepe/atom": 0.85, "aro/relation": 0.65, "sugarcrepe/add_att": 0.55, "*": 0.7}
        store.benchmarks(f"cae-{method}", levels)
    return store


def test_ties_count_as_the_share_of_a_guess(measured):
    found = blind_answers("smoke", "shorter")
    assert found["aro/relation"][0].value == 0.5
    assert blind_answers("smoke", "likelihood")["crepe/atom"][0].value == pytest.approx(0.9)
    assert "svo_probes/all" not in found and without_captions("smoke") == ["svo_probes/all"]


def test_subsets_are_sorted_by_the_interval_of_the_likelier_caption(measured):
    groups = by_standing(compared_subsets("smoke", 3))
    assert {name: [s.key for s in found] for name, found in groups.items()} == {
        ABOVE: ["crepe/atom"], AT: ["aro/relation"], BELOW: ["sugarcrepe/add_att"],
    }  # fmt: skip


def test_gains_are_those_of_the_answers(measured):
    found = {s.key: s.gain for s in compared_subsets("smoke", 3)}
    assert found["crepe/atom"].estimate == pytest.approx(0.2, abs=0.06)
    assert found["crepe/atom"].low > 0 > found["sugarcrepe/add_att"].high
    assert abs(found["aro/relation"].estimate) < 1e-9  # the same answers as CLIP-FT
    rows = {row[0]: row for row in gains.standing_table("smoke", 3).rows}
    assert rows["above chance"][1:4] == ["1", str(N), "+40.0"]
    assert rows["above chance"][-2:] == ["1", "0"] and rows["below chance"][-2:] == ["0", "1"]
    assert rows["all"][1:4] == ["3", str(3 * N), "+3.3"]


def test_the_gain_without_pictures_is_paired(measured):
    found = gains_without_pictures("smoke", ["crepe/atom", "svo_probes/all"])
    assert list(found) == ["crepe/atom"]
    assert found["crepe/atom"].estimate == pytest.approx(0.05)
    row = gains.language_table("smoke", 3).rows[0]
    assert row[0] == "ARO, relation" and row[2:4] == ["50.0", "55.0"] and row[4].startswith("**+5")


def test_correlation_is_spearmans_over_common_subsets():
    x = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "x": 9.0}
    y = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 4.0, "y": 9.0}
    found = correlation(x, y)
    assert found.estimate == pytest.approx(spearmanr([1, 2, 3, 4], [1, 3, 2, 4]).statistic)
    assert found.n_items == 4 and found.low <= found.estimate <= found.high
    assert correlation(x, dict.fromkeys(x, 0.5)) is None


def test_tables_and_figures_say_what_is_not_applicable(measured):
    rows = {row[0]: row for row in tables.blind_table("smoke", 3).rows}
    assert rows["SVO-Probes"][3:9] == [NONE] * 6
    assert rows["CREPE, productivity R@1"][5].startswith("**90.0**")
    assert rows["ARO, relation"][3].startswith("50.0<br>")
    assert "20 of 21 training captions" in tables.blind_table("smoke", 3).notes[0]
    notes = tables.blind_subset_table("smoke", 3).notes[0]
    assert "`svo_probes/all`" in notes
    assert chooser_label("average_picture/clip-ft") == "CLIP-FT, average picture"
    assert "likelier caption 90.0" in solved_figure("smoke", 3).alt
    assert "3 subsets" in gain_figure("smoke", 3).alt
    sides = [row[0] for row in gains.correlation_table("smoke", 3).rows]
    assert sides[-1] == "CAE − CLIP-FT, average picture"


def test_the_finding_follows_the_record(measured):
    text = finding("smoke", 3)
    assert "on 1 of 3 subsets (most on `crepe/atom`: 90.0 % where chance is 50.0 %)" in text
    assert "CAE is better for certain on `crepe/atom`" in blind_summary("smoke", 3).source
    flat = {key: subset(key, 0.5) for key in ("crepe/atom", "sugarcrepe/add_att")}
    measured.save("blind", record(**flat))
    assert "on 0 of 3 subsets;" in finding("smoke", 3)
    assert "do not vary enough" in blind_summary("smoke", 3).source


def test_other_items_are_refused(measured):
    measured.save("blind", record(**{"crepe/atom": subset("crepe/atom", 0.9, items="other")}))
    with pytest.raises(DataError, match="crepe/atom: `blind` was measured on other items"):
        compared_subsets("smoke", 3)


def test_what_is_missing_is_said_with_its_command(store):
    made = [blind_summary, tables.blind_table, gains.standing_table, gains.correlation_table,
            gains.language_table, solved_figure, gain_figure]  # fmt: skip
    for make in made:
        shown = make("smoke", 3)
        assert isinstance(shown, Text) and "`cae evaluate blind --profile smoke`" in shown.source
    assert finding("smoke", 3) is None
