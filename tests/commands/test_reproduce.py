"""What `cae reproduce` runs, with the studies and without; and what SIGTERM does to it."""

import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pandas as pd
import pytest
import torch

from cae_lib import results
from cae_lib.cli import main
from cae_lib.commands import jobs, perform, reproduce
from cae_lib.commands.jobs import Outcome
from cae_lib.errors import DataError
from cae_lib.grid import (
    CONTROL_SUITES,
    HARD_SUITES,
    OF_STUDIES,
    STUDY_PAGES,
    STUDY_SUITES,
    Choice,
    Job,
    grid,
)
from cae_lib.methods import METHODS
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import load_clip
from cae_lib.profiles import find_profile
from cae_lib.runs import checkpoint_path
from cae_lib.training.state import read_log
from cae_lib.variants import base_variants, run_name, study_runs


def steps_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[list[str]]:
    """The labels of the jobs of each step, in their order."""
    found = []
    def run_jobs(jobs):
        found.append(list(jobs))
        return {label: Outcome(None, 3000.0) for label in jobs}
    monkeypatch.delenv("CAE_HOME", raising=False)  # the pages are the repository's
    monkeypatch.setattr(reproduce, "run_jobs", run_jobs)
    assert main(["reproduce", *words]) == 0
    return found


def test_the_studies_and_their_pages_are_run_on_request(monkeypatch, capsys):
    plain, whole = (steps_of(monkeypatch, "--profile", "mini", *more) for more in ([], ["--all"]))
    left_out = [set(after) - set(before) for before, after in zip(plain, whole, strict=True)]
    rows = ("cae-counterfactual", "placebo-counterfactual", "random-perturbation", "wrong-binding",
            "kept-binding", "softmax-binding", "hinge-negclip", "negclip-binding",
            *(f"negclip-placebo-{method}" for method in METHODS))
    ours = {f"run/{row}/{seed}" for row in rows for seed in range(3)}
    assert left_out == [
        set(), {"captions/coco+dependency", "captions/kept+scene-graph"},
        {f"run/{variant.name('mini')}/{seed}" for variant, seed in study_runs("mini")} | ours,
        {"page/what-decides", "page/quickgelu", "page/faithfulness", "page/blind"}, set(), set(),
    ]
    assert all(set(before) <= set(after) for before, after in zip(plain, whole, strict=True))
    assert not any("+" in label for label in plain[2])
    assert plain[-2:] == whole[-2:] == [["page/status"], ["book/book"]]
    told = [line for line in capsys.readouterr().out.splitlines() if "--all" in line]
    left = (*rows, *STUDY_PAGES, *OF_STUDIES)
    assert len(told) == 1 and all(name in told[0] for name in left)


def test_the_time_told_is_what_passed_and_no_sum_over_jobs(monkeypatch, capsys):
    """Every job took fifty minutes, all of them side by side forty-two, seven each of six steps."""
    clock = SimpleNamespace(monotonic=iter([1000.0 + 420 * n for n in range(7)]).__next__)
    monkeypatch.setattr(reproduce, "time", clock, raising=False)
    steps_of(monkeypatch, "--profile", "mini")
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if "All steps" in line and "42 min 00 s" in line]
    assert sum(": 7 min 00 s" in line for line in told) == 6


@pytest.mark.parametrize("profile", ["photo", "smoke"])
def test_elsewhere_no_studies_are_apart(monkeypatch, profile):
    plain, whole = (steps_of(monkeypatch, "--profile", profile, *more) for more in ([], ["--all"]))
    assert plain == whole and "run/cae-counterfactual/0" in plain[2]


@pytest.mark.parametrize("studies", [False, True])
def test_bases_of_fewer_steps_and_further_suites_are_measured_for_the_studies(monkeypatch, studies):
    found, without = [], () if studies else OF_STUDIES
    def measure_run(name, profile, seed, fresh, only=(), left_out=(), **settings):
        found.append((run_name(name, profile, **settings), tuple(only), left_out))
    monkeypatch.setattr("cae_lib.measuring.measure_run", measure_run)
    monkeypatch.setattr("cae_lib.runs.train_run", lambda *_, **__: None)
    choice = Choice(studies)
    known = grid("mini", choice)

    def measure(label: str) -> None:
        perform.perform("mini", choice, f"run/{label}", known[f"run/{label}"])

    measure("base/0")
    bases = [v.name("mini") for v in base_variants("mini") if v.run == "base"]
    assert len(bases) > 1
    whole = [("base", (), without), ("base-gelu", (), without)]
    whole += [(name, STUDY_SUITES, ()) for name in bases]
    assert found == (whole if studies else whole[:1])
    measure("clip-ft/1")
    plain = ("clip-ft", (), without)
    assert found[-2:] == [plain, ("clip-ft-gelu", (), ())] if studies else found[-1] == plain
    shown = {"cae-attention": (), "cae-binding": (), "negclip": HARD_SUITES}
    shown |= {"placebo-attention": CONTROL_SUITES,
              "negclip-cae-attention": HARD_SUITES}
    if not studies:
        shown |= {name: tuple(suite for suite in suites if suite != "attribution")
                  for name, suites in shown.items() if "attention" in name}
    for name, suites in shown.items():
        measure(f"{name}/1")
        assert found[-1] == (name, suites, without)


