"""Every setting of a run changes the weights that it ends with; what only names a run does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cae_lib import runs
from cae_lib.config import Experiment, paths
from cae_lib.data.captions import Pairs
from cae_lib.data.training_set import TrainingSet
from cae_lib.models.checkpoint import CheckpointMeta, read_state_dict, save_checkpoint
from cae_lib.models.clip import load_clip
from cae_lib.words.alignment import align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION, Span

NOUNS = ("cat", "dog", "car", "cup")
RUN: dict[str, Any] = {
    "model": "clip-mini",
    "weights": None,
    "method": "gradcam",
    "weight": 10.0,
    "margin": 2.0,  # the hinge is active
    "negatives": False,
    "precision": "fp32",
    "steps": 2,
    "batch_size": 4,
    "warmup": 1,
    "lr": 1e-3,
}
LABELS = {"name", "profile"}
CHANGED: dict[str, Any] = {
    "model": "ViT-S-32",
    "activation": "gelu",
    "weights": "other.safetensors",
    "train_data": "pretrain",
    "method": "attention",
    "attribution": (("start_layer", -1),),
    "weight": 20.0,
    "margin": -2.0,
    "scope": "caption",
    "stop_gradient": True,
    "complete_captions": False,
    "negatives": True,
    "tagger": "dependency",
    "lock_image": True,
    "steps": 3,
    "batch_size": 5,
    "warmup": 2,
    "lr": 2e-3,
    "weight_decay": 0.0,
    "betas": (0.8, 0.98),
    "eps": 1e-3,
    "precision": "bf16",
    "seed": 1,
}


class Pictures:
    """Random pictures in memory; a crop is stood in for by noise from the generator."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randn(4, 3, size, size, generator=generator)

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index, generator=None):
        return self.pixels[index] + torch.randn(len(index), 3, 1, 1, generator=generator)


def toy_set(profile: str, name: str, model: str, tagger: str) -> TrainingSet:
    """Eight captions over four pictures, two of them without a composition word."""
    place = "on" if name == "coco" else "in"
    captions = [f"red {noun} {place} a mat" for noun in NOUNS[1:]]
    captions += [f"blue {noun} {place} a mat" for noun in NOUNS[1:]] + ["a cat", "one cat"]
    spans = []
    for caption in captions:
        words = caption.split()
        marked = [Span(caption.index(words[1]), caption.index(words[1]) + 3, OBJECT)]
        if len(words) > 2:
            marked.append(Span(0, caption.index(" "), ATTRIBUTE))
        if len(words) > 2 and tagger == "scene-graph":
            relation = caption.index(f" {place} ") + 1
            marked.append(Span(relation, relation + 2, RELATION))
        if words[0] == "blue":
            marked.append(Span(len(caption) - 3, len(caption), OBJECT))
        spans.append(marked)
    clip = load_clip(model)
    index, negatives = torch.arange(8) % 4, [[f"no {caption}"] for caption in captions]
    hard = [[(row + 1) % 8] for row in range(8)]
    files = [Path(f"{number}.png") for number in range(4)]
    pairs = Pairs(files, captions, index, "toy", 8, 8, negatives, hard)
    return TrainingSet(pairs, Pictures(clip.image_size), align(captions, spans, clip.tokenizer))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory):
    """The weights that `RUN` ends with, in a home of the tests' own with other first weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(runs, "training_set", toy_set)
        clip = load_clip("clip-mini", seed=5)
        meta = CheckpointMeta(clip.name, clip.activation)
        save_checkpoint(paths().data / CHANGED["weights"], clip, meta)
        yield outcome()


def outcome(
    name: str = "cae-gradcam", profile: str = "smoke", seed: int = 0, **changes: Any
) -> dict[str, Tensor]:
    return read_state_dict(runs.train_run(name, profile, seed, **RUN | changes))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("field", CHANGED)
def test_a_setting_decides_where_a_run_ends(reference, field: str) -> None:
    assert not same(outcome(**{field: CHANGED[field]}), reference)


def test_a_label_does_not(reference) -> None:
    assert same(outcome("cae-attention", "mini"), reference)


def test_no_setting_is_forgotten_here() -> None:
    assert {field.name for field in dataclasses.fields(Experiment)} == LABELS | CHANGED.keys()
