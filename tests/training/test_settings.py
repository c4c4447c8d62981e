"""Every setting of a run changes the weights that it ends with; what only names a run does not."""

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import CAPTIONS, Toys, WordTagger, toy_pairs

from cae_lab import training_set
from cae_lab.profiles import load_profile
from cae_lab.runs import Profile, Run
from cae_lab.training_set import TrainingSet
from cae_lib.config import Experiment, paths
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import load_clip
from cae_lib.models.weight_files import read_state_dict
from cae_lib.words.alignment import align
from cae_lib.words.roles import RELATION

RUN: dict[str, Any] = {"model": "clip-mini", "weights": None, "lock_image": False, "augment": True}
RUN |= {"method": "gradcam", "weight": 10.0, "margin": 2.0, "negatives": False}  # an active hinge
RUN |= {"precision": "fp32", "steps": 2, "batch_size": 4, "warmup": 1, "lr": 1e-3}
LABELS = {"name", "profile"}
ELSEWHERE = {"lock_trunk", "tower_steps", "weights_share", "swapped"}
"""Tested elsewhere: of a tower of timm, the base, OpenAI's weights, and swaps of a tagger."""
CHANGED: dict[str, Any] = {
    "model": "ViT-S-32",
    "activation": "gelu",
    "weights": "other.safetensors",
    "train_data": "pretrain",
    "augment": False,
    "method": "attention",
    "attribution": (("start_layer", -1),),
    "weight": 20.0,
    "further_methods": (("attention", 10.0),),
    "hinge": "log",
    "margin": -2.0,
    "scope": "caption",
    "stop_gradient": True,
    "complete_captions": False,
    "roles": "permuted",
    "image_gradient": False,
    "tagger": "dependency",
    "negatives": True,
    "foils": "exchanged",
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


@cache
def toy_set(
    profile: Profile, tokenizer: Any, image_size: int, name: str, tagger: str
) -> TrainingSet:
    """Return the toy set: other captions as "pretrain", no relations by "dependency"."""
    captions = CAPTIONS if name == "coco" else CAPTIONS[::-1]
    spans = WordTagger().tag(captions)
    if tagger == "dependency":
        spans = [[span for span in marked if span.role != RELATION] for marked in spans]
    alignment = align(captions, spans, tokenizer)
    return TrainingSet(toy_pairs(captions), Toys(size=image_size), alignment)


@pytest.fixture(scope="module", autouse=True)
def toy_home(tmp_path_factory: pytest.TempPathFactory):
    """Return a home for this file, with the toy set and a file of other first weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(training_set, "training_set", toy_set)
        patch.setattr(Run, "require_inputs", lambda _: None)
        patch.setattr(Profile, "training_digest", lambda *_: "toys")
        clip = load_clip("clip-mini", seed=5)
        meta = CheckpointMeta(clip.name, clip.activation)
        save_checkpoint(paths().data / CHANGED["weights"], clip, meta)
        yield


@pytest.fixture(scope="module")
def reference(toy_home: None) -> dict[str, Tensor]:
    """Return the weights that `RUN` ends with."""
    return outcome()


def outcome(
    name: str = "cae-gradcam", profile: str = "smoke", seed: int = 0, **changes: Any
) -> dict[str, Tensor]:
    return read_state_dict(load_profile(profile).run(name, seed, **RUN | changes).train())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("field", CHANGED)
def test_a_setting_changes_the_weights(reference, field: str) -> None:
    assert not same(outcome(**{field: CHANGED[field]}), reference)


KINDS: dict[str, list[dict[str, Any]]] = {
    "of the loss": [
        {},
        {"hinge": "log"},
        {"hinge": "margin"},
        {"scope": "caption"},
        {"scope": "word"},
        {"roles": "permuted"},
        {"roles": "random"},
        {"roles": "permuted", "match_gradient": True},
    ],
    "of negative captions": [
        {"method": None, "margin": 0.5} | changes
        for changes in (
            {},
            {"foils": "given"},
            {"foils": "exchanged"},
            {"foils": "exchanged", "roles": "permuted"},
            {"foils": "exchanged", "foil_hinge": True},
            {"foils": "given", "foil_hinge": True},
            {"foils": "given", "foil_hinge": True, "margin": 1e-3},
            {"foils": "given", "foil_hinge": True, "weight": 5.0},
        )
    ],
    "of margins": [
        {"method": None, "margin": 0.5, "foils": "given", "foil_hinge": True} | changes
        for changes in ({}, {"margin_rule": "adaptive"})
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_a_setting_end_with_weights_of_their_own(kind: str) -> None:
    ends = [outcome(**changes) for changes in KINDS[kind]]
    assert not any(same(a, b) for i, a in enumerate(ends) for b in ends[:i])


def test_names_change_nothing_and_every_setting_is_tested(reference) -> None:
    assert same(outcome("cae-attention", "mini"), reference)
    assert {field.name for field in dataclasses.fields(Experiment)} == (
        LABELS | ELSEWHERE | CHANGED.keys() | {"foil_hinge", "match_gradient", "margin_rule"}
    )
