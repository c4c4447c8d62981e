"""Jobs side by side, and what is chosen by them: the learning rate and lambda."""

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
from cae_lib.config import experiment
from cae_lib.data.captions import Pairs
from cae_lib.errors import DataError
from cae_lib.training.distributed import Ranks
from cae_lib.training.objective import Objective


def _where(number: int) -> tuple[int, int, int]:
    return number, os.getpid(), torch.get_num_threads()


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


@pytest.mark.parametrize(("gigabytes", "workers"), [(2, 1), (9, 2), (500, 8)])
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
    tuned = {"gap_attention": 0.1}
    rows = tune.walk(lambda weight: {
        "experiment": "cae-attention", "weight": weight,
        "gap_attention": 0.009 if weight >= enough else 0.011}, tuned)
    assert [found["weight"] for found in rows] == tried
    assert tune.levelling(rows, tuned)["weight"] == min(enough, 100.0)


@pytest.mark.parametrize("profile", ["mini", "photo"])
def test_the_configured_values_are_those_of_the_recorded_sweep(monkeypatch, profile: str):
    monkeypatch.delenv("CAE_HOME", raising=False)
    sweep = results.load("sweep", profile, ["tuning"])
    for found in sweep[sweep["chosen"]].itertuples():
        config = experiment(found.experiment, profile)
        assert (config.lr, config.weight) == (found.lr, np.nan_to_num(found.weight))


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
    scores = tune.validation_scores(Fake(), pairs)
    assert (scores["recall_at_1"], scores["n_negatives"]) == (1.0, 3)
    assert scores["against_negatives"] == pytest.approx(2 / 3)
    assert scores["score"] == pytest.approx(5 / 6)


def test_the_stored_sweep_marks_what_was_chosen(home: Path, monkeypatch, capsys):
    """Of learning rates with equal scores the smallest is chosen; both rows of a rate count."""
    def measured(name: str, profile: str, lr: float, weight: float | None = None,
                 stop_gradient: bool = True, **settings: object) -> dict:
        gap = 0.1 if weight is None or weight < 3.0 else 0.0
        gaps = {f"gap_{method}": gap for method in tune._plain_cae(profile).values()}
        score = 3e-4 * (1 + (weight or 0) + stop_gradient) + (lr if name == "negclip" else -lr)
        return {"experiment": name, "lr": lr, "weight": weight, "score": score} | gaps
    monkeypatch.setattr(tune, "LEARNING_RATES", (3e-4, 1e-4))
    monkeypatch.setattr(tune, "_row", measured)
    monkeypatch.setattr(tune, "training_set", lambda name: None)
    monkeypatch.setattr(tune, "run_jobs", lambda jobs: {
        label: Outcome(job(), 1.0) for label, job in jobs.items()})
    assert main(["tune", "--profile", "smoke"]) == 0
    assert "Chosen: lr 0.0001\nChosen: cae-attention 3\n" in capsys.readouterr().out
    table = results.load("sweep", "smoke", ["tuning"])
    chosen = table[table["chosen"]].set_index("experiment")
    assert chosen["lr"].eq(1e-4).all() and len(chosen) == 6
    assert chosen.loc[["clip-ft", "negclip"], "weight"].isna().all()
    assert chosen["weight"].drop(["clip-ft", "negclip"]).eq(3.0).all()
    found = results.load("candidates", "smoke", ["tuning"]).set_index("candidate")
    assert len(found) == len(tune.CANDIDATES)
    assert list(found.index[found["chosen"]]) == ["counterfactual, stop-gradient, 4"]


if __name__ == "__main__":
    run_jobs({"kill": _kill_main_process, "wait": partial(time.sleep, 600)}, workers=2)
