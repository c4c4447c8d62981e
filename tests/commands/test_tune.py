"""Jobs side by side, and what is chosen by them: settings of the control, lambda, a candidate."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cae_lib import results
from cae_lib.cli import main
from cae_lib.commands import jobs, tune
from cae_lib.commands.jobs import Outcome, run_jobs
from cae_lib.config import Search
from cae_lib.data.captions import Pairs
from cae_lib.errors import DataError
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.selection import smallest_closing, walk
from cae_lib.evaluation.validation import validation_scores
from cae_lib.methods import METHODS
from cae_lib.profiles import experiment, find_profile
from cae_lib.statistics import ANSWERS
from cae_lib.training.distributed import Ranks
from cae_lib.training.objective import Objective


def _where(number: int) -> tuple[int, int, int]:
    return number, os.getpid(), torch.get_num_threads()


def _home() -> tuple[int, str]:
    time.sleep(0.5)  # so that one process does not do all of it
    return os.getpid(), os.environ["CAE_HOME"]


def _kill_main_process() -> None:
    os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)
    time.sleep(600)


def _fail() -> None:
    raise DataError("row 7: expected a number")


def test_jobs_run_in_other_processes_on_one_thread_each_and_keep_their_order(capsys):
    labels = [f"job {n}" for n in range(4)]
    outcomes = run_jobs({name: partial(_where, n) for n, name in enumerate(labels)}, workers=2)
    assert list(outcomes) == labels
    numbers, processes, threads = zip(*(made.value for made in outcomes.values()), strict=True)
    assert numbers == (0, 1, 2, 3) and set(threads) == {1} and os.getpid() not in processes
    printed = capsys.readouterr().out.splitlines()
    assert sorted(line.split(" (")[0] for line in printed) == [f"done: {name}" for name in labels]
    assert run_jobs({"only": partial(_where, 1)})["only"].value[1] == os.getpid()


def test_processes_stay_for_later_jobs_of_one_home(tmp_path, monkeypatch):
    def places() -> set[tuple[int, str]]:
        found = run_jobs({f"{n}": _home for n in range(4)}, workers=2)
        return {made.value for made in found.values()}
    monkeypatch.setenv("CAE_HOME", str(tmp_path))
    first, again = places(), places()
    assert first & again
    monkeypatch.setenv("CAE_HOME", str(tmp_path / "other"))
    assert {home for _, home in first | again} == {str(tmp_path)}
    assert {home for _, home in places()} == {str(tmp_path / "other")}


@pytest.mark.parametrize(("gigabytes", "workers"), [(2, 1), (11, 2), (500, 8)])
def test_a_machine_gets_no_more_workers_than_its_memory_holds(monkeypatch, gigabytes, workers):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": gigabytes * 10**9 // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(jobs, "pick_device", lambda: torch.device("cpu"))
    assert jobs.default_workers() == workers


def test_a_killed_main_process_leaves_no_workers():
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE,
                               start_new_session=True)
    try:
        process.communicate(timeout=600)  # the workers hold the pipe open
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_job_reaches_the_caller(workers: int):
    with pytest.raises(DataError, match="row 7"):
        run_jobs({"bad": _fail} | {f"{n}": partial(_where, n) for n in range(2)}, workers)


@pytest.mark.parametrize(("enough", "tried"), [
    (1.0, [0.3, 1.0]), (0.1, [0.03, 0.1, 0.3, 1.0]), (10.0, [1.0, 3.0, 10.0]),
    (1000.0, [1.0, 3.0, 10.0, 30.0, 100.0])])
def test_lambda_is_sought_only_around_the_smallest_that_levels(enough: float, tried: list):
    """A gap may be a tenth of CLIP-FT's; where no lambda is enough, it is the largest."""
    rows = walk(lambda weight: {"weight": weight, "gap": 0.1 if weight >= enough else 0.11},
                1.0, "gap", Search().weights)
    assert [found["weight"] for found in rows] == tried
    assert smallest_closing(rows, 1.0, "gap")["weight"] == min(enough, 100.0)


@pytest.mark.parametrize(("table", "profile", "settings"), [
    ("calibration", "mini", ("lr", "steps", "lock_image")),
    *(("sweep", profile, ("lr", "weight")) for profile in ("mini", "photo", "side-by-side")),
    *(("binding", profile, ("margin", "weight")) for profile in ("mini", "photo", "side-by-side")),
])
def test_what_is_configured_was_chosen(monkeypatch, table: str, profile: str, settings: tuple):
    """The configured settings are those of the recorded calibration, sweep, bindings."""
    monkeypatch.delenv("CAE_HOME", raising=False)
    found = results.load(table, profile, ["tuning"])
    assert found["chosen"].any()
    for row in found[found["chosen"]].fillna({"weight": 0.0}).itertuples():
        config = experiment(row.experiment, profile)
        assert all(getattr(config, name) == getattr(row, name) for name in settings)


@pytest.mark.parametrize("settings", tune.CANDIDATES.values(), ids=tune.CANDIDATES)
def test_every_candidate_can_be_trained(settings, tiny_clip):
    config = experiment(tune.CHOSEN, "photo", **settings)
    Objective(tiny_clip.model, config, Ranks(), None)