def test_a_page_is_run_again_when_something_that_it_shows_has_changed(book_home, monkeypatch):
    experiments = book_home / "book" / "experiments"
    ran, count = [], itertools.count()
    (experiments / "status.md").write_text((experiments / "page.md").read_text())

    def run_page(name: str, given: dict[str, str], profile: str | None) -> Path:
        ran.append(name)
        path = experiments / f"{name}.ipynb"
        path.write_text(f"run {next(count)}")
        return path

    def runs(profile: str = "mini", seeds: int = 3) -> list[str]:
        ran.clear()
        for name in ("page", "status"):
            perform.perform(profile, Choice(seeds=seeds), f"page/{name}", Job())
        return ran

    def measure(seconds: int) -> None:
        results.save("t", "base", 0, pd.DataFrame({"a": [1]}), "mini", key="same",
                     provenance={"wall_seconds": seconds})

    monkeypatch.setattr(perform, "run_page", run_page)
    measure(1)
    assert runs() == ["page", "status"] and runs() == []
    results.collect("mini")
    assert runs() == [], "the same rows in another file"
    measure(2)
    assert runs() == ["page", "status"] and runs() == []
    text = experiments / "page.md"
    for path in (text, text.with_suffix(".ipynb")):
        path.write_text(path.read_text() + "more")
        assert runs() == ["page", "status"] and runs() == []
    text.with_suffix(".ipynb").unlink()
    assert runs() == ["page", "status"] and runs() == []
    (experiments / "status.ipynb").unlink()
    assert runs() == ["status"]
    for seeds in (3, 1):  # of another profile, and with other parameters
        assert runs("smoke", seeds) == ["page", "status"] and runs("smoke", seeds) == []


def test_captions_are_parsed_once_for_each_file_and_tagger(home, monkeypatch):
    parsed = Mock()
    monkeypatch.setattr(perform, "training_set", parsed)

    def times(label: str = "coco+scene-graph") -> int:
        perform.perform("mini", Choice(), f"captions/{label}", Job())
        return parsed.call_count

    file = find_profile("mini").root / "coco" / "train_neg_clip.tsv"
    file.parent.mkdir(parents=True)
    file.write_text("title")
    assert times() == times() == 1
    assert times("coco+dependency") == 2 and times("kept+scene-graph") == 3
    os.utime(file, ns=(1, 1))
    assert times() == times() == 4
    parsed.side_effect = DataError("a row is broken")
    os.utime(file, ns=(2, 2))
    for _ in range(2):
        with pytest.raises(DataError):
            times()



TWO_TRAININGS = """\
import sys

from cae_lib import grid
from cae_lib.cli import main
from cae_lib.variants import Variant

STEPS = (1, 800)  # a state is written after each 200
RUNS = {steps: Variant("clip-ft", {"steps": steps, "batch_size": 4}) for steps in STEPS}
JOBS = {f"run/{run.name('smoke')}/0": grid.Job((), run, 0, ("retrieval",))
        for run in RUNS.values()}

if __name__ == "__main__":
    grid.grid = lambda *_: JOBS
    sys.exit(main())
"""


def workers_of(pid: int) -> list[int]:
    """The processes that a process has started for its jobs."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True)
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == pid and "spawn_main" in row[2]]


def test_sigterm_ends_the_workers_and_the_same_command_goes_on(home, smoke_world):
    """The signal goes to the process alone, not to its workers."""
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(smoke_world.parent)
    meta = CheckpointMeta("clip-mini", "quickgelu")
    save_checkpoint(checkpoint_path("base", "smoke"), load_clip("clip-mini", seed=3), meta)
    script = home / "two_trainings.py"
    script.write_text(TWO_TRAININGS, encoding="utf-8")
    words = ["reproduce", "--profile", "smoke"]

    def start() -> subprocess.Popen:
        return subprocess.Popen([sys.executable, script, *words], text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def made(pattern: str) -> list[Path]:
        return list(home.glob(f"data/{pattern}"))

    first = start()
    while not made("checkpoints/smoke/variants/*/state.pt") or not made(
            "cache/staged/smoke/retrieval/clip-ft+*steps=1*/0.parquet"):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    workers = workers_of(first.pid)
    first.send_signal(signal.SIGTERM)
    text, _ = first.communicate(timeout=600)
    assert first.returncode == 143, text
    assert "Traceback" not in text and "resource_tracker" not in text
    assert shlex.join(["cae", *words]) in text.splitlines()[-1], "what to call again"
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    (state,) = made("checkpoints/smoke/variants/*/state.pt")
    step = torch.load(state, weights_only=True)["step"]
    again = start()
    text, _ = again.communicate(timeout=600)
    assert again.returncode == 0, text
    assert text.count("Training clip-ft") == 1 and f"from step {step}" in text
    for log in made("checkpoints/smoke/variants/*/log.jsonl"):
        steps = [line["step"] for line in read_log(log)]
        assert steps == list(range(1, len(steps) + 1)) and len(steps) in (1, 800)


def test_a_worker_that_was_interrupted_takes_no_further_job(monkeypatch):
    """The executor hands out jobs ahead."""
    monkeypatch.setattr(jobs._Worker, "interrupted", False)
    further = Mock()
    for action in (Mock(side_effect=KeyboardInterrupt), further):
        with pytest.raises(KeyboardInterrupt):
            jobs._work(action, ())
    assert not further.called
