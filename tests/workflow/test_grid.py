"""The grid as data: what is in it, in which order, and that Snakemake's is the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from cae_lib.cli import main, parse
from cae_lib.commands import plan, stamps, workflow
from cae_lib.commands.options import chosen
from cae_lib.config import paths
from cae_lib.errors import ConfigError
from cae_lib.grid import OF_BINDINGS, Choice, Job, grid, levels
from cae_lib.methods import METHODS
from cae_lib.profiles import choose, experiment, find_profile
from cae_lib.variants import find_run, run_name

PROFILES = ("smoke", "mini", "photo", "paper")
ROWS = ["clip-ft", "negclip", "cae-binding", "placebo-binding", *OF_BINDINGS,
        *(f"{kind}-{method}" for kind in ("cae", "negclip-cae", "placebo") for method in METHODS)]


@pytest.mark.parametrize("name", PROFILES)
def test_every_job_comes_after_those_that_it_needs(name: str):
    jobs = grid(name, Choice(studies=True))
    before: set[str] = set()
    for label, job in jobs.items():
        assert set(job.needs) <= before, label
        before.add(label)
    steps = levels(jobs)
    assert sorted(label for step in steps for label in step) == sorted(jobs)
    place = {label: number for number, step in enumerate(steps) for label in step}
    assert all(place[other] < place[label] for label in jobs for other in jobs[label].needs)


def test_the_paper_has_all_rows_three_times_after_its_settings_were_chosen():
    jobs = grid("paper", Choice())
    runs = {label for label in jobs if label.startswith("run/")}
    assert runs == {"run/base/0"} | {f"run/{row}/{seed}" for row in ROWS for seed in range(3)}
    assert {f"chosen/{what}" for what in ("control", "lambda", "binding")} <= set(
        jobs["run/clip-ft/0"].needs)
    assert "chosen/control" in jobs["tune/lambda/cae-gradcam"].needs
    rates = {job.experiment("paper").lr for label, job in jobs.items()
             if label.startswith("tune/control/")}
    assert rates == set(find_profile("paper").search.rates) and len(rates) > 2
    more = grid("paper", Choice(studies=True))
    assert "run/dependency-attention/2" in more and "run/random-perturbation/0" in more


def test_what_was_chosen_is_what_later_runs_take(home):
    before = {name: experiment(name, "paper") for name in ROWS}
    choose("paper", lr=5e-6)
    choose("paper", weights=dict.fromkeys(METHODS, 0.25), margin=0.2, binding=2.5)
    after = {name: experiment(name, "paper") for name in ROWS}
    assert {config.lr for config in after.values()} == {5e-6} != {before["clip-ft"].lr}
    assert after["negclip-cae-gradcam"].weight == 0.25
    assert (after["placebo-binding"].margin, after["placebo-binding"].weight) == (0.2, 2.5)
    labels = [list(grid("paper", Choice())), None]
    choose("paper", lr=1e-5)
    assert labels[0] == list(grid("paper", Choice())), "names of jobs stay while a grid runs"


def test_some_rows_alone_with_settings_and_seeds():
    asked = ("clip-ft+lr=5e-07+steps=2", "cae-attention")
    jobs = grid("mini", Choice(rows=asked, seeds=2))
    assert [label for label in jobs if label.startswith("run/")] == [
        "run/base/0", "run/cae-attention/0", f"run/{asked[0]}/0", "run/cae-attention/1",
        f"run/{asked[0]}/1"]
    assert not any(label.startswith(("page/", "book/")) for label in jobs)
    config = jobs[f"run/{asked[0]}/1"].experiment("mini")
    assert (config.lr, config.steps, config.seed) == (5e-7, 2, 1)
    row, settings = find_run(asked[0], "mini")
    assert run_name(row, "mini", **settings) == asked[0]
    most = find_profile("mini").seeds
    more = grid("mini", Choice(rows=("clip-ft",), seeds=most + 2))
    assert [label for label in more if label.startswith("run/clip-ft")] == [
        f"run/clip-ft/{seed}" for seed in range(most)]
    for wrong in ("no-row", "clip-ft+rate=1", "clip-ft+steps=1.5"):
        with pytest.raises(ConfigError):
            grid("mini", Choice(rows=(wrong,)))


@pytest.mark.parametrize("words", [
    ("--profile", "mini"), ("--profile", "paper", "--seeds", "1", "--allow-missing", "all"),
    ("--profile", "smoke", "--rows", "clip-ft,cae-binding"),
    ("--profile", "paper", "--released", "released-clip,released-negclip")])
def test_snakemake_has_the_same_jobs(words: tuple[str, ...], tmp_path: Path):
    pytest.importorskip("snakemake", reason="the extra `cluster` is not installed")
    parsed = parse(["plan", *words])
    jobs = grid(parsed.profile, chosen(parsed))
    command = workflow.command(parsed.profile, chosen(parsed), "local", parsed.allow_missing)
    listed = subprocess.run([*command, "--directory", tmp_path, "--dry-run"], text=True,
                            capture_output=True, env=workflow.environment("local"), check=True)
    assert set(re.findall(r"output: stamps/(\S+)\.done", listed.stdout)) == set(jobs)
    needs = re.findall(r"input: (.*)\n +output: stamps/(\S+)\.done", listed.stdout)
    found = {name: set(re.findall(r"stamps/(\S+)\.done", text)) for text, name in needs}
    assert found == {label: set(job.needs) for label, job in jobs.items() if job.needs}


def test_costs_follow_from_what_a_step_costs(monkeypatch):
    monkeypatch.delenv("CAE_HOME", raising=False)
    costs = {"clip-ft": 1.0, "gradcam": 1.2, "images": 0.8, "binding": 1.1}
    found = {name: plan.cost(experiment(name, "paper"), costs)
             for name in ("clip-ft", "cae-gradcam", "negclip", "negclip-cae-gradcam")}
    assert found == pytest.approx({"clip-ft": 1, "cae-gradcam": 1.2, "negclip": 2.4,
                                   "negclip-cae-gradcam": 2.8})
    jobs = {"run/cae-gradcam/0": Job((), find_variant("cae-gradcam"))}
    table = plan.hours("paper", jobs)
    measured = plan.step_costs()["gradcam"] / plan.step_costs()["clip-ft"]
    assert table["hours"].tolist() == pytest.approx([plan.HOURS * measured + plan.MEASURING])


def find_variant(name: str):
    return grid("paper", Choice(rows=(name,)))[f"run/{name}/0"].variant


def test_the_plan_says_what_is_missing_and_counts_what_is_done(home, capsys):
    assert main(["plan", "--profile", "paper"]) == 1
    told = capsys.readouterr().out
    assert "cae data get" in told and "negclip-captions: not here" in told and ", 0 done" in told
    job = grid("paper", Choice())["run/clip-ft/0"]
    place = workflow.stamp_path("paper", "run/clip-ft/0")
    place.parent.mkdir(parents=True)
    place.write_text(workflow.key_of("paper", job))
    assert workflow.state_of("paper", "run/clip-ft/0", job) == "done"
    main(["plan", "--profile", "paper"])
    assert ", 1 done" in capsys.readouterr().out
    choose("paper", lr=5e-6)
    job = grid("paper", Choice())["run/clip-ft/0"]
    assert workflow.state_of("paper", "run/clip-ft/0", job) == "stale"


def test_other_data_make_stamps_stale(home):
    for name, place in {"smoke": "world-smoke/manifest.json",
                        "paper": "sugar-crepe/data/add_att.json"}.items():
        job = grid(name, Choice())["run/clip-ft/0"]
        keys = {workflow.key_of(name, job)}
        path = paths().raw / place
        path.parent.mkdir(parents=True)
        for content in ('{"counts": {}}', '{"counts": {}, "0": {}}'):
            path.write_text(content)
            stamps._real_data.cache_clear()  # another process would read anew
            keys.add(workflow.key_of(name, job))
        assert len(keys) == 3 and workflow.key_of(name, job) in keys


def test_the_paper_without_data_says_so_before_anything_runs(home, capsys):
    assert main(["reproduce", "--profile", "paper"]) == 2
    told = capsys.readouterr().err
    assert "data are missing" in told and "cae data get" in told
    assert not (home / "runs").exists() and not list(home.rglob("*.safetensors"))


def test_gpus_are_taken_one_by_one(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    code = ("import os, sys\nfrom cae_lib.commands.workflow import own_gpu\n"
            "with own_gpu():\n print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
            " sys.stdin.readline()\n")
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    assert {process.stdout.readline().strip() for process in started} == {"4", "7"}
    third = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    started[0].kill()  # a lock ends with its process
    assert third.stdout.readline().strip() in {"4", "7"}
    for process in (*started, third):
        process.kill()
        process.wait()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with workflow.own_gpu():
        assert workflow.gpus() == ["3"]
