"""`cae train base`: the base model of the small world, trained once, described, then frozen.

It plays the part of OpenAI's CLIP. Its stopping point is judged by its own zero-shot numbers and
attribution, never by what fine-tuning or CAE gains from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from cae_lib import results
from cae_lib.config import Experiment, experiment, paths, profile
from cae_lib.data.training_set import training_set
from cae_lib.errors import ConfigError
from cae_lib.evaluation.knowledge import KINDS, curve_point, summary
from cae_lib.models.checkpoint import CheckpointMeta, file_digest, read_meta, save_checkpoint
from cae_lib.models.clip import Clip, load_clip
from cae_lib.runs import BASE, TUNED, earlier_base_path, weights_path
from cae_lib.runtime import pick_device, stamp, write_atomic
from cae_lib.training.log import read_log
from cae_lib.training.loop import train
from cae_lib.world.build import build

CURVE_POINTS = 10
TABLE = "base_training"


def base_config(profile_name: str, steps: int | None = None) -> Experiment:
    """Configuration of the base model's training, or of a shorter one of so many steps.

    Raises:
        ConfigError: The profile's base is downloaded, not trained.
    """
    settings = profile(profile_name).base
    if settings is None:
        raise ConfigError(f"profile {profile_name} starts from downloaded weights, not from a base")
    length = {"steps": steps} if steps else {}
    return Experiment("base", profile_name, train_data="pretrain", **settings | length)


def train_base(profile_name: str) -> None:
    """Train the base model of a profile, and write its weights, its curve (`TABLE`) and its card.

    The curve is measured after training on snapshots of the weights, so an interrupted training
    goes on, and a finished one is only measured.
    """
    config = base_config(profile_name)
    build(profile_name, pretrain=True)
    clip = load_clip(config.model, activation=config.activation, device=pick_device(),
                     seed=config.seed)
    folder = paths().checkpoints / profile_name / "base-training"

    def snapshot(step: int, model: nn.Module) -> None:
        meta = CheckpointMeta(clip.name, clip.activation, step, config.key())
        save_checkpoint(folder / "snapshots" / f"{step:06d}.safetensors", model, meta)

    if not _complete(folder / "model.safetensors", config):
        data = training_set(profile_name, config.train_data, config.model)
        train(config, clip, data.pairs, data.alignment, data.images, folder,
              every=max(1, config.steps // CURVE_POINTS), on_step=snapshot)
    clip = load_clip(config.model, folder / "model.safetensors", device=pick_device())
    target = weights_path(experiment(TUNED, profile_name))
    meta = CheckpointMeta(clip.name, clip.activation, config.steps, config.key(),
                          {"seed": config.seed})
    save_checkpoint(target, clip, meta, dtype=torch.float16)
    losses = {int(line["step"]): line["loss"] for line in read_log(folder / "log.jsonl")}
    curve = []
    for path in sorted((folder / "snapshots").glob("*.safetensors")):
        step = int(path.stem)
        point = curve_point(load_clip(config.model, path, device=pick_device()), profile_name)
        curve.append({"step": step, "loss": losses[step]} | point)
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in point.items())
        print(f"base after {step} steps: {numbers}", flush=True)
    _describe(profile_name, config, clip, curve)


def train_base_as(profile_name: str, overrides: Mapping[str, Any]) -> None:
    """Train the base model, or with `steps` one of fewer steps.

    Raises:
        ConfigError: Other settings are given, or more steps than the base model's.
    """
    if not overrides:
        return train_base(profile_name)
    most = base_config(profile_name).steps
    steps = overrides.get("steps", 0)
    if set(overrides) != {"steps"} or not 0 < steps < most:
        raise ConfigError(
            f"the base model of profile {profile_name} takes one setting, steps=N with N from 1 to "
            f"{most - 1}: {', '.join(f'{k}={v}' for k, v in overrides.items())}"
        )
    print(f"The weights are {train_earlier_base(profile_name, steps)}")


def train_earlier_base(profile_name: str, steps: int) -> Path:
    """Train a base model of fewer steps, or find it trained; returns its weights.

    All else is as in `train_base`, the schedule of the learning rate included, which ends at 0.
    """
    config = base_config(profile_name, steps)
    target = earlier_base_path(profile_name, steps)
    if _complete(target, config):
        return target
    build(profile_name, pretrain=True)
    clip = load_clip(config.model, activation=config.activation, device=pick_device(),
                     seed=config.seed)
    folder = paths().checkpoints / profile_name / f"base-training-{steps}"
    data = training_set(profile_name, config.train_data, config.model)
    train(config, clip, data.pairs, data.alignment, data.images, folder)
    meta = CheckpointMeta(clip.name, clip.activation, config.steps, config.key(),
                          {"seed": config.seed})
    save_checkpoint(target, clip, meta, dtype=torch.float16)
    return target


def _complete(path: Path, config: Experiment) -> bool:
    meta = read_meta(path) if path.is_file() else None
    return meta is not None and meta.config_key == config.key() and meta.step == config.steps


def _describe(
    profile_name: str, config: Experiment, clip: Clip, curve: list[dict[str, float]]
) -> None:
    """Store the table `TABLE` and, beside the shipped weights, write the model card."""
    path = weights_path(experiment(TUNED, profile_name))
    trained = load_clip(config.model, path, device=pick_device())
    n_parameters = sum(p.numel() for p in clip.model.parameters())
    content = {"curve": curve, "parameters": n_parameters, "final": summary(trained, profile_name)}
    digest = file_digest(path)
    key = hashlib.sha256(f"{config.key()} {digest}".encode()).hexdigest()[:12]
    provenance = stamp(profile_name, config.seed, weights=digest[:12], parameters=n_parameters,
                       settings=asdict(config))
    rows = training_table(config.steps, curve, content["final"])
    results.save(TABLE, BASE, 0, rows, profile_name, key=key, provenance=provenance)
    write_atomic(path.with_name("README.md"), card(config, content, digest))


def training_table(
    steps: int, curve: list[dict[str, float]], final: Mapping[str, Any]
) -> pd.DataFrame:
    """The curve and the final numbers as rows: step, measure, value; of final ones low, high, n.

    The final numbers are those of the weights as they are stored, in float16: `stored` is true.
    """
    rows = [
        {"step": int(point["step"]), "measure": name, "value": value, "stored": False}
        for point in curve for name, value in point.items() if name != "step"
    ]
    for name, found in final.items():
        if not isinstance(found, Mapping):
            found = {"estimate": found}
        rows.append({"step": steps, "measure": name, "value": found["estimate"], "stored": True,
                     "low": found.get("low"), "high": found.get("high"),
                     "n": found.get("n_items")})
    numbers = dict.fromkeys(("value", "low", "high", "n"), "float64")
    return pd.DataFrame(rows).astype(numbers | {"step": "int32"})


def card(config: Experiment, content: Mapping[str, Any], digest: str) -> str:
    """The model card in Markdown, all numbers from the run itself."""
    final = content["final"]
    rows = [f"| {kind} choices | {_percent(final[kind])} |" for kind in KINDS]
    rows += [
        f"| retrieval R@1, {way}, {final['n_pictures']} pictures | {100 * final[key]:.1f} % |"
        for way, key in (
            ("image to text", "retrieval_i2t_r1"),
            ("text to image", "retrieval_t2i_r1"),
        )
    ]
    rows += [
        f"| attention on {kind} words | {_plain(final[f'attention_{kind}'])} |" for kind in KINDS
    ]
    points = [
        f"| {int(p['step'])} | {p['loss']:.2f} | " + " | ".join(f"{100 * p[k]:.1f}" for k in KINDS)
        + f" | {100 * p['retrieval_t2i_r1']:.1f} | "
        + " | ".join(f"{p[f'attention_{k}']:.3f}" for k in KINDS) + " |"
        for p in content["curve"]
    ]
    return "\n".join([
        "# clip-mini, the base model of the small world", "",
        f"A CLIP of {content['parameters'] / 1e6:.1f} million parameters ({config.activation}), "
        f"trained from random weights by `cae train base --profile {config.profile}`: "
        f"{config.steps} steps of {config.batch_size} pairs, lr {config.lr:g}, seed {config.seed}, "
        f"{config.precision}. Stored in float16; SHA-256 `{digest[:16]}...`.", "",
        "Zero-shot on the small world's held-out sets (95 % intervals):", "",
        "| measure | value |", "|---|---|", *rows, "",
        "The curve of its training (percent; attention as a fraction):", "",
        "| step | loss | object | relation | attribute | T2I R@1 | attention object | relation "
        "| attribute |",
        "|---|---|---|---|---|---|---|---|---|", *points, "",
        "Intended use: the starting point of the book's experiments. It knows nothing else.", "",
        "`base-STEPS.safetensors` are models of shorter trainings, all else the same "
        f"(`cae train base --profile {config.profile} --set steps=STEPS`), for the question when "
        "CAE helps.", "",
    ])


def _percent(interval: Mapping[str, float]) -> str:
    low, high = 100 * interval["low"], 100 * interval["high"]
    return f"{100 * interval['estimate']:.1f} % [{low:.1f}, {high:.1f}], n = {interval['n_items']}"


def _plain(interval: Mapping[str, float]) -> str:
    return f"{interval['estimate']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"
