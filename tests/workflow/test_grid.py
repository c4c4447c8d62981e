"""What a reproduction consists of, and what of it Snakemake does again."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock, call

import job
import pytest
import yaml
from conftest import REPOSITORY

from book.extension.build import live_folder
from book.extension.source import page_names
from book.studies import ALL_SUITES
from cae_lab import grid, machine
from cae_lab.cli import main
from cae_lab.commands import reproduce
from cae_lab.grid import Selection
from cae_lab.machine import exclusive_gpu, find_gpus, shares_cpu
from cae_lab.profiles import load_profile
from cae_lab.runs import Run
from cae_lab.suites import Suite, suites_of
from cae_lib.config import paths
from cae_lib.errors import ConfigError
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.clip import load_clip

ROWS = [
    "clip-ft",
    "negclip",
    "cae-binding",
    "placebo-binding",
    "wrong-binding",
    "kept-binding",
    "softmax-binding",
    "hinge-negclip",
    "negclip-binding",
    *(f"{kind}-{method}" for kind in ("cae", "negclip-cae", "placebo") for method in PAPER_METHODS),
]
WORDS = "words/coco/scene-graph"


def choose(profile: str, **config: object) -> Selection:
    """Return what a reproduction of a profile with this configuration consists of."""
    return grid.parse_selection(load_profile(profile), config)


def test_the_paper_has_all_runs_three_times():
    planned = grid.planned_runs(choose("paper"))
    assert planned.keys() == {"data/0", "base/0"} | {
        f"{row}/{seed}" for row in ROWS for seed in range(3)
    }
    more = grid.planned_runs(choose("paper", all=True))
    assert "dependency-attention/2" in more and "random-perturbation/0" in more


def test_some_rows_alone_with_settings_and_seeds():
    asked = ("clip-ft+lr=5e-07+steps=2", "cae-attention")
    selection = choose("mini", runs=",".join(asked), seeds=2)
    planned = grid.planned_runs(selection)
    assert list(planned) == [
        "data/0",
        "base/0",
        f"{asked[0]}/0",
        "cae-attention/0",
        f"{asked[0]}/1",
        "cae-attention/1",
    ]
    assert grid.pages_of(selection) == []
    config = planned[f"{asked[0]}/1"].config
    assert (config.lr, config.steps, config.seed) == (5e-7, 2, 1)
    most = load_profile("mini").seeds
    more = grid.planned_runs(choose("mini", runs="clip-ft", seeds=most + 2))
    assert [name for name in more if name.startswith("clip-ft")] == [
        f"clip-ft/{seed}" for seed in range(most)
    ]
    for wrong in ("no-row", "clip-ft+rate=1", "clip-ft+steps=1.5"):
        with pytest.raises(ConfigError):
            grid.planned_runs(choose("mini", runs=wrong))


def test_the_studies_are_added_on_request(monkeypatch):
    monkeypatch.delenv("CAE_HOME", raising=False)  # the pages are the repository's
    plain, whole = (choose("mini", all=studies) for studies in (False, True))
    profile = load_profile("mini")
    assert {"kept-binding", "dependency-gradcam", "truth-attention"} <= profile.studies
    more = grid.planned_runs(whole).keys() - grid.planned_runs(plain).keys()
    seeds = (
        dict.fromkeys(profile.studies, 3) | profile.variants | {"base-gelu": 1, "clip-ft-gelu": 3}
    )
    assert more == {f"{name}/{seed}" for name, count in seeds.items() for seed in range(count)}
    assert {*grid.pages_of(whole)} - {*grid.pages_of(plain)} == {
        "quickgelu",
    }
    for selection, words in ((plain, 3), (whole, 6)):
        runs = grid.planned_runs(selection).values()
        assert len({name for run in runs for name in grid.words_of(run)}) == words
    for name in ("photo", "smoke"):  # whose studies are not apart
        assert choose(name) == choose(name, all=True)


def test_a_control_of_weights_follows_the_run_that_trains_them():
    planned = grid.planned_runs(choose("mini", all=True))
    jobs = dict(grid.jobs(choose("mini", all=True)))
    assert grid.runs_before(jobs["clip-ft-gelu"], planned) == jobs["clip-ft"]
    assert grid.runs_before(jobs["base-gelu"], planned) == ["base/0"]
    assert grid.runs_before(jobs["clip-ft"], planned) == []
    alone = grid.planned_runs(choose("mini", runs="clip-ft-gelu"))
    assert grid.runs_before(["clip-ft-gelu/0"], alone) == [], "it is trained for the control"


def test_a_profile_makes_the_pages_that_show_it_and_smoke_makes_all(monkeypatch):
    monkeypatch.delenv("CAE_HOME", raising=False)
    pages = {
        name: {*grid.pages_of(choose(name, all=True))}
        for name in ("photo", "paired", "mini", "smoke", "paper", "rehearsal")
    }
    assert pages["photo"] == {"photographs", "word-roles", "reproducibility"}
    assert pages["paired"] == {"paired", "reproducibility"}
    assert pages["smoke"] - pages["mini"] == {"photographs", "word-roles", "paired"}
    assert pages["smoke"] == {*page_names()} and "reproducibility" in pages["mini"]
    assert (
        pages["rehearsal"]
        == pages["paper"]
        == {
            "accuracy",
            "attribution",
            "bindings",
            "retrieval-and-text",
        }
    )


def test_the_list_of_pages_names_the_profile_that_each_page_shows():
    pages = yaml.safe_load((REPOSITORY / "book" / "pages.yml").read_text())
    assert {*pages} == {*page_names()}
    for name, page in pages.items():
        text = (REPOSITORY / "book" / "experiments" / f"{name}.md").read_text()
        assert f'profile: str = "{page["profile"]}"' in text, name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base", "all"),
        ("cae-attention", "all but sensitivity"),
        ("cae-binding", "all but sensitivity"),
        ("negclip", "benchmarks retrieval attribution bindings phrases"),
        ("negclip-cae-attention", "benchmarks retrieval attribution bindings phrases"),
        ("placebo-attention", "benchmarks retrieval attribution bindings"),
        ("dependency-gradcam", "benchmarks retrieval attribution bindings"),
        ("hinge-negclip", "benchmarks retrieval attribution bindings"),
        ("cae-attention+foils=exchanged", "benchmarks retrieval attribution bindings"),
        ("cae-gradcam+weight=0.3", "benchmarks attribution"),
        ("base+steps=300", "benchmarks attribution"),
        ("base-gelu", "benchmarks retrieval"),
        ("clip-ft-gelu", "benchmarks retrieval"),
    ],
)
def test_what_is_measured_of_a_run(name: str, expected: str):
    run = load_profile("mini").run(name)
    suites = {suite.name for suite in suites_of(run, ALL_SUITES)}
    every = {suite.name for suite in ALL_SUITES.values() if suite.of}
    if expected.startswith("all"):
        assert every - suites == {*expected.split()[2:]}
    else:
        assert suites == {*expected.split()}
    plain = {suite.name for suite in suites_of(run, ALL_SUITES, with_studies=False)}
    assert suites - plain == suites & {"faithfulness", "sensitivity"}
    assert not {"zero_shot", "heatmaps"} & {
        suite.name for suite in suites_of(load_profile("photo").run("base"), ALL_SUITES)
    }


def test_a_run_is_trained_and_then_measured_anew(monkeypatch):
    done = []

    def measure(run: Run, suites: list[Suite], *, remeasure: bool) -> None:
        done.append((run.name, {suite.name for suite in suites} & {"faithfulness"}, remeasure))

    monkeypatch.setattr("cae_lab.measuring.measure", measure)
    monkeypatch.setattr(
        "cae_lab.measuring.measure_data",
        lambda profile, *, remeasure: done.append((profile.name, remeasure)),
    )
    monkeypatch.setattr(Run, "train", lambda run: done.append(run.name))
    for name, studies in (("data", True), ("base", False), ("clip-ft", False), ("clip-ft", True)):
        job.train_and_measure(load_profile("mini").run(name), studies)
    job.train_and_measure(load_profile("paper").run("released-clip"), False)
    assert done == [
        ("mini", True),
        ("base", set(), True),
        "clip-ft",
        ("clip-ft", set(), True),
        "clip-ft",
        ("clip-ft", {"faithfulness"}, True),
        ("released-clip", set(), True),
    ]


def test_a_page_gets_the_profile_and_as_many_seeds_as_were_run(monkeypatch):
    calls = []
    monkeypatch.setattr("book.extension.run.run_page", lambda *words: calls.append(words))
    monkeypatch.delenv("CAE_HOME", raising=False)
    job.execute_page(choose("mini", seeds=1), "accuracy")
    job.execute_page(choose("rehearsal"), "accuracy")
    job.execute_page(choose("smoke", seeds=2), "accuracy")
    job.execute_page(choose("smoke"), "use-it")
    assert calls == [
        ("accuracy",),
        ("accuracy", "rehearsal", 1),
        ("accuracy", "smoke", 2),
        ("use-it", "smoke", 3),
    ]


STUB = """
import pathlib, sys, time
for output in sys.argv[3:]:
    pathlib.Path(output).write_text(str(time.time()))
