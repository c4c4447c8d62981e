"""Which gains survive: tests, corrections and counts on written-down answers and on records."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from cae_lib import measurements
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.significance import McNemar, unpaired
from cae_lib.evaluation.statistics import Interval
from cae_lib.records import Record, save_record
from cae_lib.report import benchmarks
from cae_lib.report.figure import Figure
from cae_lib.report.markup import Text
from cae_lib.report.runs import BASE, TUNED, cae_runs
from cae_lib.report.significance import (
    Cell,
    Comparison,
    Significance,
    compared,
    comparisons,
    corrected,
    significance,
)
from cae_lib.report.significance_figures import matrix
from cae_lib.report.significance_power import alarm_table, power_table
from cae_lib.report.significance_sentences import finding, survivors
from cae_lib.report.significance_steps import STEPS, Count, count_steps
from cae_lib.report.significance_tables import steps_table, verdict_table

N = 200
CAE_RUN = Comparison("cae-gradient", TUNED)


def answers_of(*rights: int, subset: str = "all", flipped: int = 0) -> list[ChoiceResult]:
    """Each seed has the first so many of N items right, the first few of them wrong after all."""
    found = []
    for right in rights:
        correct = np.arange(N) < right
        correct[:flipped] = False
        found.append(ChoiceResult(
            name="svo_probes" if subset == "all" else "winoground", subset=subset, correct=correct,
            sizes={"": N}, n_expected=N, headline="micro", rule="mean", macro_groups=None,
            chance=0.5, ties="strict", items="0" * 12, counts={}, metrics={},
            pictures=np.arange(N),
        ))  # fmt: skip
    return found


def one_cell(ours: list[ChoiceResult], theirs: list[ChoiceResult]) -> Cell:
    key = ours[0].key
    (cell,) = corrected(compared(CAE_RUN, {key: ours}, {key: theirs}))
    return cell


def made(p: float, estimate: float = 0.01, mcnemar=((0, 0, 1.0),), unpaired=(1.0,),
         comparison: Comparison = CAE_RUN, family: str = "ARO") -> Cell:  # fmt: skip
    """A cell whose tests are written down."""
    (base,) = compared(
        comparison, {"svo_probes/all": answers_of(9)}, {"svo_probes/all": answers_of(3)}
    )
    test = base.test.__class__(estimate, (estimate,) * len(unpaired), 0.01, 10.0, p,
                               base.test.components)  # fmt: skip
    ends = Interval(estimate, estimate - 0.01, estimate + 0.01, 0.95, N, len(unpaired))
    return Cell(comparison, family, ends, test, tuple(McNemar(*m) for m in mcnemar), unpaired, N, N)


def test_the_unpaired_test_by_hand():
    # .6 and .5 of 100: variance (.24 + .25) / 100
    first, second = np.arange(100) < 60, np.arange(100) < 50
    expected = 2 * norm.sf(0.1 / (0.49 / 100) ** 0.5)
    assert unpaired([first], [second], [1.0]) == pytest.approx(expected)
    halves = [first, first], [second, first], [0.5, 0.5]
    error = (0.25 * 0.49 / 100 + 0.25 * 0.48 / 100) ** 0.5
    assert unpaired(*halves) == pytest.approx(2 * norm.sf(0.05 / error))
    ones, zeros = [np.ones(3)], [np.zeros(3)]
    assert (unpaired(ones, zeros, [1.0]), unpaired(ones, ones, [1.0])) == (0.0, 1.0)


def test_a_cell_pairs_items_and_tests_each_seed():
    cell = one_cell(answers_of(120, 112, 126, flipped=2), answers_of(110, 110, 110))
    assert [(m.first_only, m.second_only) for m in cell.mcnemar] == [(10, 2), (2, 2), (16, 2)]
    assert cell.mcnemar[0].p_value == pytest.approx(binomtest(10, 12).pvalue)
    assert cell.test.by_seed == pytest.approx((8 / N, 0, 14 / N))
    assert (cell.seeds_found, cell.seeds_agree) == (2, False)
    assert cell.interval.estimate == pytest.approx(22 / 3 / N)
    assert cell.unpaired[1] == 1.0


def test_a_model_without_seeds_is_compared_with_each_seed():
    cell = one_cell(answers_of(120, 120, 130), answers_of(100))
    assert [m.first_only for m in cell.mcnemar] == [20, 20, 30]
    assert cell.verdict == "gain"
    assert one_cell(answers_of(100), answers_of(120, 120, 130)).verdict == "loss"


def test_holm_goes_over_the_families_of_a_comparison():
    other = Comparison("cae-attention", TUNED)
    cells = corrected([made(0.02), made(0.2), made(0.03, -0.01), made(0.04, comparison=other)])
    assert [cell.holm for cell in cells] == pytest.approx([0.06, 0.2, 0.06, 0.04])
    assert [cell.holm_all for cell in cells] == pytest.approx([0.08, 0.2, 0.09, 0.09])
    assert [cell.verdict for cell in cells] == [
        "gain, uncorrected", "open", "loss, uncorrected", "gain",
    ]  # fmt: skip


def test_significant_differences_are_counted_by_step():
    up, down, none = (9, 1, 0.02), (1, 9, 0.02), (3, 2, 1.0)
    cells = corrected([
        made(0.001, 0.02, (up, up), (0.01, 0.3)),
        made(0.04, 0.02, (up, none), (0.2, 0.2)),
        made(0.03, -0.02, (down, down), (0.04, 0.01)),
        made(0.30, 0.01, (up, down), (0.6, 0.6)),
    ])  # fmt: skip
    expected = [
        Count((1, 0), (1, 1)),  # unpaired, by seed
        Count((3, 1), (1, 2)),  # McNemar, by seed
        Count((1,), (1,)),  # in both seeds alike
        Count((2,), (1,)),
        Count((1,), (0,)),  # .004, .12, .09, .30
        Count((1,), (0,)),
    ]
    assert count_steps(cells) == dict(zip(STEPS, expected, strict=True))


def test_power_grows_with_seeds_and_items():
    cells = compared(CAE_RUN, {"svo_probes/all": answers_of(120, 110, 115, flipped=9)},
                     {"svo_probes/all": answers_of(105, 108, 104)})  # fmt: skip
    found = Significance(corrected(cells), {}, 3)
    row = power_table(found).rows[0]
    now, strict, seeds, items = map(float, row[5:])
    assert seeds < now and items < now
    assert strict == now, "one family needs no correction"
    assert float(row[2]) > 0


def test_with_one_seed_nothing_is_said_of_training():
    cells = compared(CAE_RUN, {"svo_probes/all": answers_of(120)},
                     {"svo_probes/all": answers_of(105)})  # fmt: skip
    found = Significance(corrected(cells), {}, 1)
    row = power_table(found).rows[0]
    assert [place for place, cell in enumerate(row) if cell == "–"] == [2, 3, 7]
    assert "from two seeds on" in alarm_table(found).source
    assert "not of another training" in survivors(found).source


@pytest.fixture
def records(home):
    """Store runs of the smoke profile that have so many items right, and read them anew."""

    def store(**rights: tuple[int, ...]) -> Significance:
        for run, counts in rights.items():
            name = run.replace("_", "-")
            for seed, count in enumerate(counts):
                parts = [*answers_of(count), *answers_of(100, subset="group")]
                content = {part.key: part.to_record() for part in parts}
                record = Record(f"{name}/{seed}/benchmarks", "0" * 12, {}, content, {})
                save_record(record, "smoke")
        measurements._load.cache_clear()
        benchmarks.answers.cache_clear()
        return significance("smoke", 3)

    yield store
    measurements._load.cache_clear()
    benchmarks.answers.cache_clear()


def verdicts(found: Significance) -> dict[str, str]:
    return {cell.comparison.label: cell.verdict
            for cell in found.cells if cell.family == "SVO-Probes"}  # fmt: skip


def test_verdicts_follow_the_records(records):
    run = next(iter(cae_runs("smoke")))
    label = Comparison(run, TUNED).label
    found = records(base=(100,), clip_ft=(110, 111, 112), **{run: (110, 112, 111)})
    assert verdicts(found) == {Comparison(TUNED, BASE).label: "gain", label: "open"}
    assert "0 gains survive; 0 losses survive" in finding("smoke", 3)
    assert verdicts(records(**{run: (130, 131, 133)}))[label] == "gain"
    assert "1 gain survives" in finding("smoke", 3)
    assert verdicts(records(**{run: (90, 91, 93)}))[label] == "loss"
    assert "1 loss survives" in finding("smoke", 3)


def test_a_page_shows_what_is_measured_and_names_the_rest(records):
    found = records(base=(100,), clip_ft=(110, 111, 112))
    assert len(found.cells) == 2
    assert len(found.missing) == len(comparisons("smoke")) - 1
    kinds = {comparison.kind for comparison in found.missing}
    assert kinds == {"CLIP-CAE − CLIP-FT", "NegCLIP − CLIP-FT", "NegCLIP-CAE − NegCLIP"}
    text = repr(survivors(found))
    assert "1 gain survives (SVO-Probes +5.5)" in text and "Not measured yet" in text
    rows = verdict_table(found).rows
    assert [row[1] for row in rows] == ["Winoground", "SVO-Probes"]
    assert rows[1][3].startswith("**+5.5**") and rows[1][4] == "+5.0 to +6.0"
    assert "the records have no ARO" in verdict_table(found).notes[0]
    assert steps_table(found).rows[-1][1] == "1 up<br>0 down"
    assert len(alarm_table(found).rows) == 4
    figure = matrix(found)
    assert isinstance(figure, Figure)
    assert "SVO-Probes +5.5 (survives Holm's correction)" in figure.alt
    assert "Winoground 0.0;" not in figure.alt and "Winoground 0.0," in figure.alt


def test_a_page_without_records_says_so(home):
    found = significance("smoke", 3)
    assert found.cells == () and finding("smoke", 3) is None
    for make in (survivors, verdict_table, steps_table, alarm_table, power_table, matrix):
        shown = make(found)
        assert isinstance(shown, Text) and "Not measured yet in the profile smoke" in shown.source
