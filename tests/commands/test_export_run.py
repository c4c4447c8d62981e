"""Export of runs: which ones are refused, and the figures on the card."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cae_lib import results
from cae_lib.cli import main
from cae_lib.commands.export import export_run
from cae_lib.config import experiment
from cae_lib.errors import CheckpointError
from cae_lib.models.checkpoint import CheckpointMeta, file_digest, save_checkpoint
from cae_lib.models.clip import Clip, load_clip
from cae_lib.runs import checkpoint_path, run_name


@pytest.fixture
def trained(home: Path, tiny_clip: Clip) -> Path:
    """The checkpoint of a CAE run of seed 1, as the trainer leaves it."""
    config = experiment("cae-attention", "smoke", seed=1)
    meta = CheckpointMeta("clip-mini", "quickgelu", config.steps, config.key())
    return save_checkpoint(checkpoint_path("cae-attention", "smoke", 1), tiny_clip, meta)


def store(run: str, seed: int, correct: int, weights: str) -> None:
    """Tables of a run (or variant) that answered `correct` of 10 items of SVO-Probes."""
    marks, number = np.arange(10) < correct, np.arange(10)
    keys = {"family": "svo_probes", "subset": "all", "group": "verb", "item": number}
    found = {"weights": weights, "code": "ab" * 20, "data": "d" * 12}
    tables = {"benchmarks": pd.DataFrame(keys | {"picture": number, "correct": marks}),
              "retrieval": pd.DataFrame({"set": "coco", "direction": "text to image",
                                         "query": number, "rank": 2 - marks})}
    for name, frame in tables.items():
        results.save(name, run, seed, frame, "smoke", key="", provenance=found)
    items = pd.DataFrame(keys | {"picture": number, "weight": 0.1, "stratum": "all"})
    results.save("items", results.DATA, 0, items, "smoke", key="", provenance={})


def test_the_card_states_the_tables_figures(trained: Path, tmp_path: Path) -> None:
    store("cae-attention", 1, 7, file_digest(trained)[:12])
    store("clip-ft", 1, 6, "x" * 12)
    path = export_run("cae-attention", "smoke", 1, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| SVO-Probes | 10 | 70.0 [" in card and "] | 60.0 [" in card
    assert "| coco | text to image | 70.0 | 60.0 |" in card.replace("| 60.0 | 70.0 |",
                                                                    "| 70.0 | 60.0 |")
    for part in ("license: mit", "library_name: open_clip", "**quickgelu**", "attribution by "
                 "attention", "lr 0.0003", "local-dir:.", "a tie counts as wrong"):
        assert part in card
    assert card.startswith("---\n")
    states = [load_clip("clip-mini", file, "quickgelu").model.state_dict()
              for file in (trained, path)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_no_figure_of_other_weights(trained: Path, tmp_path: Path) -> None:
    export_run("cae-attention", "smoke", 1, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Nothing yet: `cae evaluate cae-attention --profile smoke --seed 1`" in card
    store("cae-attention", 1, 7, "y" * 12)
    export_run("cae-attention", "smoke", 1, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "belong to other weights" in card and "SVO-Probes" not in card


def test_runs_of_another_configuration_are_refused(trained: Path, tiny_clip: Clip) -> None:
    meta = CheckpointMeta("clip-mini", "quickgelu", 3, "f" * 12)
    save_checkpoint(trained, tiny_clip, meta)
    with pytest.raises(CheckpointError, match="another configuration.*cae train cae-attention"):
        export_run("cae-attention", "smoke", 1, trained.parent)


def test_the_command(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--profile", "smoke", "--seed", "1", "--format", "pt", "-o", str(tmp_path / "o")]
    assert main(["export", "cae-attention", *arguments]) == 0
    assert (tmp_path / "o" / "open_clip_model.pt").is_file()
    assert main(["export", "clip-ft", *arguments]) == 2
    assert "no checkpoint at" in capsys.readouterr().err


def test_a_variant_is_exported_with_its_own_weights_and_records(
    trained: Path, tiny_clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", "lr=1e-4", "--set", "betas=(0.9, 0.95)"]
    command = ["export", "cae-attention", *settings, "--profile", "smoke", "--seed", "1",
               "-o", str(tmp_path / "o")]
    assert main(command) == 2
    shown = "--profile smoke --seed 1 --set lr=0.0001 --set 'betas=(0.9, 0.95)'"
    assert not (tmp_path / "o").exists() and "no checkpoint at" in capsys.readouterr().err
    overrides = {"lr": 1e-4, "betas": (0.9, 0.95)}
    config = experiment("cae-attention", "smoke", seed=1, **overrides)
    path = checkpoint_path("cae-attention", "smoke", 1, **overrides)
    with torch.no_grad():
        tiny_clip.model.logit_scale.fill_(1.5)  # other weights than those of the plain run
    meta = CheckpointMeta("clip-mini", "quickgelu", config.steps, config.key())
    save_checkpoint(path, tiny_clip, meta)
    store("cae-attention", 1, 9, file_digest(trained)[:12])
    assert main(command) == 0
    card = (tmp_path / "o" / "README.md").read_text()
    assert f"Nothing yet: `cae evaluate cae-attention {shown}`" in card
    label = run_name("cae-attention", "smoke", **overrides)
    store(label, 1, 7, file_digest(path)[:12])
    store("clip-ft", 1, 6, "x" * 12)
    assert main(command) == 0
    card = (tmp_path / "o" / "README.md").read_text()
    assert "# CLIP-CAE (attention), betas=" in card and ", lr=0.0001, clip-mini" in card
    assert "| 70.0 [" in card and "| 60.0 [" in card and "| 90.0 [" not in card
    assert f"| {label} | clip-ft | averaging |" in card
    meta = CheckpointMeta("clip-mini", "quickgelu", config.steps, "f" * 12)
    save_checkpoint(path, tiny_clip, meta)
    with pytest.raises(CheckpointError, match=re.escape(f"`cae train cae-attention {shown}`")):
        export_run("cae-attention", "smoke", 1, tmp_path / "o", **overrides)
    assert main([*command, "--set", "speed=2"]) == 2
