"""The base model, and those of fewer steps."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from cae_lab import results
from cae_lab.profiles import PROFILES, load_profile
from cae_lib.config import paths
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import load_clip
from data.recipes.base import base_config, main, used_tokens
from data.recipes.synthetic_scenes import tower


def earlier_path(profile: str, steps: int) -> Path:
    return load_profile(profile).run(f"base+steps={steps}").path


@pytest.fixture
def at_smoke(
    home: Path, smoke_world: Path, brief_muon: None, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setattr(tower, "BATCH", 16)
    shutil.copytree(smoke_world, home / "data" / "raw" / smoke_world.name, symlinks=True)
    return home


def test_base_is_trained_measured_and_described(at_smoke: Path, capsys) -> None:
    assert main(["--profile", "smoke"]) == 0
    path = load_profile("smoke").run("base").path
    assert f"The weights are {path}" in capsys.readouterr().out
    table = results.load("base_training", "smoke").set_index(["stored", "measure"])
    assert table.loc[(False, "loss"), "step"].tolist() == [1, 2, 3, 4]
    for measure in ("object", "probe_relation"):
        assert table.loc[(True, measure)][["low", "high", "n"]].notna().all()
    card = (path.parent / "README.md").read_text()
    assert "4 steps of 16 pairs" in card and "| attention_relation |" in card
    clip, whole = load_clip("clip-mini", path), path.parents[1] / "base-training/model.safetensors"
    trained = load_clip("clip-mini", whole).model.token_embedding.weight.half().float()
    tokens = used_tokens(load_profile("smoke"), clip)
    rows = clip.model.token_embedding.weight
    assert torch.equal(rows[tokens], trained[tokens])
    assert len(tokens) < len(rows) / 10


def test_shorter_base_lies_beside_the_base_and_is_trained_once(at_smoke: Path) -> None:
    command = ["--profile", "smoke", "--steps"]
    assert main([*command, "1"]) == 0
    path = earlier_path("smoke", 1)
    assert path.relative_to(paths().checkpoints).as_posix() == "smoke/base-1/model.safetensors"
    meta, written = read_meta(path), path.stat().st_mtime_ns
    assert (meta.step, meta.config_key) == (1, base_config(load_profile("smoke"), steps=1).key())
    assert main([*command, "1"]) == 0 and path.stat().st_mtime_ns == written
    assert main([*command, "2"]) == 0
    first, second, random = (
        load_clip("clip-mini", weights).model for weights in (path, earlier_path("smoke", 2), None)
    )
    assert torch.equal(first.visual.proj, second.visual.proj), "the image tower is locked"
    assert not torch.equal(first.visual.proj, random.visual.proj.half().float()), "but was taught"
    assert not torch.equal(first.text_projection, second.text_projection)


def test_base_that_is_trained_elsewhere_leaves_the_shipped_one(
    at_smoke: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch
) -> None:
    repository = tmp_path_factory.mktemp("repository")
    shipped, place = repository / "data/mini/base.safetensors", "mini/base.safetensors"
    made_here = repository / "data/checkpoints/smoke/base/model.safetensors"
    for path in (shipped, made_here):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"of the repository")
    monkeypatch.setattr("cae_lib.config.repository_root", lambda: repository)
    assert load_profile("smoke").run("base").path.is_relative_to(at_smoke), "its products stay"
    smoke = PROFILES["smoke"]
    starts_from = smoke.training | {"weights": place}
    monkeypatch.setitem(PROFILES, "smoke", dataclasses.replace(smoke, training=starts_from))
    assert load_profile("smoke").run("base").path == shipped
    assert main(["--profile", "smoke"]) == 0
    assert shipped.read_bytes() == b"of the repository"
    assert load_profile("smoke").run("base").path.is_relative_to(at_smoke)


def test_shorter_bases_of_mini_are_shipped_and_have_fewer_steps(monkeypatch, capsys) -> None:
    monkeypatch.delenv("CAE_HOME", raising=False)
    for steps in load_profile("mini").earlier_bases:
        meta = read_meta(earlier_path("mini", steps))
        expected = base_config(load_profile("mini"), steps=steps)
        assert (meta.step, meta.config_key) == (steps, expected.key())
    for steps in ("0", "1200"):
        assert main(["--profile", "mini", "--steps", steps]) == 2
        n_steps = base_config(load_profile("mini")).steps
        assert f"1 to {n_steps - 1} steps" in capsys.readouterr().err
