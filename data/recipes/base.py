"""Train the base model of a profile: `python -m data.recipes.base --profile mini`.

The base model takes the place of OpenAI's CLIP: it is trained once, described, and frozen. Its
stopping point is judged by its own accuracy and attribution, never by the gains of fine-tuning or
CAE on top of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import torch
from torch import Tensor, nn

from cae_bench import datasets
from cae_bench.retrieval import class_prompts
from cae_lab import store
from cae_lab.cli import run_reporting_errors
from cae_lab.measures import classification_sets
from cae_lab.names import BASE
from cae_lab.profiles import load_profile
from cae_lab.provenance import current_provenance
from cae_lab.runs import Profile
from cae_lab.scene_graphs import ADJECTIVES, RELATIONS
from cae_lab.training_set import training_pairs, training_set
from cae_lib.config import Experiment, paths
from cae_lib.data.captions import load_negclip_tsv
from cae_lib.data.rows import read_json
from cae_lib.errors import ConfigError
from cae_lib.models.checkpoint import (
    CheckpointMeta,
    checkpoint_digest,
    read_log,
    read_meta,
    save_checkpoint,
)
from cae_lib.models.clip import Clip, load_clip
from cae_lib.runtime import pick_device, write_atomic
from cae_lib.training.inputs import TRAINING_VERSION, run_inputs
from cae_lib.training.trainer import train
from data.recipes.datasets import stored_key
from data.recipes.photographs import build as photographs
from data.recipes.photographs import pool
from data.recipes.photographs.trunk import fill_trunk
from data.recipes.synthetic_scenes import build as synthetic_scenes
from data.recipes.synthetic_scenes import tower
from data.recipes.synthetic_scenes.config import world_config

CURVE_POINTS = 5
PROBE = "probe.json"


def base_config(profile: Profile, steps: int | None = None) -> Experiment:
    """Return the configuration of the base model's training; `steps` may be fewer than usual."""
    settings = profile.base
    if settings is None:
        raise ConfigError(f"profile {profile.name} starts from downloaded weights, not from a base")
    if steps is not None:
        if steps not in range(1, settings["steps"]):
            raise ConfigError(
                f"a shorter training of the base model of profile {profile.name} has 1 to "
                f"{settings['steps'] - 1} steps, not {steps}"
            )
        settings = settings | {"steps": steps}
    return Experiment("base", profile.name, train_data="pretrain", **settings)


def build_datasets(profile: Profile, pretrain: bool = False) -> Path:
    """Build the datasets of a profile, unless they exist, and return their folder.

    With `pretrain`, the base model's training set of synthetic scenes is built, too.
    """
    if profile.built_from_photographs:
        return photographs.build(profile.name)
    return synthetic_scenes.build(profile.name, pretrain=pretrain)


