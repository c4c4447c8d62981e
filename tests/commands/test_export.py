"""What runs are exported as, with which figures, and what of it goes to the hub."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import filter_repo_objects

from cae_lib import results
from cae_lib.cli import main
from cae_lib.commands import export, scores
from cae_lib.models.checkpoint import CheckpointMeta, file_digest, save_checkpoint
from cae_lib.models.clip import Clip, load_clip
from cae_lib.profiles import experiment
from cae_lib.runs import checkpoint_path
from cae_lib.variants import run_name

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


def store(run: str, correct: int, weights: str, expected: int = 10) -> None:
    """Tables of a run (or variant) that answered `correct` of 10 items of SVO-Probes, which has so
    many as `expected`."""
    marks, number = np.arange(10) < correct, np.arange(10)
    keys = {"family": "svo_probes", "subset": "all", "group": "verb", "item": number}
    found = {"weights": weights, "code": "ab" * 20, "data": "d" * 12}
    tables = {
        "benchmarks": pd.DataFrame(keys | {"picture": number, "correct": marks}),
        "retrieval": pd.DataFrame(
            {"set": "coco", "direction": "text to image", "query": number, "rank": 2 - marks}
        ),
    }
    for name, frame in tables.items():
        results.save(name, run, 1, frame, "smoke", key="", provenance=found)
    items = pd.DataFrame(keys | {"picture": number, "weight": 0.1, "chance": 0.5, "stratum": "all"})
    subsets = pd.DataFrame(
        {
            "suite": "benchmarks",
            "family": "svo_probes",
            "subset": "all",
            "n_used": 10,
            "n_expected": [expected],
        }
    )
    for name, frame in {"items": items, "subsets": subsets}.items():
        results.save(name, results.DATA, 0, frame, "smoke", key="", provenance={})


def exported(folder: Path, *options: str) -> str:
    """The card of a run that the command exports."""
    assert main([*COMMAND, str(folder), *options]) == 0
    return (folder / "README.md").read_text()


def test_the_card_states_the_tables_figures(trained: Path, tmp_path: Path) -> None:
    store(RUN, 7, file_digest(trained)[:12])
    store("clip-ft", 6, "x" * 12)
    card = exported(tmp_path / "out")
    assert card.startswith("---\n")
    for part in (
        "| smoke-SVO-Probes | 10 | 70.0 [",
        "] | 60.0 [",
        "license: mit",
        "**quickgelu**",
        "library_name: open_clip",
        "attribution by attention",
        "lr 0.0003",
        "local-dir:.",
        "| smoke-coco | text to image | 70.0 | 60.0 |",
        "a tie counts as wrong",
    ):
        assert part in card
    states = [
        load_clip("clip-mini", file, "quickgelu").model.state_dict()
        for file in (trained, tmp_path / "out" / "open_clip_model.safetensors")
    ]
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
    for part in (
        "another configuration",
        "`cae train cae-attention --profile smoke --seed 1 --set",
        " --set lr=0.0001 --set 'betas=(0.9, 0.95)'`",
    ):
        assert part in message
    assert main([*command, "--set", "speed=2"]) == 2 and not (tmp_path / "o").exists()


def test_a_variant_is_exported_with_its_own_weights_and_records(
    trained: Path, tiny_clip: Clip, tmp_path: Path
) -> None:
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


@pytest.mark.parametrize(
    ("real", "expected", "found"),
    [(True, 10, [("svo_probes", "all", 70.0)]), (True, 11, None), (False, 10, None)],
)
def test_results_of_complete_real_sets_alone_are_metadata_of_the_card(
    trained: Path, tmp_path: Path, monkeypatch, real, expected, found
) -> None:
    monkeypatch.setattr(scores, "find_profile", lambda name: Mock(real=real))
    store(RUN, 7, file_digest(trained)[:12], expected)
    data = ModelCard(exported(tmp_path / "out")).data
    assert data.library_name == "open_clip" and "quickgelu" in data.tags
    known = data.eval_results and [
        (each.dataset_type, each.dataset_config, each.metric_value) for each in data.eval_results
    ]
    assert known == found
    store(RUN, 7, "y" * 12, expected)
    assert ModelCard(exported(tmp_path / "out")).data.eval_results is None  # of other weights


FILES = {"open_clip_model.safetensors", "open_clip_config.json", "README.md"}
PUSH = ["--push", "someone/clip"]


@pytest.fixture
def api(trained: Path, monkeypatch) -> Mock:
    """The hub for somebody who is signed in."""
    hub = create_autospec(HfApi, instance=True)
    monkeypatch.setattr(export, "HfApi", lambda: hub)
    monkeypatch.setattr(export, "get_token", lambda: "hf_token")
    return hub


def test_a_dry_run_tells_and_asks_no_server(api: Mock, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(export, "get_token", lambda: None)
    card = exported(tmp_path / "out", *PUSH, "--dry-run")
    told = capsys.readouterr().out
    assert "hf-hub:someone/clip" in card and "someone/clip" in told and "private" in told
    weights = tmp_path / "out" / "open_clip_model.safetensors"
    assert all(name in told for name in FILES) and f"{weights.stat().st_size / 1e6:.3f} MB" in told
    assert not api.mock_calls


@pytest.mark.parametrize("public", [False, True])
def test_three_files_are_uploaded(api: Mock, tmp_path, public: bool) -> None:
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    for other in ("notes.txt", "sub/README.md"):
        (folder / other).touch()
    exported(folder, *PUSH, *["--public"] * public)
    api.create_repo.assert_called_once_with("someone/clip", private=not public, exist_ok=True)
    api.upload_folder.assert_called_once()
    asked = api.upload_folder.call_args.kwargs
    here = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert asked["repo_id"] == "someone/clip" and asked["folder_path"] == folder
    chosen = filter_repo_objects(here, allow_patterns=asked["allow_patterns"])
    assert set(chosen) == FILES < set(here)


def test_a_hub_that_does_not_take_it_is_told(api: Mock, tmp_path, capsys) -> None:
    api.create_repo.side_effect = ConnectionError("no route")
    assert main([*COMMAND, str(tmp_path / "o"), *PUSH]) == 2
    assert "no route" in capsys.readouterr().err and (tmp_path / "o" / "README.md").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (PUSH, "hf auth login"),
        (["--push", "clip", "--dry-run"], "OWNER/NAME"),
        (["--push", "a/b/c", "--dry-run"], "a/b/c"),
        (["--dry-run"], "--push"),
        ([*PUSH, "--format", "pt"], "safetensors"),
    ],
)
def test_what_cannot_be_uploaded_is_told_before_anything_is_written(
    trained, tmp_path, capsys, monkeypatch, options, said
) -> None:
    monkeypatch.setattr(export, "get_token", lambda: None)
    assert main([*COMMAND, str(tmp_path / "o"), *options]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "o").exists()
