"""Export of runs: which ones are refused, and the figures on the card."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cae_lib.cli import main
from cae_lib.config import experiment
from cae_lib.errors import CheckpointError
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.retrieval import KS, RetrievalResult
from cae_lib.experiments import checkpoint_path
from cae_lib.export import export_run
from cae_lib.measurements import run_label
from cae_lib.models.checkpoint import CheckpointMeta, file_digest, save_checkpoint
from cae_lib.models.clip import Clip
from cae_lib.records import Record, save_record


@pytest.fixture
def trained(home: Path, tiny_clip: Clip) -> Path:
    """The checkpoint of a CAE run of seed 1, as the trainer leaves it."""
    config = experiment("cae-attention", "smoke", seed=1)
    meta = CheckpointMeta("clip-mini", "quickgelu", config.steps, config.key())
    return save_checkpoint(checkpoint_path("cae-attention", "smoke", 1), tiny_clip, meta)


def store(run: str, seed: int, correct: int, weights: str) -> None:
    """Records of a run (or variant) that answered `correct` of 10 items of SVO-Probes."""
    marks = np.arange(10) < correct
    result = ChoiceResult("svo_probes", "all", marks, {"a": 10}, 12, "micro", "mean over items",
                          None, 0.5, "strict", "abc", {}, {}, np.arange(10))  # fmt: skip
    hits = {k: marks for k in KS}
    found = RetrievalResult(hits, hits, np.arange(10)).to_record()
    sets = {name: found for name in ("coco", "flickr30k")}
    for suite, content in (("benchmarks", {"svo_probes/all": result.to_record()}),
                           ("retrieval", sets)):  # fmt: skip
        record = Record(f"{run}/{seed}/{suite}", "0" * 12, {"weights": weights}, content,
                        {"tree": "ab" * 20, "data": "d" * 12})  # fmt: skip
        save_record(record, "smoke")


def test_the_card_states_the_records_figures(trained: Path, tmp_path: Path) -> None:
    store("cae-attention", 1, 7, file_digest(trained)[:12])
    store("clip-ft", 1, 6, "x" * 12)
    export_run("cae-attention", "smoke", 1, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| SVO-Probes | 10 of 12 | 50.0 | 70.0 [" in card and "| 60.0 [" in card
    assert "| COCO, text to image | 70.0 | 60.0 |" in card
    for part in ("license: mit", "library_name: open_clip", "**quickgelu**", "attribution by "
                 "attention", "lr 0.0003", "local-dir:.", "a tie counts as wrong"):  # fmt: skip
        assert part in card
    assert card.startswith("---\n")


def test_no_figure_of_other_weights(trained: Path, tmp_path: Path) -> None:
    export_run("cae-attention", "smoke", 1, tmp_path / "out")
    assert "Nothing yet: `cae evaluate" in (tmp_path / "out" / "README.md").read_text()
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
               "-o", str(tmp_path / "o")]  # fmt: skip
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
    label = run_label("cae-attention", "smoke", **overrides)
    store(label, 1, 7, file_digest(path)[:12])
    store("clip-ft", 1, 6, "x" * 12)
    assert main(command) == 0
    card = (tmp_path / "o" / "README.md").read_text()
    assert "# CLIP-CAE (attention), lr = 0.0001, betas = (0.9, 0.95), clip-mini" in card
    assert "| 70.0 [" in card and "| 60.0 [" in card and "| 90.0 [" not in card
    assert f"`{label}/1/*`" in card and "| COCO, text to image | 70.0 | 60.0 |" in card
    assert "| CLIP-CAE (attention), variant | CLIP-FT |" in card
    meta = CheckpointMeta("clip-mini", "quickgelu", config.steps, "f" * 12)
    save_checkpoint(path, tiny_clip, meta)
    with pytest.raises(CheckpointError, match=re.escape(f"`cae train cae-attention {shown}`")):
        export_run("cae-attention", "smoke", 1, tmp_path / "o", **overrides)
    assert main([*command, "--set", "speed=2"]) == 2