def test_validation_scores_by_hand():
    """Two captions, three negatives: one of them is as close as the caption, which is wrong."""
    class Fake:
        vectors = {"a": (1.0, 0.0), "b": (0.0, 1.0), "c": (0.6, 0.8)}
        def images(self, refs):
            return self.texts([ref.path.name for ref in refs])
        def texts(self, texts):
            return np.array([self.vectors[text] for text in texts], dtype=np.float32)
    pairs = Pairs([Path("a"), Path("b")], ["a", "b"], torch.tensor([0, 1]), "hand", 2, 2,
                  negatives=[["b", "a"], ["c"]])
    scores = validation_scores(Fake(), pairs)
    assert (scores["recall_at_1"], scores["n_negatives"]) == (1.0, 3)
    assert scores["against_negatives"] == pytest.approx(2 / 3)
    assert scores["score"] == pytest.approx(5 / 6)


@pytest.fixture
def rows_by(monkeypatch):
    """Let a function stand in for training and scoring; jobs run one after the other, here."""
    def stand_in(measured):
        monkeypatch.setattr(tune, "_row", measured)
        monkeypatch.setattr(tune, "training_set", lambda name: None)
        monkeypatch.setattr(tune, "run_jobs", lambda jobs: {
            label: Outcome(job(), 1.0) for label, job in jobs.items()})
    return stand_in


@pytest.mark.parametrize(("profile", "opened", "chosen"), [
    ("smoke", 0.65, (3e-4, True)), ("smoke", 0.75, (3e-4, False)), ("paper", 0.75, (1e-6, False))])
def test_the_setting_with_the_best_sum_of_both_scores_is_chosen(
        home: Path, rows_by, profile: str, opened: float, chosen: tuple, capsys, monkeypatch):
    """Either run alone is best at another rate; with other numbers of steps, which are no choice,
    both are better."""
    monkeypatch.setattr(tune, "measure_data", lambda name: None)
    kept, rates = experiment("clip-ft", profile), find_profile(profile).search.rates
    def measured(name: str, profile: str, asked: bool, lr: float, steps: int,
                 lock_image: bool) -> dict:
        assert asked == (profile == "smoke"), "a small world is asked, real data are not"
        values = (0.9, 0.7, 0.4) if name == "clip-ft" else (0.4, 0.7, 0.9)
        score = dict(zip(rates, values, strict=False))
        score = opened if lock_image != kept.lock_image else score.get(lr, 0.4)
        told = {"lr": lr, "steps": steps, "lock_image": lock_image}
        score = score if steps == kept.steps else 1.0
        return {"experiment": name, **told, "weight": None, "score": score}
    rows_by(measured)
    assert main(["tune", "--profile", profile]) == 0
    lr, lock_image = chosen
    settings = f"lr {lr}, steps {kept.steps}, lock_image {lock_image}"
    assert capsys.readouterr().out == f"Chosen: {settings}\n"
    table = results.load("calibration", profile, ["tuning"])
    best = table[table["chosen"]]
    assert set(best["experiment"]) == {"clip-ft", "negclip"} and len(best) == 2
    assert best["lr"].eq(lr).all() and best["lock_image"].eq(lock_image).all()
    assert best["steps"].eq(kept.steps).all()
    assert (table["steps"].nunique() == 1) == (profile == "paper"), "shares of the steps"
    others = table[table["lock_image"] != kept.lock_image]
    assert len(others) == 2 * (profile == "smoke"), "what is open already is not opened"
    tried = table.groupby("experiment")[["lr", "steps", "lock_image"]].apply(
        lambda rows: sorted(rows.itertuples(index=False, name=None)))
    assert tried["clip-ft"] == tried["negclip"] and len({*tried["negclip"]}) == len(table) / 2


def test_in_a_small_world_the_calibration_asks_the_benchmarks(
        home: Path, smoke_world: Path, rows_by, monkeypatch, tiny_clip):
    """Here with a model that is right in one family of seven, and chooses nothing by it."""
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    def right_in_aro(parts, encoder):
        items = results.load("items", "smoke", [results.DATA])
        return items[[*ANSWERS]].assign(correct=items["family"] == "aro")
    monkeypatch.setattr(tune, "answers", right_in_aro)
    def measured(name: str, profile: str, asked: bool, **settings: object) -> dict:
        found = tune._asked(Encoder(tiny_clip), profile) if asked else {}
        return {"experiment": name, **settings, "score": 0.5} | found
    rows_by(measured)
    assert main(["tune", "--profile", "smoke"]) == 0
    table = results.load("calibration", "smoke", ["tuning"])
    assert table["ARO-R"].to_numpy() == pytest.approx(1)
    assert table["ARO-A"].to_numpy() == pytest.approx(1)
    assert table["mean"].to_numpy() == pytest.approx(1 / 7)


