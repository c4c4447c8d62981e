"""Pages that compute what is not stored: no parameter of theirs is ignored."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jupytext
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from conftest import REPOSITORY
from papermill import inspect_notebook

from book.extension.parameters import PageSelection, select
from book.extension.provenance import command
from book.extension.source import read_page
from book.studies import ALL_SUITES
from cae_bench.averages import score_weights
from cae_lab import measuring, plots, results, store
from cae_lab.profiles import load_profile
from cae_lab.runs import Profile, Run, SearchSpace
from cae_lab.suites import Suite
from cae_lib.errors import ConfigError, TimeLimitError
from cae_lib.methods import PAPER_METHODS
from cae_lib.training.inputs import digest

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

    def measure(suite: Suite, encoder: Any, profile: Profile) -> pd.DataFrame:
        weight = encoder.clip
        row = {"recall_at_1": 0.5, "against_negatives": 0.5, "score": weight or 0.4}
        gap = 0.05 / weight if weight else counted.reference_gap
        gaps = {f"gap_{method}": gap for method in PAPER_METHODS}
        return pd.DataFrame([row | gaps])

    counted = Mock(side_effect=measure)
    monkeypatch.setattr(Suite, "__call__", lambda *words: counted(*words))
    monkeypatch.setattr(Run, "train", lambda run, **_: counted.trained.append(run))
    monkeypatch.setattr(Run, "stored_digest", lambda run: digest(run.inputs()))
    monkeypatch.setattr(Run, "open", lambda run: run.config.weight or None)
    monkeypatch.setattr(measuring, "encoder_of", lambda model, profile: Mock(clip=model))
    counted.trained, counted.reference_gap = [], 1.0
    return counted


@pytest.mark.slow
def test_papermill_alone_trains_measures_and_draws_an_experiment_once(
    smoke_home: Path, tmp_path: Path, monkeypatch
):
    """What the page says of a run with a weight of its own is what this run answers."""
    source, output = tmp_path / "experiment.ipynb", tmp_path / "out.ipynb"
    jupytext.write(read_page(EXPERIMENT), source)
    parameters = {"profile": "smoke", "weight": 0.5, "steps": 1, "seed": 1}
    papermill.execute_notebook(source, output, parameters, progress_bar=False, cwd=tmp_path)
    smoke = load_profile("smoke")
    assert not smoke.records.exists()
    runs = ["clip-ft+steps=1", "cae-gradcam+steps=1+weight=0.5"]
    stored_apart = store.index_of("benchmarks", smoke)
    assert {(run, 1) for run in runs} <= stored_apart.keys()
    assert ("cae-gradcam", 1) not in stored_apart
    answers = store.read_rows([stored_apart[run, 1] for run in runs]).to_pandas()
    items = store.read_rows([store.index_of("items", smoke)["data", 0]]).to_pandas()
    of_mean = score_weights(items, "family").query("score == 'mean'")
    answers = answers.merge(of_mean, on=["family", "subset", "item"])
    answers["part"] = answers["correct"] * answers["weight"]
    accuracy = answers.groupby("run")["part"].sum()
    gain = plots.format_number(accuracy[runs[1]] - accuracy[runs[0]], 1, 100, True)
    cells = nbformat.read(output, as_version=4).cells
    outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    texts = ["".join(data.get("text/plain", "")) for data in outputs]
    monkeypatch.setattr(Suite, "__call__", Mock(side_effect=RuntimeError("measured again")))
    names = run_page(EXPERIMENT, "finding", **parameters)
    assert names["finding"] in texts and gain in names["finding"]
    assert names["name"] == runs[1] and names["reference"] == runs[0], "of as many steps"
    assert "weight 0.5" in names["finding"] and "(seed 1)" in names["finding"]
    assert names["resolved"].loc["weight"].tolist() == ["0.5", "this page"]
    again = command("experiment", names)
    assert "-p weight 0.5" in again and "-p seed 1" in again and "-p profile smoke" in again


@pytest.mark.parametrize(
    ("parameters", "run", "settings"),
    [
        ({"run": "cae-attention"}, "cae-attention", {"method": "attention"}),
        ({"method": "attention"}, "cae-gradcam+method=attention", {"method": "attention"}),
        ({"weight": 0.3}, "cae-gradcam+weight=0.3", {"weight": 0.3}),
        ({"margin": "0.1"}, "cae-gradcam+margin=0.1", {"margin": 0.1}),
        ({"negatives": True}, "cae-gradcam+negatives=True", {"negatives": True}),
        ({"steps": 4}, "cae-gradcam+steps=4", {"steps": 4}),
        ({"seed": 7}, "cae-gradcam", {"seed": 7}),
        ({"hours": 2.0}, "cae-gradcam", {}),
        ({"profile": "mini"}, "cae-gradcam", {"profile": "mini", "weight": 0.1}),
    ],
)
def test_experiment_ignores_no_parameter(home, monkeypatch, parameters, run, settings):
    """What is loaded is the run with these settings, of this profile and seed."""
    load = Mock(return_value=pd.DataFrame({"correct": [True]}))
    monkeypatch.setattr(results, "load", load)
    parameters = {"profile": "smoke"} | parameters
    names = run_page(EXPERIMENT, "items", **parameters)
    table, profile, runs, seeds = load.call_args_list[0].args
    assert (table, profile.name, runs[0]) == ("attribution", parameters["profile"], run)
    assert seeds == [parameters.get("seed", 0)]
    hours = parameters.get("hours", 1.0)
    expected = {"compute": True, "hours": hours, "suites": ALL_SUITES}
    assert load.call_args_list[0].kwargs == expected
    assert all(getattr(names["config"], key) == value for key, value in settings.items())
    reference = "clip-ft+steps=4" if "steps" in parameters else "clip-ft"
    assert names["reference"] == ("negclip" if "negatives" in parameters else reference)


@pytest.mark.parametrize(
    ("page", "parameters", "message"),
    [
        (EXPERIMENT, {"profile": "photo"}, "does not describe the profile 'photo'"),
        (EXPERIMENT, {"run": "cae-gradcm"}, "unknown experiment 'cae-gradcm'"),
        (EXPERIMENT, {"weight": "much"}, "weight is 'much'"),
        (EXPERIMENT, {"weight": -1}, "weight is -1.0"),
        (SWEEP, {"values": "0.1, -1"}, "weight is -1.0"),
        (SWEEP, {"run": "clip-ft"}, "has no attribution loss"),
        (SWEEP, {"setting": "lr"}, "expected weight or margin"),
        (SWEEP, {"values": "0.1 much"}, "expected numbers"),
    ],
)
def test_unknown_value_is_refused_before_anything_is_loaded(
    home, monkeypatch, page, parameters, message
):
    monkeypatch.setattr(results, "load", Mock(side_effect=RuntimeError("loaded")))
    with pytest.raises(ConfigError, match=message):
        run_page(page, **{"profile": "smoke"} | parameters)


@pytest.mark.parametrize(
    ("page", "until", "run", "weight"),
    [
        (EXPERIMENT, "items", "cae-gradcam", 0.1),
        (SWEEP, "finding", "cae-gradcam", 0.1),
        (SWEEP, "finding", "cae-binding", 20.0),
    ],
)
def test_page_trains_nothing_by_default(page, until, run, weight, monkeypatch):
    """All that it loads is stored, and a stored sweep chooses what is configured."""
    monkeypatch.delenv("CAE_HOME", raising=False)
    monkeypatch.setattr(measuring, "measure", Mock(side_effect=RuntimeError("computed")))
    names = run_page(page, until, run=run)
    assert names["profile"] == "mini" and len(names[until])
    assert names["config"].weight == weight
    assert page is EXPERIMENT or names["best"]["weight"] == weight


@pytest.mark.parametrize(
    ("parameters", "values", "best"),
    [
        ({}, [0.3, 1.0, 3.0], 1.0),  # the configured one and its neighbours
        ({"values": "0.4 0.6 0.8"}, [0.4, 0.6, 0.8], 0.6),
        ({"values": "0.2,0.1"}, [0.1, 0.2], 0.2),  # none closes the gap: the largest
        ({"run": "cae-binding", "values": "0.9 0.2"}, [0.2, 0.9], 0.9),
    ],
)
def test_sweep_computes_its_values_once_and_applies_the_rule(
    smoke_home, scores, parameters, values, best
):
    """By scores that leave half of the gap at λ 0.1, and a tenth at 0.5."""
    names = run_page(SWEEP, profile="smoke", **parameters)
    assert names["tried"]["weight"].tolist() == values and names["best"]["weight"] == best
    assert set(names["tried"]["seed"]) == {100} and f"{best:g}" in names["finding"]
    assert scores.call_count == len(values) + 1, "and CLIP-FT"
    assert run_page(SWEEP, profile="smoke", **parameters)["finding"] == names["finding"]
    assert scores.call_count == len(values) + 1
    assert not load_profile("smoke").records.exists()


def test_sweep_over_margins_takes_what_is_stored_and_trains_the_rest(smoke_home, scores):
    """The tables of the book have no margin in the rows of a search over λ."""
    gaps = {f"gap_{method}": 0.05 for method in PAPER_METHODS}
    row = {"recall_at_1": 0.5, "against_negatives": 0.5, "score": 0.5, **gaps}
    rows = [{"experiment": "clip-ft", "weight": np.nan} | row]
    rows += [{"experiment": "cae-gradcam", "weight": weight} | row for weight in (0.3, 1.0)]
    stored = pd.DataFrame(rows)
    store.save("sweep", load_profile("smoke"), "tuning", 100, stored, key="k", provenance={})
    names = run_page(SWEEP, profile="smoke", setting="margin")
    assert names["tried"]["margin"].tolist() == [0.0, *SearchSpace().margins[:2]]
    assert names["best"]["margin"] == 0.1 and "margin 0.1" in names["finding"]
    margins = {run.config.margin for run in scores.trained if run.entry == "cae-gradcam"}
    assert margins == {*SearchSpace().margins[:2]}, "margin 0 is stored"


def test_sweep_without_a_gap_to_close_chooses_nothing(smoke_home, scores):
    scores.reference_gap = -0.01
    names = run_page(SWEEP, profile="smoke", values="0.1 1")
    assert names["best"] is None and "nothing to close" in names["finding"]


def test_sweep_that_takes_too_long_is_refused(smoke_home):
    with pytest.raises(TimeLimitError, match="hours="):
        run_page(SWEEP, profile="smoke", values="0.5", hours=1e-12)


RESULTS = {
    "accuracy": (["crepe", "half_truths"], []),
    "attribution": ([], []),
    "heat-maps": ([], []),
    "paired": ([], []),
    "photographs": ([], []),
    "retrieval-and-text": ([], ["similarity"]),
    "word-roles": ([], []),
}
"""Pages of several attribution methods, each with families of benchmarks and tables that it can do
without."""


def hide(monkeypatch: pytest.MonkeyPatch, families: list[str], tables: list[str]) -> None:
    """Let the records lack some families and tables, and allow nothing to be computed; figures
    are made, and not written as files."""
    whole = results.load

    def load(table: str, *words: Any, **settings: Any) -> pd.DataFrame:
        assert table not in tables
        rows = whole(table, *words, **settings)
        return rows[~rows["family"].isin(families)] if "family" in rows else rows

    monkeypatch.delenv("CAE_HOME", raising=False)
    monkeypatch.setattr(results, "load", load)
    monkeypatch.setattr(PageSelection, "has", lambda self, table, runs: table not in tables)
    monkeypatch.setattr(plots, "_svg", lambda figure, alt: "")
    monkeypatch.setattr(plots, "_png", lambda figure: b"")
    monkeypatch.setattr(measuring, "measure", Mock(side_effect=RuntimeError("computed")))


@pytest.mark.parametrize("name", RESULTS)
def test_page_of_results_shows_a_part_of_methods_seeds_and_data(name, monkeypatch):
    text = REPOSITORY / "book" / "experiments" / f"{name}.md"
    declared = {*inspect_notebook(text.with_suffix(".ipynb"))}
    assert declared >= {"profile", "methods", "seeds", "weight", "margin", "steps", "hours"}
    hide(monkeypatch, *RESULTS[name])
    names = run_page(text, methods=["gradcam"], seeds=1)
    assert "1 seed; methods: GradCAM" in names["page"].shown().text
    again = command(name, names)
    assert "-p seeds 1" in again and "-p weight" not in again


def test_pages_refuse_a_parameter_before_they_import_anything_large():
    """Which takes seconds, on a busy machine half a minute."""
    code = """
