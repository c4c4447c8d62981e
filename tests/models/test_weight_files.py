"""Weight files: every published form gives the tensors that it was made from, and no code runs."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from families import clip
from rehearsal import write_archive
from torch import Tensor, nn

from cae_lab.profiles import load_profile
from cae_lab.runs import initial_weights
from cae_lib.errors import CheckpointError
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import load_clip
from cae_lib.models.weight_files import (
    OPENAI_SIZE_ENTRIES,
    convert_openai_archive,
    merge_lora,
    read_state_dict,
)

STATE = dict(clip().state_dict())


class Harmful:
    """What would make the folder `run` if it were read."""

    def __reduce__(self) -> tuple:
        return (os.mkdir, ("run",))


FORMS = {
    "plain": STATE,
    "state_dict": {"epoch": 3, "state_dict": STATE},
    "with OpenAI's sizes": STATE
    | {name: torch.tensor(size) for name, size in OPENAI_SIZE_ENTRIES.items()},
    "module": {"state_dict": {f"module.{k}": v for k, v in STATE.items()}, "loss": np.float64(2.5)},
    "model": {"model": STATE, "step": np.int64(7)},
    "part compiled": {k.replace("visual.", "visual._orig_mod."): v for k, v in STATE.items()},
    "wrapped twice": {f"model.module.{k}": v for k, v in STATE.items()},
    "mask": STATE | {"attn_mask": torch.full((77, 77), -torch.inf).triu(1)},
    "head": {f"model.{k}": v for k, v in STATE.items()} | {"head.weight": torch.ones(2)},
    "parameters": {k: nn.Parameter(v, requires_grad=False) for k, v in STATE.items()},
    "options": {"args": argparse.Namespace(lr=1e-3), "state_dict": STATE},
    "objects": {"trainer": Harmful(), "state_dict": STATE},
}


def same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(
        torch.equal(value, expected[name]) and value.dtype == expected[name].dtype
        for name, value in actual.items()
    )


@pytest.mark.parametrize(("form", "zipped"), [*((form, True) for form in FORMS), ("plain", False)])
def test_a_file_is_read_in_every_form(form: str, zipped: bool, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(FORMS[form], "weights.pt", _use_new_zipfile_serialization=zipped)
    assert same(read_state_dict("weights.pt"), STATE)
    assert not Path("run").exists(), "code of the file ran"


def archive(path: Path, evil: bool = False) -> None:
    """A file of OpenAI's form, or one whose pickle calls `os.mkdir`."""
    write_archive(clip(), path)
    if evil:
        with zipfile.ZipFile(path) as file:
            content = {name: file.read(name) for name in file.namelist()}
        content[f"{path.stem}/data.pkl"] = pickle.dumps(Harmful(), 2)
        with zipfile.ZipFile(path, "w") as file:
            for name, data in content.items():
                file.writestr(name, data)


@pytest.mark.parametrize("kind", ["pickle", "zip", "archive"])
def test_code_is_not_run(kind: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("file.pt")
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Harmful()))
    elif kind == "zip":
        torch.save({"state_dict": Harmful()}, path)
    else:
        archive(path, evil=True)
    with pytest.raises(CheckpointError, match="file.pt cannot be read as a checkpoint"):
        read_state_dict(path)
    assert not Path("run").exists()


def test_an_archive_is_read_as_torch_reads_it(tmp_path) -> None:
    archive(tmp_path / "ViT.pt")
    state = torch.jit.load(str(tmp_path / "ViT.pt")).state_dict()
    expected = {name: value for name, value in state.items() if name not in OPENAI_SIZE_ENTRIES}
    assert expected.keys() == STATE.keys()
    assert {value.dtype for value in expected.values()} == {torch.float16}
    assert same(read_state_dict(tmp_path / "ViT.pt"), expected)


def test_an_archive_stands_in_for_the_tag_and_says_its_activation(home, tiny_clip) -> None:
    config = load_profile("paper").experiment("clip-ft", model="clip-mini")
    assert initial_weights(config) == "openai"
    place = home / "data/raw/weights/openai/clip-mini.pt"
    write_archive(tiny_clip.model, place)
    path = initial_weights(config)
    assert path.is_relative_to(home / "data/cache") and read_meta(path).activation == "quickgelu"
    halves = {name: value.half().float() for name, value in tiny_clip.model.state_dict().items()}
    assert same(load_clip(weights=path).model.state_dict(), halves)
    before = path.stat().st_mtime_ns
    assert convert_openai_archive(place, "clip-mini", path).stat().st_mtime_ns == before
    assert initial_weights(load_profile("mini").experiment("clip-ft")) != path


SIZES = {  # of each layer's weight, A and B
    "mlp": ((4, 6), (2, 6), (4, 2)),
    "attn.in_proj": ((9, 6), (3, 6), (9, 3)),
    "conv": ((4, 3, 2, 2), (4, 6), (8, 4)),
    "embedding": ((7, 4), (2, 7), (4, 2)),
}


def test_adapters_are_merged_by_their_own_scale() -> None:
    draw, state = torch.Generator().manual_seed(0), {"bias": torch.ones(4)}
    for name, sizes in SIZES.items():
        if name == "attn.in_proj":
            keys = [f"{name}_weight{end}" for end in ("", "_lora_A", "_lora_B")]
        else:
            keys = [f"{name}.{end}" for end in ("weight", "lora_A", "lora_B")]
        for key, size in zip(keys, sizes, strict=True):
            state[key] = torch.randn(*size, generator=draw)
    merged = merge_lora(state)
    names = {name for name in state if "lora" not in name}
    assert merged.keys() == names and torch.equal(merged["bias"], state["bias"])
    name, a, b = "attn.in_proj_weight", "lora_A", "lora_B"
    for weight, change in (
        ("mlp.weight", state["mlp.lora_B"] @ state["mlp.lora_A"] / 2),  # rank 2
        (name, state[f"{name}_{b}"] @ state[f"{name}_{a}"] / 3),
        ("embedding.weight", state["embedding.lora_A"].T @ state["embedding.lora_B"].T / 2),
        ("conv.weight", (state["conv.lora_B"] @ state["conv.lora_A"]).view(4, 3, 2, 2) / 2),
    ):
        torch.testing.assert_close(merged[weight], state[weight] + change)
    twice = merge_lora(state, alpha=2.0)["mlp.weight"] - state["mlp.weight"]
    torch.testing.assert_close(twice, 2 * (merged["mlp.weight"] - state["mlp.weight"]))
    for lost in ("mlp.lora_B", "mlp.lora_A", "mlp.weight"):
        with pytest.raises(CheckpointError, match=f"mlp.lora.*lacks.*{lost}"):
            merge_lora({key: value for key, value in state.items() if key != lost})
    for misfit in ({"mlp.lora_A": torch.ones(2, 7)}, {"mlp.lora_B": torch.ones(5, 2)}):
        with pytest.raises(CheckpointError, match="mlp.weight"):
            merge_lora(state | misfit)