def test_of_each_method_the_smallest_lambda_that_levels_is_chosen(home: Path, rows_by, capsys):
    def measured(name: str, profile: str, weight: float | None = None) -> dict:
        gap = 0.1 if weight is None or weight < (3.0 if name == "cae-attention" else 0.3) else 0.0
        gaps = {f"gap_{method}": gap for method in METHODS}
        return {"experiment": name, "lr": 1e-3, "weight": weight, "score": -(weight or 0)} | gaps
    rows_by(measured)
    assert main(["tune", "--profile", "smoke", "--what", "lambda"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Chosen: cae-attention 3" and len(lines) == len(METHODS)
    table = results.load("sweep", "smoke", ["tuning"])
    chosen = table[table["chosen"]].set_index("experiment")["weight"]
    assert len(chosen) == 1 + len(METHODS) and np.isnan(chosen["clip-ft"])
    assert chosen["cae-attention"] == 3.0
    assert chosen.drop(["clip-ft", "cae-attention"]).eq(0.3).all()
    tried = table.groupby("experiment")["weight"].apply(sorted)
    assert tried["cae-attention"] == [1, 3] and tried["cae-gradcam"] == [0.1, 0.3, 1]


@pytest.mark.parametrize("gap", [0.0, -0.02, float("nan")])
@pytest.mark.parametrize("profile", ["smoke", "paper"])
def test_where_clip_ft_has_no_gap_nothing_is_chosen(
        home: Path, rows_by, capsys, profile: str, gap: float):
    """By GradCAM it has none: nothing is trained for it, and the other methods are as ever."""
    trained = []
    def measured(name: str, profile: str, weight: float | None = None) -> dict:
        trained.append((name, weight))
        gaps = {f"gap_{method}": 0.1 if weight is None or weight < 0.3 else 0.0
                for method in METHODS}
        return {"experiment": name, "lr": 1e-3, "weight": weight, "score": 0.5} | gaps | {
            "gap_gradcam": gap}
    rows_by(measured)
    before = experiment("cae-gradcam", profile)
    assert main(["tune", "--profile", profile, "--what", "lambda"]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "gradcam" in line]
    assert len(told) == 1, "it is said, once"
    assert not any(name == "cae-gradcam" for name, _ in trained)
    table = results.load("sweep", profile, ["tuning"])
    assert not table["experiment"].eq("cae-gradcam").any()
    chosen = table[table["chosen"]].set_index("experiment")["weight"]
    assert chosen.drop("clip-ft").to_dict() == {
        f"cae-{method}": 0.3 for method in METHODS if method != "gradcam"}
    assert experiment("cae-gradcam", profile) == before
    if profile == "paper":  # where data are real, later runs take what was chosen
        assert experiment("cae-attention", profile).weight == 0.3
        assert experiment("negclip-cae-gradcam", profile).weight == before.weight


def test_where_clip_ft_has_no_gap_by_any_method_nothing_is_chosen(home: Path, rows_by):
    def measured(name: str, profile: str, weight: float | None = None) -> dict:
        assert name == "clip-ft"
        return {"experiment": name, "lr": 1e-3, "weight": weight, "score": 0.5} | {
            f"gap_{method}": -1e-3 for method in METHODS}
    rows_by(measured)
    before = {method: experiment(f"cae-{method}", "paper") for method in METHODS}
    assert main(["tune", "--profile", "paper", "--what", "lambda"]) == 0
    assert results.load("sweep", "paper", ["tuning"])["experiment"].tolist() == ["clip-ft"]
    assert {method: experiment(f"cae-{method}", "paper") for method in METHODS} == before


def test_the_candidate_with_the_best_score_is_chosen(home: Path, rows_by, capsys):
    def measured(name: str, profile: str, weight: float, stop_gradient: bool,
                 **settings: object) -> dict:
        return {"experiment": name, "weight": weight, "score": weight + stop_gradient}
    rows_by(measured)
    assert main(["tune", "--profile", "smoke", "--what", "candidates"]) == 0
    best = "counterfactual, stop-gradient, 4"
    assert best in capsys.readouterr().out
    found = results.load("candidates", "smoke", ["tuning"]).set_index("candidate")
    assert set(found.index) == set(tune.CANDIDATES) and list(found.index[found["chosen"]]) == [best]
    assert found["experiment"].eq(tune.CHOSEN).all()


def test_the_bindings_with_the_best_score_are_chosen_and_no_row_beside_them(home: Path, rows_by):
    def measured(name: str, profile: str, margin: float = 0, weight: float = 0, **_) -> dict:
        score = 1.0 if name != tune.BOUND else 0.5 + 0.1 * (margin == 0.1) + 0.1 * (weight == 5)
        return {"experiment": name, "margin": margin, "weight": weight, "score": score}
    rows_by(measured)
    assert main(["tune", "--profile", "smoke", "--what", "binding"]) == 0
    found = results.load("binding", "smoke", ["tuning"])
    assert len(found) == 12 + 2
    (best,) = found[found["chosen"]].itertuples()
    assert (best.experiment, best.margin, best.weight) == (tune.BOUND, 0.1, 5)


if __name__ == "__main__":
    run_jobs({"kill": _kill_main_process, "wait": partial(time.sleep, 600)}, workers=2)