import sys
from pathlib import Path
from book.extension.source import read_page
from cae_lib.errors import ConfigError
refused = 0
for page in sorted(Path("book/experiments").glob("*.md")):
    names = {"__name__": "__main__"}
    first, second = [cell.source for cell in read_page(page).cells if cell.cell_type == "code"][:2]
    exec(first, names)
    try:
        exec(second, names | {"profile": "nowhere"})
    except ConfigError as error:
        assert "nowhere" in str(error), error
        refused += 1
    heavy = {"pandas", "torch", "matplotlib"} & {*sys.modules}
    assert not heavy, f"{page}: {heavy}"
print(refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len([*EXPERIMENT.parent.glob("*.md")])


RUNS = ["clip-ft", "cae-gradcam", "placebo-gradcam", "cae-counterfactual", "negclip"]
BOUND = ["cae-binding", "kept-binding", "softmax-binding", "cae-gradcam"]


@pytest.mark.parametrize(
    ("parameters", "methods", "runs", "endings"),
    [
        ({"methods": "gradcam"}, None, RUNS, [""] * 5),
        (
            {"methods": "gradcam", "steps": "2", "margin": 0.5},
            None,
            RUNS,
            ["+steps=2", *["+margin=0.5+steps=2"] * 2, *["+steps=2"] * 2],
        ),
        ({"margin": 0.5}, ["binding"], BOUND, ["+margin=0.5", "+margin=0.5", "", ""]),
    ],
)
def test_settings_act_on_the_runs_that_have_them(monkeypatch, parameters, methods, runs, endings):
    load = Mock(side_effect=lambda *words, **_: pd.DataFrame({"run": [*words[2]]}))
    monkeypatch.setattr(results, "load", load)
    options = {"known": methods} if methods else {}
    page = select({"profile": "mini", "seeds": 2, "hours": 3} | parameters, **options)
    rows = page.load("benchmarks", ["base", *runs])
    expected = [run + ending for run, ending in zip(runs, endings, strict=True)]
    assert [*load.call_args.args[2]] == ["base", *expected]
    assert rows["run"].tolist() == ["base", *runs], "called as the profile calls them"
    assert load.call_args.args[3] == 2
    assert load.call_args.kwargs == {"compute": True, "hours": 3, "suites": ALL_SUITES}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"methods": "gradcm"}, "gradcm.*gradcam"),
        ({"seeds": "two"}, "two"),
        ({"seeds": 0}, "seeds"),
        ({"hours": 0}, "hours"),
        ({"weight": "much"}, "weight is 'much'"),
        ({"steps": "-1"}, "steps is -1"),
    ],
)
def test_unknown_value_of_a_parameter_is_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        select({"profile": "mini", "seeds": 1} | parameters)
    for methods in ("gradcam, attention", ["attention", "gradcam"], "attention gradcam"):
        page = select({"profile": "mini", "seeds": 1, "methods": methods})
        assert page.methods == {"attention": "attention", "gradcam": "GradCAM"}


def test_verdict_needs_all_items_of_a_suite(home: Path):
    rows = [("aro", "relation", 5, 5), ("aro", "attribution", 4, 5), ("crepe", "atom", 6, 6)]
    frame = pd.DataFrame(rows, columns=["family", "subset", "n_used", "n_expected"])
    frame["suite"] = "benchmarks"
    store.save("subsets", load_profile("mini"), "data", 0, frame, key="k", provenance={})
    page = select({"profile": "mini", "seeds": 1})
    assert page.complete("benchmarks", ["crepe"])
    assert not page.complete("benchmarks") and not page.complete("benchmarks", ["aro"])
    assert not page.complete("retrieval"), "nothing is not all"
