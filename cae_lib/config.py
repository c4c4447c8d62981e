"""Folders, profiles, and the configuration of every training run.

One code path serves all profiles: `smoke` (seconds, its numbers mean nothing), `mini` (the
published book, two CPU cores) and `paper` (the paper's setting, one large GPU).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_lib.errors import ConfigError

METHODS = ("attention", "gradcam", "perturbation", "gradient")


@dataclass(frozen=True)
class Paths:
    """Folders of the project; all lie under `root`."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        places = {
            "book": "book", "data": "data", "raw": "data/raw", "cache": "data/cache",
            "checkpoints": "data/checkpoints", "records": "data/records", "mini": "data/mini",
            "runs": "runs", "build": "build",
        }
        if name not in places:
            raise AttributeError(name)
        return self.root / places[name]


def paths() -> Paths:
    """The project's folders.

    The root is `CAE_HOME` if that is set, else the repository that holds this package, else the
    current folder.
    """
    home = os.environ.get("CAE_HOME")
    if home:
        return Paths(Path(home).expanduser().resolve())
    repository = Path(__file__).resolve().parent.parent
    return Paths(repository if (repository / "pyproject.toml").is_file() else Path.cwd())


@dataclass(frozen=True)
class Experiment:
    """One training run; `key` names it by content.

    Attributes:
        name: Row of the tables, such as "clip-ft" or "cae-attention".
        profile: One of `PROFILES`.
        model: open_clip model name, or "clip-mini".
        activation: "quickgelu" or "gelu".
        weights: Where training starts: a checkpoint under the data folder, an open_clip tag, or
            None for random weights.
        train_data: Name of the training set.
        augment: Crop pictures at random; False takes the crop of evaluation.
        method: Attribution method of the CAE loss; None trains CLIP-FT.
        attribution: Parameters of the method, as (name, value) pairs.
        weight: lambda, the weight of the attribution loss.
        hinge, margin, scope, stop_gradient, complete_captions: Of the attribution loss; see
            `cae_lib.training.losses.Hinge`.
        roles: "parsed", or a placebo, "permuted" or "random"; see
            `cae_lib.words.alignment.placebo_roles`.
        tagger: What finds the roles of words: "scene-graph", the paper's, or "dependency".
        negatives: Train with NegCLIP's hard negatives: two pictures and four texts for each row.
        masked: Share of the captions that the contrastive loss sees with one word masked, drawn
            from those with a role, as perturbation masks it by default.
        lock_image: Keep the image tower as it is, and train the text tower alone.
        lock_trunk: Keep the network of a tower of timm as it is, and train the tower's head.
        steps, batch_size, warmup: Optimiser steps, pairs a step, steps of linear warm-up.
        lr, weight_decay, betas, eps: AdamW.
        precision: "fp32" or "bf16" (autocast).
        seed: Seed of all that is drawn: the order of the data, crops, negatives, masks, placebos.
    """

    name: str
    profile: str
    model: str = "clip-mini"
    activation: str = "quickgelu"
    weights: str | None = None
    train_data: str = "coco"
    augment: bool = True
    method: str | None = None
    attribution: tuple[tuple[str, Any], ...] = ()
    weight: float = 0.0
    hinge: str = "difference"
    margin: float = 0.0
    scope: str = "batch"
    stop_gradient: bool = False
    complete_captions: bool = True
    roles: str = "parsed"
    tagger: str = "scene-graph"
    negatives: bool = False
    masked: float = 0.0
    lock_image: bool = False
    lock_trunk: bool = False
    steps: int = 300
    batch_size: int = 128
    warmup: int = 30
    lr: float = 3e-4
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    precision: str = "fp32"
    seed: int = 0

    def key(self) -> str:
        """Hash of the fields that differ from their defaults, 12 hexadecimal digits.

        So a field that is added later, with a default that means what was before, changes no key.
        """
        values = dataclasses.asdict(self)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        chosen = {name: value for name, value in values.items() if value != defaults[name]}
        content = json.dumps(chosen, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Profile:
    """What differs between profiles.

    Attributes:
        name: One of `PROFILES`.
        seeds: Number of seeds of each run.
        base: Steps and batch size of the base model's own training; None where it is downloaded.
        training: Fields of `Experiment` that every run of the profile shares.
        methods: For each row of the tables, the fields that belong to it alone.
        short: Fields of the shorter runs that are compared with each other only (`studies`).
        earlier_bases: Steps of base models that were trained for less long than `base`.
    """

    name: str
    seeds: int
    base: dict[str, Any] | None
    training: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    short: dict[str, Any]
    earlier_bases: tuple[int, ...] = ()


def _rows(hard_batch: int, **weights: float) -> dict[str, dict[str, Any]]:
    """The rows of Tables 1 and 2 that are trained.

    Args:
        hard_batch: Batch size with hard negatives, which make two pictures and four texts of a row.
        weights: lambda for each attribution method.
    """
    cae = {method: {"method": method, "weight": weight} for method, weight in weights.items()}
    hard = {"negatives": True, "batch_size": hard_batch}
    rows: dict[str, dict[str, Any]] = {"clip-ft": {}}
    rows |= {f"cae-{method}": row for method, row in cae.items()}
    rows |= {"negclip": hard}
    return rows | {f"negclip-cae-{method}": row | hard for method, row in cae.items()}


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            seeds=3,
            base={"steps": 4, "batch_size": 16, "lr": 1e-3, "warmup": 2},
            training={"weights": "checkpoints/smoke/base/model.safetensors", "steps": 3,
                      "batch_size": 16, "warmup": 1},
            methods=_rows(4, attention=1.0, gradcam=1.0, perturbation=1.0, gradient=1.0),
            short={"steps": 2, "warmup": 1},
            earlier_bases=(1, 2),
        ),
        Profile(
            name="mini",
            seeds=3,
            base={"steps": 3600, "batch_size": 128, "lr": 1.5e-3, "warmup": 100,
                  "precision": "bf16"},
            training={"weights": "mini/base.safetensors", "precision": "bf16"},
            methods=_rows(32, attention=1.0, gradcam=1.0, perturbation=1.0, gradient=0.3),
            short={"steps": 100, "batch_size": 64, "warmup": 10},
            earlier_bases=(600, 1800),
        ),
        Profile(
            name="photo",
            seeds=3,
            base={"model": "clip-photo", "steps": 300, "batch_size": 256, "lr": 1e-3, "warmup": 50,
                  "precision": "bf16", "lock_trunk": True, "augment": False},
            training={"model": "clip-photo", "weights": "photo/base.safetensors", "steps": 300,
                      "precision": "bf16", "lock_image": True, "augment": False},
            methods=_rows(64, attention=1.0, gradcam=1.0, perturbation=1.0, gradient=1.0),
            short={"steps": 100, "warmup": 10},
        ),
        Profile(
            name="paper",
            seeds=3,
            base=None,
            training={"model": "ViT-B-32", "weights": "openai", "steps": 2135, "batch_size": 256,
                      "warmup": 50, "lr": 1e-6, "precision": "bf16"},
            methods=_rows(256, attention=1.0, gradcam=1.0, perturbation=1.0, gradient=1.0),
            short={"steps": 427},
        ),
    )
}


def profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        ConfigError: There is none; the message lists the known ones.
    """
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}: expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def experiment(name: str, profile_name: str, **overrides: Any) -> Experiment:
    """The configuration of one run: defaults, then the profile's, the row's, and `overrides`.

    Raises:
        ConfigError: Unknown name or profile, or an override of unknown name or wrong type; the
            message lists the known ones.
    """
    chosen = profile(profile_name)
    if name not in chosen.methods:
        known = ", ".join(chosen.methods)
        raise ConfigError(f"unknown experiment {name!r}: expected one of {known}")
    hints = typing.get_type_hints(Experiment)
    for key, value in overrides.items():
        if key not in hints or key in ("name", "profile"):
            known = ", ".join(k for k in hints if k not in ("name", "profile"))
            raise ConfigError(f"unknown setting {key!r} of {name}: expected one of {known}")
        if not _fits(value, hints[key]):
            raise ConfigError(f"{name}: {key} = {value!r} is not of type {hints[key]}")
    return Experiment(name, profile_name, **chosen.training | chosen.methods[name] | overrides)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has a type, for the few types that `Experiment` uses."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        items = typing.get_args(hint)
        if not isinstance(value, tuple):
            return False
        if items[-1] is Ellipsis:
            return all(_fits(item, items[0]) for item in value)
        return len(value) == len(items) and all(map(_fits, value, items))
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