def train_base(profile: Profile, steps: int | None = None) -> Path:
    """Train the base model of a profile, describe it, and return the path of its weights.

    A base model with fewer `steps` is trained alike, with a schedule that ends at 0; it has no
    table and no card.
    """
    config = base_config(profile, steps)
    shipped = profile.run(f"{BASE}+steps={steps}" if steps else BASE).path
    if steps and _is_complete(shipped, config):
        return shipped
    weights = profile.earlier_base(steps) if steps else profile.training["weights"]
    # Below `CAE_HOME`, so that the weights that came with a clone stay as they are.
    target = paths().data / weights
    build_datasets(profile, pretrain=True)
    name = f"base-training-{steps}" if steps else "base-training"
    folder = paths().checkpoints / profile.name / name
    clip = load_clip(
        config.model, activation=config.activation, device=pick_device(), seed=config.seed
    )
    if config.lock_trunk:
        fill_trunk(clip.model)

    def save_snapshot(step: int, model: nn.Module) -> None:
        meta = CheckpointMeta(clip.name, clip.activation, step, config.key())
        save_checkpoint(folder / "snapshots" / f"{step:06d}.safetensors", model, meta)

    # If the training is finished, only the measurements below are repeated.
    if not _is_complete(folder / "model.safetensors", config):
        if config.tower_steps:
            _pretrain_tower(profile, config, clip, folder)
        data = training_set(profile, clip.tokenizer, clip.image_size, config.train_data)
        train(
            config,
            clip,
            data.pairs,
            data.alignment,
            data.images,
            folder,
            on_step_every=None if steps else max(1, config.steps // CURVE_POINTS),
            on_step=save_snapshot,
            inputs=run_inputs(config, profile.training_digest(config.train_data), clip.weights_id),
        )
    # `clip` has random weights if the training was finished before.
    clip = load_clip(config.model, folder / "model.safetensors", device=pick_device())
    meta = CheckpointMeta(
        clip.name, clip.activation, config.steps, config.key(), {"seed": config.seed}
    )
    # float16 and the rows of used tokens alone, so that the weights are small enough to be shipped.
    tokens = used_tokens(profile, clip)
    save_checkpoint(target, clip, meta, torch.float16, tokens, without_trunk=config.lock_trunk)
    if not steps:
        _describe(profile, config, target, folder)
    return target


def _pretrain_tower(profile: Profile, config: Experiment, clip: Clip, folder: Path) -> None:
    """Pretrain the image tower in place on what the profile's images show, before it is locked.

    If its trunk is locked, the pool alone learns, and `PROBE` in `folder` gets what its heads tell.
    """
    root = profile.root
    content = stored_key(root) if config.lock_trunk else world_config(profile.name).key()
    inputs = [clip.name, config.tower_steps, content, TRAINING_VERSION]
    key = hashlib.sha256(repr(inputs).encode()).hexdigest()[:12]
    # Beside the folder: base models with fewer steps start from the same tower.
    state = folder.with_name(f"tower-{key}.pt")
    if config.lock_trunk:
        shares = pool.pretrain_pool(clip, root, config, state)
        write_atomic(folder / PROBE, json.dumps(shares) + "\n")
    else:
        tower.pretrain_tower(clip, world_config(profile.name).scenes, config.tower_steps, state)


def _is_complete(path: Path, config: Experiment) -> bool:
    meta = read_meta(path) if path.is_file() else None
    return meta is not None and meta.config_key == config.key() and meta.step == config.steps


def used_tokens(profile: Profile, clip: Clip) -> Tensor:
    """Return the ids, without duplicates, of the tokens that a profile may give to a model."""
    return clip.tokenizer(list(dict.fromkeys(_texts(profile)))).unique()


def _texts(profile: Profile) -> Iterator[str]:
    """Yield every text that a profile may give to a model."""
    root = profile.root
    for pairs in (
        training_pairs(profile, "pretrain"),
        training_pairs(profile),
        load_negclip_tsv(root / "coco" / "valid_neg_clip.tsv", root),
        *datasets.retrieval_sets(profile.datasets).values(),
    ):
        yield from pairs.captions
        for false in pairs.negatives or ():
            yield from false
    for item in (
        item for part in datasets.load_benchmarks(profile.datasets) for item in part.items
    ):
        yield from item.texts
    for sentences in datasets.similarity_sets(profile.datasets):
        yield from (*sentences.first, *sentences.second)
    for images in classification_sets(profile).values():
        yield from (text for name in images.classes for text in class_prompts(name))
    # Some measurements compose texts from the vocabulary.
    if profile.is_synthetic:
        yield from RELATIONS
        yield " ".join(["the", "is", *ADJECTIVES])


def _describe(profile: Profile, config: Experiment, target: Path, folder: Path) -> None:
    """Store the training curve, and write the model card beside the weights."""
    # Only here, since it imports scikit-learn.
    from data.recipes.probes import describe_base, zero_shot_numbers

    losses = {int(line["step"]): line["loss"] for line in read_log(folder / "log.jsonl")}
    curve = []
    for path in sorted((folder / "snapshots").glob("*.safetensors")):
        step = int(path.stem)
        point = zero_shot_numbers(load_clip(config.model, path, device=pick_device()), profile)
        curve.append({"step": step, "loss": losses[step]} | point)
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in point.items())
        print(f"base after {step} steps: {numbers}", flush=True)
    # The final numbers are those of the weights as stored, in float16.
    clip = load_clip(config.model, target, device=pick_device())
    size = sum(parameter.numel() for parameter in clip.model.parameters())
    digest = checkpoint_digest(target)
    key = hashlib.sha256(f"{config.key()} {digest}".encode()).hexdigest()[:12]
    provenance = current_provenance(
        profile.name, config.seed, weights=digest[:12], parameters=size, settings=asdict(config)
    )
    # The heads of the tower are gone by now; their numbers were written when it was pretrained.
    probe = read_json(folder / PROBE, dict) if (folder / PROBE).is_file() else {}
    table = training_table(config.steps, curve, probe | describe_base(clip, profile))
    store.save("base_training", profile, BASE, 0, table, key=key, provenance=provenance)
    batch = pool.BATCH if config.lock_trunk else tower.BATCH
    write_atomic(target.with_name("README.md"), base_card(config, table, size, digest, batch))


def training_table(
    steps: int, curve: list[dict[str, float]], final: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the curve, measurements by snapshot, and the final measurements as one table.

    A measurement in `final` is a number, or a mapping with `estimate` and `low`, `high`, `n_items`.
    The column `stored` is true for the final weights only.
    """
    points = pd.DataFrame(curve).melt("step", var_name="measure").assign(stored=False)
    rows = [
        {"measure": name} | (value if isinstance(value, Mapping) else {"estimate": value})
        for name, value in final.items()
    ]
    ends = pd.DataFrame(rows).rename(columns={"estimate": "value", "n_items": "n"})
    table = pd.concat([points, ends.assign(step=steps, stored=True)], ignore_index=True)
    return table.astype({"step": "int32"})


def base_card(
    config: Experiment, table: pd.DataFrame, parameters: int, digest: str, tower_batch: int
) -> str:
    """Return the card of a base model, with the final measurements of a `training_table`."""
    # Int64 allows for missing values, where int64 would become float.
    final = table[table["stored"]][["measure", "value", "low", "high", "n"]].astype({"n": "Int64"})
    cells = final.round(3).astype(object).where(final.notna(), "").values.tolist()
    rows = [list(final.columns), ["---"] * len(final.columns), *cells]
    template = jinja2.Template(
        Path(__file__).with_name("base_card.md").read_text(encoding="utf-8"),
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return template.render(
        config=config,
        parameters=parameters,
        digest=digest,
        tower_batch=tower_batch,
        numbers="\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows),
        earlier_bases=load_profile(config.profile).earlier_bases,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a base model and return the exit code."""
    parser = argparse.ArgumentParser(description="Train the base model of a profile.")
    parser.add_argument("--profile", default="mini")
    parser.add_argument("--steps", type=int, help="a base model of a shorter training")
    parsed = parser.parse_args(arguments)

    def run() -> None:
        print(f"The weights are {train_base(load_profile(parsed.profile), parsed.steps)}")

    return run_reporting_errors(run, f"python -m data.recipes.base --profile {parsed.profile}")


if __name__ == "__main__":
    sys.exit(main())
