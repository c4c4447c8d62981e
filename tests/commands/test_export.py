"""What runs are exported as, with which figures; and how stored tables differ from a commit's."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cae_lib import results
from cae_lib.cli import main
from cae_lib.config import experiment
from cae_lib.models.checkpoint import CheckpointMeta, file_digest, save_checkpoint
from cae_lib.models.clip import Clip, load_clip
from cae_lib.runs import checkpoint_path, run_name

RUN = "cae-attention"
COMMAND = ["export", RUN, "--profile", "smoke", "--seed", "1", "-o"]
OVERRIDES: dict[str, Any] = {"lr": 1e-4, "betas": (0.9, 0.95)}
SET = ["--set", "lr=1e-4", "--set", "betas=(0.9, 0.95)"]


def save(clip: Clip, key: str = "", **overrides: Any) -> Path:
    """A checkpoint of a CAE run of seed 1, as the trainer leaves it."""
    config = experiment(RUN, "smoke", seed=1, **overrides)
    meta = CheckpointMeta("clip-mini", "quickgelu", config.steps, key or config.key())
    return save_checkpoint(checkpoint_path(RUN, "smoke", 1, **overrides), clip, meta)


@pytest.fixture
def trained(home: Path, tiny_clip: Clip) -> Path:
    return save(tiny_clip)


def store(run: str, correct: int, weights: str) -> None:
    """Tables of a run (or variant) that answered `correct` of 10 items of SVO-Probes."""
    marks, number = np.arange(10) < correct, np.arange(10)
    keys = {"family": "svo_probes", "subset": "all", "group": "verb", "item": number}
    found = {"weights": weights, "code": "ab" * 20, "data": "d" * 12}
    tables = {"benchmarks": pd.DataFrame(keys | {"picture": number, "correct": marks}),
              "retrieval": pd.DataFrame({"set": "coco", "direction": "text to image",
                                         "query": number, "rank": 2 - marks})}
    for name, frame in tables.items():
        results.save(name, run, 1, frame, "smoke", key="", provenance=found)
    items = pd.DataFrame(keys | {"picture": number, "weight": 0.1, "stratum": "all"})
    results.save("items", results.DATA, 0, items, "smoke", key="", provenance={})


def exported(folder: Path, *options: str) -> str:
    """The card of a run that the command exports."""
    assert main([*COMMAND, str(folder), *options]) == 0
    return (folder / "README.md").read_text()


def test_the_card_states_the_tables_figures(trained: Path, tmp_path: Path) -> None:
    store(RUN, 7, file_digest(trained)[:12])
    store("clip-ft", 6, "x" * 12)
    card = exported(tmp_path / "out")
    assert card.startswith("---\n")
    for part in ("| SVO-Probes | 10 | 70.0 [", "] | 60.0 [", "license: mit", "**quickgelu**",
                 "library_name: open_clip", "attribution by attention", "lr 0.0003", "local-dir:.",
                 "| coco | text to image | 70.0 | 60.0 |", "a tie counts as wrong"):
        assert part in card
    states = [load_clip("clip-mini", file, "quickgelu").model.state_dict()
              for file in (trained, tmp_path / "out" / "open_clip_model.safetensors")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_no_figure_of_other_weights(trained: Path, tmp_path: Path) -> None:
    card = exported(tmp_path / "out")
    assert "Nothing yet: `cae evaluate cae-attention --profile smoke --seed 1`" in card
    store(RUN, 7, "y" * 12)
    card = exported(tmp_path / "out", "--format", "pt")
    assert "belong to other weights" in card and "SVO-Probes" not in card
    assert (tmp_path / "out" / "open_clip_model.pt").is_file()


def test_what_is_not_trained_so_is_refused(trained, tiny_clip, tmp_path, capsys) -> None:
    command = [*COMMAND, str(tmp_path / "o"), *SET]
    assert main(command) == 2
    assert "no checkpoint at" in capsys.readouterr().err
    save(tiny_clip, "f" * 12, **OVERRIDES)
    assert main(command) == 2
    message = capsys.readouterr().err
    for part in ("another configuration", "`cae train cae-attention --profile smoke --seed 1 --set",
                 " --set lr=0.0001 --set 'betas=(0.9, 0.95)'`"):
        assert part in message
    assert main([*command, "--set", "speed=2"]) == 2 and not (tmp_path / "o").exists()


def test_a_variant_is_exported_with_its_own_weights_and_records(
        trained: Path, tiny_clip: Clip, tmp_path: Path) -> None:
    with torch.no_grad():
        tiny_clip.model.logit_scale.fill_(1.5)  # other weights than those of the plain run
    path = save(tiny_clip, **OVERRIDES)
    store(RUN, 9, file_digest(trained)[:12])
    assert "Nothing yet" in exported(tmp_path / "o", *SET)
    label = run_name(RUN, "smoke", **OVERRIDES)
    store(label, 7, file_digest(path)[:12])
    store("clip-ft", 6, "x" * 12)
    card = exported(tmp_path / "o", *SET)
    assert "# CLIP-CAE (attention), betas=" in card and ", lr=0.0001, clip-mini" in card
    assert "| 70.0 [" in card and "| 60.0 [" in card and "| 90.0 [" not in card
    assert f"| {label} | clip-ft | averaging |" in card


def answer(correct: list[bool], margin: list[float], run: str = "base", items: int = 0,
           **more: list[float]) -> None:
    frame = pd.DataFrame({"item": np.arange(len(correct)) + items, "correct": correct,
                          "margin": np.array(margin, dtype=np.float32)} | more)
    results.save("benchmarks", run, 0, frame, "mini", key="k", provenance={})


def commit(home: Path) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    for arguments in (["init", "-q"], ["add", "data"], [*identity, "commit", "-qm", "x"]):
        subprocess.run(["git", *arguments], cwd=home, check=True)


def test_differences_are_told_by_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer([True, False], [0.1, np.nan])
    answer([True, False], [0.1, 0.2], "gone")
    answer([True, False], [0.1, 0.2], "lost", score=[0.5, 0.5], share=[0.5, 0.5])
    answer([True, False], [0.1, 0.2], "other")
    commit(home)
    assert main(["compare"]) == 0
    assert capsys.readouterr().out == "same: 4 tables, 8 rows compared with HEAD\n"
    answer([True, True], [0.1, np.nan], "base")
    answer([True, False], [0.1, 0.2], "new")
    answer([True, False], [0.1, 0.45], "other")
    answer([True, False], [np.nan, 0.2], "lost", score=[0.5, 1.0], share=[0.5, 0.75])
    results.file_of("benchmarks", "gone", "mini").unlink()
    assert main(["compare", "HEAD"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "benchmarks/gone.parquet: gone",
        "benchmarks/new.parquet: new",
        "benchmarks/base.parquet: 2 rows, 1 answers changed (correct, 50 %)",
        "benchmarks/lost.parquet: 2 rows, margin: a number here, none there; "
        "largest difference 0.5 (score)",
        "benchmarks/other.parquet: 2 rows, largest difference 0.25 (margin)",
        "5 differ; 3 tables, 6 rows compared with HEAD",
    ]


def test_what_cannot_be_compared(home: Path, capsys, monkeypatch) -> None:
    assert main(["compare", "--profile", "smoke"]) == 2
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(home.parent))
    assert main(["compare"]) == 2
    assert "not a git repository" in capsys.readouterr().err
    answer([True, False], [0.1, 0.2])
    commit(home)
    assert main(["compare", "nothing"]) == 2
    assert "cae: git ls-tree" in capsys.readouterr().err
    for rows, items, said in ((1, 0, "base.parquet: 2 rows then, 1 now"),
                              (2, 5, "other items: item differs in 2 rows")):
        answer([True, False][:rows], [0.1, 0.2][:rows], items=items)
        main(["compare"])
        assert said in capsys.readouterr().out
