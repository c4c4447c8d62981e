"""The pages that compute: one experiment and a sweep. No parameter of theirs is ignored, what they
compute is found again, and by default they train nothing."""

import contextlib
import io
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
from conftest import REPOSITORY
from papermill import inspect_notebook

from cae_lib import measuring, results, store
from cae_lib.config import Search
from cae_lib.errors import ConfigError, TooLongError
from cae_lib.evaluation.suites import Suite
from cae_lib.methods import METHODS
from cae_lib.pages.source import read_page
from cae_lib.pages.stamp import command

EXPERIMENT, SWEEP = (
    REPOSITORY / "book" / "experiments" / f"{name}.md" for name in ("experiment", "sweep")
)


def run_page(page: Path, until: str = "", **parameters: Any) -> dict[str, Any]:
    """Run the cells of a page with parameters, as papermill gives them, up to the one that sets
    the name `until`; returns all names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for place, cell in enumerate(read_page(page).cells):
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and not (until and until in names):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, f"{page.stem}, cell {place}", "exec"), names)
            names |= parameters if "parameters" in tags else {}
    return names


@pytest.fixture
def scores(monkeypatch) -> Mock:
    """A measurement on validation captions that takes no time: a run leaves a gap of the share
    0.05 / weight, and its score is its weight."""

    def measure(suite: Suite, encoder: Any, profile: str) -> dict[str, pd.DataFrame]:
        weight = encoder.clip
        row = {"recall_at_1": 0.5, "against_negatives": 0.5, "score": weight or 0.4}
        gaps = {f"gap_{method}": 0.05 / weight if weight else 1.0 for method in METHODS}
        return {"validation": pd.DataFrame([row | gaps])}

    counted = Mock(side_effect=measure)
    monkeypatch.setattr(Suite, "__call__", lambda *given: counted(*given))
    monkeypatch.setattr(measuring, "train_run", Mock(return_value=None))
    monkeypatch.setattr(
        measuring,
        "open_run",
        lambda run, profile, seed, **settings: (
            settings.get("weight", 1.0) if run != "clip-ft" else None
        ),
    )
    monkeypatch.setattr(measuring, "Encoder", lambda model, profile: Mock(clip=model))
    return counted


def test_an_experiment_is_computed_once_and_leaves_published_tables_alone(
    smoke_home, monkeypatch, capsys
):
    """All of the page with a weight of its own: its numbers are those of the run that it names."""
    names = run_page(EXPERIMENT, profile="smoke", weight=0.5, steps=1, seed=1)
    name = names["name"]
    assert name == "cae-gradcam+steps=1+weight=0.5" and name in names["accuracy"].index
    assert names["reference"] == "clip-ft+steps=1", "of as many steps"
    assert "weight 0.5" in names["finding"] and "(seed 1)" in names["finding"]
    assert names["resolved"].loc["weight"].tolist() == ["0.5", "this page"]
    again = command("experiment", names)
    assert "-p weight 0.5" in again and "-p seed 1" in again and "-p profile smoke" in again
    assert store.tables("smoke") == {}
    monkeypatch.setattr(Suite, "__call__", Mock(side_effect=RuntimeError("measured again")))
    again = run_page(EXPERIMENT, profile="smoke", weight=0.5, steps=1, seed=1)
    assert again["finding"] == names["finding"]


@pytest.mark.parametrize(
    ("parameters", "run", "settings"),
    [
        ({"run": "cae-attention"}, "cae-attention", {"method": "attention"}),
        ({"method": "attention"}, "cae-gradcam+method=attention", {"method": "attention"}),
        ({"weight": 0.3}, "cae-gradcam+weight=0.3", {"weight": 0.3}),
        ({"weight": 3}, "cae-gradcam+weight=3", {"weight": 3.0}),
        ({"margin": "0.1"}, "cae-gradcam+margin=0.1", {"margin": 0.1}),
        ({"negatives": True}, "cae-gradcam+negatives=True", {"negatives": True}),
        ({"steps": 4}, "cae-gradcam+steps=4", {"steps": 4}),
        ({"seed": 7}, "cae-gradcam", {"seed": 7}),
        ({"hours": 2.5}, "cae-gradcam", {}),
        ({"profile": "mini"}, "cae-gradcam", {"profile": "mini", "weight": 0.1}),
        ({"weight": "1.0"}, "cae-gradcam", {"weight": 1.0}),
    ],
)
def test_no_parameter_of_an_experiment_is_ignored(home, monkeypatch, parameters, run, settings):
    """What is loaded is the run with these settings, of this profile and seed."""
    load = Mock(return_value=pd.DataFrame({"correct": [True]}))
    monkeypatch.setattr(results, "load", load)
    given = {"profile": "smoke"} | parameters
    names = run_page(EXPERIMENT, "items", **given)
    table, profile, runs, seeds = load.call_args_list[0].args
    assert (table, profile, runs[0]) == ("attribution", given["profile"], run)
    assert seeds == [given.get("seed", 0)]
    assert load.call_args_list[0].kwargs == {"compute": True, "hours": given.get("hours", 1.0)}
    assert all(getattr(names["config"], key) == value for key, value in settings.items())
    assert names["reference"] == {"negatives": "negclip", "steps": "clip-ft+steps=4"}.get(
        next(iter(parameters)), "clip-ft"
    )


def test_each_parameter_has_a_test():
    tested = {"run", "method", "weight", "margin", "negatives", "steps", "seed", "hours", "profile"}
    assert {*inspect_notebook(EXPERIMENT.with_suffix(".ipynb"))} == tested
    assert {*inspect_notebook(SWEEP.with_suffix(".ipynb"))} == {
        "profile",
        "run",
        "setting",
        "values",
        "hours",
    }


@pytest.mark.parametrize(
    ("page", "parameters", "message"),
    [
        (EXPERIMENT, {"profile": "photo"}, "does not describe the profile 'photo'"),
        (EXPERIMENT, {"run": "cae-gradcm"}, "unknown experiment 'cae-gradcm'"),
        (EXPERIMENT, {"method": "gradcm"}, "unknown method 'gradcm'"),
        (EXPERIMENT, {"weight": "much"}, "weight is 'much'"),
        (EXPERIMENT, {"negatives": "some"}, "negatives is 'some'"),
        (EXPERIMENT, {"steps": 1.5}, "steps is 1.5"),
        (EXPERIMENT, {"seed": -1}, "seed and steps have to be 0 or more"),
        (SWEEP, {"run": "clip-ft"}, "has no attribution loss"),
        (SWEEP, {"setting": "lr"}, "expected weight or margin"),
        (SWEEP, {"values": "0.1 much"}, "expected numbers"),
    ],
)
def test_an_unknown_value_is_refused_before_anything_is_loaded(
    home, monkeypatch, page, parameters, message
):
    monkeypatch.setattr(results, "load", Mock(side_effect=RuntimeError("loaded")))
    with pytest.raises(ConfigError, match=message):
        run_page(page, **{"profile": "smoke"} | parameters)


@pytest.mark.parametrize("page", [EXPERIMENT, SWEEP], ids=lambda page: page.stem)
def test_a_page_trains_nothing_by_default(page, monkeypatch):
    """All that it shows is among the tables of the repository."""
    monkeypatch.delenv("CAE_HOME", raising=False)
    monkeypatch.setattr(measuring, "compute_table", Mock(side_effect=RuntimeError("computed")))
    names = run_page(page)
    assert names["profile"] == "mini" and names["finding"]


@pytest.mark.parametrize(
    ("run", "setting", "found"),
    [
        ("cae-gradcam", "weight", ([0.03, 0.1, 0.3, 1.0], 0.1)),
        ("cae-binding", "margin", ([0.05, 0.1, 0.2], 0.05)),
        ("cae-binding", "weight", ([2.5, 5.0, 10.0, 20.0], 20.0)),
    ],
)
def test_a_stored_sweep_chooses_what_is_configured(monkeypatch, run, setting, found):
    monkeypatch.delenv("CAE_HOME", raising=False)
    names = run_page(SWEEP, run=run, setting=setting)
    assert (names["tried"][setting].tolist(), names["best"][setting]) == found
    assert names["best"][setting] == getattr(names["config"], setting)


@pytest.mark.parametrize(
    ("parameters", "values", "best"),
    [
        ({}, [0.3, 1.0, 3.0], 1.0),  # the configured one and its neighbours
        ({"values": "0.4 0.6 0.8"}, [0.4, 0.6, 0.8], 0.6),
        ({"values": "0.2,0.1"}, [0.1, 0.2], 0.2),  # none closes the gap: the largest
        ({"values": 0.7}, [0.7], 0.7),
        ({"run": "cae-binding", "values": "0.9 0.2"}, [0.2, 0.9], 0.9),
    ],
)
def test_a_sweep_computes_its_values_once_and_applies_the_rule(
    smoke_home, scores, parameters, values, best
):
    """By scores that leave half of the gap at λ 0.1, and a tenth at 0.5."""
    names = run_page(SWEEP, profile="smoke", **parameters)
    assert names["tried"]["weight"].tolist() == values and names["best"]["weight"] == best
    assert set(names["tried"]["seed"]) == {100} and f"{best:g}" in names["finding"]
    assert scores.call_count == len(values) + 1, "and CLIP-FT"
    assert run_page(SWEEP, profile="smoke", **parameters)["finding"] == names["finding"]
    assert scores.call_count == len(values) + 1
    assert store.tables("smoke") == {}


def test_a_sweep_over_margins_trains_margins(smoke_home, scores):
    names = run_page(SWEEP, profile="smoke", setting="margin")
    assert names["tried"]["margin"].tolist() == [*Search().margins][:2]
    runs = {
        call.kwargs["margin"]
        for call in measuring.train_run.call_args_list
        if call.args[0] == "cae-gradcam"
    }
    assert runs == {*names["tried"]["margin"]}


def test_where_there_is_nothing_to_close_nothing_is_chosen(smoke_home, scores, monkeypatch):
    monkeypatch.setattr(
        results,
        "load",
        lambda *_, **settings: pd.DataFrame(
            [
                {
                    "recall_at_1": 0.5,
                    "against_negatives": 0.5,
                    "score": 0.5,
                    "seed": 100,
                    **{f"gap_{method}": -0.01 for method in METHODS},
                }
            ]
        ),
    )
    names = run_page(SWEEP, profile="smoke", values="0.1 1")
    assert names["best"] is None and "nothing to close" in names["finding"]


def test_a_sweep_that_takes_too_long_is_refused(smoke_home):
    with pytest.raises(TooLongError, match="hours="):
        run_page(SWEEP, profile="smoke", values="0.5", hours=1e-12)
