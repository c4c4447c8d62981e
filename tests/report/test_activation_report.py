"""The tables of the activation control, from records written by hand."""

from __future__ import annotations

import pytest

from cae_lib.report import activation
from cae_lib.report.activation import OVERALL, PRINTED, RELOAD, REST, TRAINING, control_answers
from cae_lib.report.activation_figure import step_figure
from cae_lib.report.markup import Text

LEVELS = {"base": 0.6, "base-gelu": 0.64, "clip-ft": 0.65, "clip-ft-gelu": 0.7}


@pytest.fixture
def measured(store):
    for run, level in LEVELS.items():
        store.benchmarks(run, level)
        store.retrieval(run)
    return store


def test_the_printed_difference_is_the_sum_of_its_parts(measured):
    found = activation.steps(control_answers("smoke", 3))
    for name in found[PRINTED.name]:
        whole, reload, rest, training = (
            found[step.name][name].estimate for step in (PRINTED, RELOAD, REST, TRAINING)
        )
        assert whole == pytest.approx(reload + rest)
        assert 0 < reload < whole and 0 < training < whole
    assert OVERALL in found[PRINTED.name]


def test_the_finding_names_the_share_of_the_activation(measured):
    text = activation.finding("smoke", 3).source
    found = activation.steps(control_answers("smoke", 3))
    share = found[RELOAD.name][OVERALL].estimate / found[PRINTED.name][OVERALL].estimate
    assert f"{100 * share:.0f} % is the activation" in text
    assert "printed as better than CLIP" in text


def test_no_share_of_a_difference_that_is_not_there(measured):
    measured.benchmarks("clip-ft-gelu", 0.6)
    assert "no share of it can be named" in activation.finding("smoke", 3).source


def test_tables_and_figure(measured):
    header = activation.control_score_table("smoke", 3).header
    assert header[3:] == ["CLIP (QuickGELU)", "CLIP (GELU)", "CLIP-FT (QuickGELU)",
                          "CLIP-FT (QuickGELU, read with GELU)"]  # fmt: skip
    assert len(activation.control_recall_table("smoke", 3).rows) == 4
    table = activation.step_table("smoke", 3)
    assert table.rows[-1][0] == f"*{OVERALL}*" and len(table.rows) == 8
    assert "the activation alone: ARO +" in step_figure("smoke", 3).alt


def test_models_trained_with_gelu_join_where_they_are(measured):
    measured.benchmarks("clip-ft-under-gelu", 0.66)
    measured.retrieval("clip-ft-under-gelu")
    assert activation.control_score_table("smoke", 3).header[-1] == "CLIP-FT (GELU)"


def test_what_is_missing_is_said_with_its_command(store):
    for made in (activation.finding("smoke", 3), activation.step_table("smoke", 3)):
        assert isinstance(made, Text) and "cae evaluate base-gelu --profile smoke" in made.source