"""


class Copy:
    """A copy of the repository whose jobs do nothing but say that they were done."""

    runs = "clip-ft,cae-gradcam"

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        for name in (
            "cae_lib",
            "cae_bench",
            "cae_lab",
            "configs",
            "workflow",
            "book",
            "data/recipes",
        ):
            shutil.copytree(
                REPOSITORY / name,
                folder / name,
                ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"),
            )
        shutil.copy(REPOSITORY / "pyproject.toml", folder)
        (folder / "workflow" / "job.py").write_text(STUB)

    def call(self, *words: str, **config: object) -> str:
        assignments = [f"{key}={value}" for key, value in ({"profile": "smoke"} | config).items()]
        environment = os.environ | {"PYTHONPATH": str(self.folder), "CAE_HOME": str(self.home)}
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *words, "--cores", "2", "--config", *assignments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def left(self, **config: object) -> set[str]:
        """What a dry run would do."""
        listed = self.call("--dry-run", **config)
        outputs = re.findall(r"^ +output: (\S+/done\.json(?:, \S+)*)$", listed, re.MULTILINE)
        return {path.removesuffix("/done.json") for line in outputs for path in line.split(", ")}

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    pytest.importorskip("snakemake", reason="the extra `book` is not installed")
    return Copy(tmp_path)


def test_a_key_changes_with_what_decides_the_results_of_a_run(monkeypatch):
    selection = choose("smoke", runs="clip-ft,cae-gradcam", seeds=1)
    profile = load_profile("smoke")

    def keys() -> dict[str, str]:
        first = {"data": grid.data_key(selection), "base": grid.base_key(selection)}
        return first | {
            name: grid.run_key(
                run, suites_of(run, ALL_SUITES, False) if run.entry != "data" else []
            )
            for name, run in grid.planned_runs(selection).items()
        }

    def changed(mapping: object, name: str, value: object) -> set[str]:
        """The products whose key is another one with another value."""
        before = keys()
        with monkeypatch.context() as patch:
            set_value = patch.setitem if isinstance(mapping, dict) else patch.setattr
            set_value(mapping, name, value)
            after = keys()
        return {product for product in before if before[product] != after[product]}

    runs = {"data/0", "base/0", "clip-ft/0", "cae-gradcam/0"}
    assert keys().keys() == runs | {"data", "base"}
    assert changed(profile.runs["cae-gradcam"], "weight", 2.0) == {"cae-gradcam/0"}
    assert changed(profile.training, "steps", 4) == {"clip-ft/0", "cae-gradcam/0"}
    assert changed(grid, "TRAINING_VERSION", 2) == {"clip-ft/0", "cae-gradcam/0"}
    newer = replace(ALL_SUITES["retrieval"], version=2)
    assert changed(ALL_SUITES, "retrieval", newer) == runs - {"data/0"}
    newer = replace(ALL_SUITES["validation"], version=2)
    assert changed(ALL_SUITES, "validation", newer) == set(), "no suite of runs"
    assert changed(grid, "DATA_VERSION", 2) == {"data/0"}
    assert changed(profile.base, "tower_steps", 3) == {"base"}
    assert grid.data_key(selection, "other scenes") != keys()["data"]


def test_a_released_model_is_measured_again_with_another_loader(monkeypatch):
    run = load_profile("paper").run("released-clip")
    before = grid.run_key(run, [])
    monkeypatch.setattr(grid, "TRAINING_VERSION", 2)
    assert grid.run_key(run, []) == before
    monkeypatch.setattr(grid, "EXTERNAL_LOADER_VERSION", 2)
    assert grid.run_key(run, []) != before


def test_a_change_makes_stale_what_depends_on_it_and_nothing_else(copy: Copy):
    settings = {"runs": copy.runs, "seeds": 1}
    runs = {"data/0", "base/0", "clip-ft/0", "cae-gradcam/0"}
    copy.call(**settings | {"seeds": 2})
    copy.edit("cae_lib/training/trainer.py", "execution", "how_to_execute")
    copy.edit("cae_lib/training/losses.py", "def ", "def moved_")
    gradcam = "cae-gradcam: {method: gradcam, weight: 1.0}"
    copy.edit("configs/smoke.yaml", gradcam, gradcam.replace("1.0", "2.0"))
    assert copy.left(**settings) == {"cae-gradcam/0"}, (
        "a setting; no name in the source, no fewer seeds"
    )
    copy.edit("configs/smoke.yaml", "  tower_steps: 2\n", "  tower_steps: 3\n")
    assert copy.left(**settings) == {"base", *runs}, "the first weights"
    copy.edit("data/recipes/synthetic_scenes/config.py", "train=48", "train=49")
    assert copy.left(**settings) == {"data", WORDS, "base", *runs}, "the data"


def test_another_version_of_a_recipe_makes_the_photographs_stale(copy: Copy):
    settings = {"profile": "photo", "runs": "clip-ft", "seeds": 1}
    copy.call(**settings)
    assert copy.left(**settings) == set()
    copy.edit("data/recipes/photographs/versions.py", "SINGLE = 2\n", "SINGLE = 3\n")
    assert copy.left(**settings) == {"data", WORDS, "base", "data/0", "base/0", "clip-ft/0"}


def test_other_real_files_in_a_rehearsal_do_everything_again(copy: Copy):
    settings = {"profile": "rehearsal", "runs": "clip-ft"}
    copy.call(**settings)
    assert copy.left(**settings, real="somewhere") == {
        "data",
        WORDS,
        "base",
        "data/0",
        "base/0",
        "clip-ft/0",
    }


@pytest.mark.slow
def test_pages_follow_their_runs_and_the_book_its_pages(copy: Copy):
    profile = copy.folder / "configs" / "smoke.yaml"
    content = yaml.safe_load(profile.read_text())
    runs = {name: content["runs"][name] for name in ("clip-ft", "cae-attention", "cae-gradcam")}
    profile.write_text(yaml.safe_dump(content | {"runs": runs, "variants": {}}))
    copy.call()
    text = copy.folder / "book" / "experiments" / "cost.md"
    before = text.read_text()
    text.write_text(before + "More.\n")
    assert copy.left() == {"pages/cost", "pages/reproducibility", "book"}, "its text"
    text.write_text(before)
    (copy.home / "runs/smoke/cae-gradcam/0/done.json").unlink()
    left = copy.left(seeds=2)
    assert {"cae-gradcam/0", "pages/cost", "pages/reproducibility", "book"} <= left
    assert not left & {"clip-ft/0", "cae-attention/0", "data", "base"}


def test_removed_datasets_are_built_again(home, monkeypatch):
    calls = []
    monkeypatch.setattr(reproduce, "run_snakemake", lambda *words, **_: calls.append(words) or 0)
    stored = home / "runs/smoke/data/done.json"
    for is_present in (True, False):
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.touch()
        if is_present:
            load_profile("smoke").root.mkdir(parents=True)
        else:
            shutil.rmtree(load_profile("smoke").root)
        assert main(["reproduce", "--profile", "smoke", "--runs", "clip-ft"]) == 0
        assert stored.exists() is is_present
    assert len(calls) == 2


def test_the_paper_without_data_says_so_before_anything_runs(home, capsys):
    assert main(["reproduce", "--profile", "paper"]) == 2
    output, error = capsys.readouterr()
    assert "winoground: not here" in output and "cae data get" in output
    assert "negclip-captions: not here" in error and "openai-vit-b-32" in error
    assert "cae data get" in error
    assert not (home / "runs").exists() and not list(home.rglob("*.safetensors"))


def test_other_real_data_have_another_key(home):
    data_keys = {grid.data_key(choose("paper"))}
    path = paths().raw / "sugar-crepe/data/add_att.json"
    path.parent.mkdir(parents=True)
    for content in ('{"counts": {}}', '{"counts": {}, "0": {}}'):
        path.write_text(content)
        data_keys.add(grid.data_key(choose("paper")))
    assert len(data_keys) == 3 and grid.data_key(choose("paper")) in data_keys


def test_a_job_leaves_how_long_it_took_and_where(home, monkeypatch):
    train_and_measure = Mock(side_effect=[3, 0])  # results that had to be measured
    monkeypatch.setattr(job, "train_and_measure", train_and_measure)
    config = {"profile": "smoke", "runs": "clip-ft", "seeds": 2}
    monkeypatch.chdir(home)
    job.main([json.dumps(config), "run", "clip-ft/0/done.json", "clip-ft/1/done.json"])
    runs = [load_profile("smoke").run("clip-ft", seed) for seed in (0, 1)]
    assert train_and_measure.call_args_list == [call(run, True) for run in runs]
    first, report = (
        json.loads((home / "clip-ft" / seed / "done.json").read_text()) for seed in "01"
    )
    assert report["seconds"] >= 0 and report["profile"] == "smoke" and report["device"]
    assert report["trained"] is False
    assert first["measured"] and not report["measured"]


def test_the_book_of_a_reproduction_shows_its_own_models(home, monkeypatch):
    (home / "build" / "live").mkdir(parents=True)
    (home / "build" / "live" / "live-old.js").touch()
    assert live_folder() == REPOSITORY / "data" / "live"
    shown = []

    def write(profile: str, folder: Path) -> None:
        folder.mkdir()
        (folder / "live-index.js").write_text(profile)

    monkeypatch.setattr("book.extension.live.write_files", write)
    monkeypatch.setattr(
        "book.extension.build.build_book", lambda name: shown.append((name, live_folder()))
    )
    monkeypatch.chdir(home)
    for profile in ("photo", "mini"):
        job.main([json.dumps({"profile": profile}), "book", "done.json"])
    assert shown == [("photo", REPOSITORY / "data" / "live"), ("mini", home / "build" / "live")]
    assert [path.name for path in live_folder().iterdir()] == ["live-index.js"]


def test_captions_are_parsed_before_the_runs_need_them(home, monkeypatch):
    parsed = []
    monkeypatch.setattr("cae_lab.training_set.training_set", lambda *asked: parsed.append(asked))
    monkeypatch.chdir(home)
    runs = grid.planned_runs(choose("mini", runs="clip-ft,truth-gradcam,spacy-negclip")).values()
    for words in sorted({words for run in runs for words in grid.words_of(run)}):
        job.main([json.dumps({"profile": "mini"}), "words", f"{words}/done.json"])
        assert (home / words / "done.json").is_file()
    known = load_profile("mini"), load_clip("clip-mini").tokenizer, 112
    assert parsed == [
        (*known, "coco", "scene-graph"),
        (*known, "coco", "truth"),
        (*known, "spacy", "scene-graph"),
    ]


@pytest.mark.parametrize(
    ("gpus", "scheduler", "alone"), [("", None, True), ("0", None, False), ("", "7", False)]
)
def test_a_job_keeps_to_one_core_where_others_run_beside_it(monkeypatch, gpus, scheduler, alone):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if scheduler:
        monkeypatch.setenv("SLURM_JOB_ID", scheduler)
    assert shares_cpu() is alone


def test_gpus_are_taken_one_by_one(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    code = (
        "import os, sys\nfrom cae_lab.machine import exclusive_gpu\n"
        "with exclusive_gpu():\n print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)\n"
        " sys.stdin.readline()\n"
    )
    place = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'workflow'}"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=place,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    assert {process.stdout.readline().strip() for process in started} == {"4", "7"}
    third = subprocess.Popen(
        [sys.executable, "-c", code],
        env=place,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    started[0].kill()  # a lock ends with its process
    assert third.stdout.readline().strip() in {"4", "7"}
    for process in (*started, third):
        process.kill()
        process.wait()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with exclusive_gpu():
        assert find_gpus() == ["3"]


@pytest.mark.parametrize(
    ("code", "listing", "expected"),
    [
        (
            0,
            "GPU 0: A (UUID: 1)\n  MIG 1g.10gb Device 0: (UUID: 2)\nGPU 1: A (UUID: 3)",
            ["0", "1"],
        ),
        (9, "NVIDIA-SMI has failed because it could not reach the driver.", []),
    ],
)
def test_gpus_are_counted_in_the_list_of_the_driver(monkeypatch, code, listing, expected) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    result = subprocess.CompletedProcess([], code, listing)
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: result)
    assert find_gpus() == expected


def test_a_device_that_is_hidden_is_no_gpu(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert find_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 2")
    assert find_gpus() == ["0", "2"]
