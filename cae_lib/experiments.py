"""The runs of a profile: train one, evaluate one, and know where their files and records lie.

A run is trained once: a checkpoint whose configuration key still holds is not made again. An
evaluation is a record whose key covers the weights, the data and the kind of measurement.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from cae_lib.config import Experiment, experiment, paths, profile
from cae_lib.data.training_set import training_set
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.registry import BASE_SUITES, SUITES
from cae_lib.evaluation.suite import manifest_path
from cae_lib.models.checkpoint import file_digest, read_meta
from cae_lib.models.clip import Clip, load_clip
from cae_lib.records import Record, load_or_run, load_record
from cae_lib.runtime import one_thread, pick_device
from cae_lib.training.loop import train

MEASUREMENT = 1
"""Raise when what an evaluation stores changes meaning: old records are then computed anew."""


def weights_path(config: Experiment) -> str | Path | None:
    """The weights a run starts from: a file under the data folder, or an open_clip tag."""
    if config.weights is None or not config.weights.endswith(".safetensors"):
        return config.weights
    return paths().data / config.weights


def checkpoint_path(name: str, profile_name: str, seed: int) -> Path:
    """Where the weights of a run lie; "base" is where every run of the profile starts."""
    if name == "base":
        path = weights_path(experiment("clip-ft", profile_name))
        if not isinstance(path, Path):
            raise ConfigError(f"the base of profile {profile_name} is the open_clip tag {path!r}")
        return path
    return paths().checkpoints / profile_name / name / str(seed) / "model.safetensors"


def run_training(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Path:
    """Train one run, or find it trained; returns its checkpoint.

    A run with `overrides` lies in a folder of its own, named by its key.

    Raises:
        ConfigError: Unknown run, profile or setting.
        DataError: The training data are not there.
    """
    config = experiment(name, profile_name, seed=seed, **overrides)
    folder = checkpoint_path(name, profile_name, seed).parent
    if overrides:
        folder = paths().checkpoints / profile_name / "variants" / config.key()
    target = folder / "model.safetensors"
    if target.is_file():
        meta = read_meta(target)
        if meta is not None and meta.config_key == config.key() and meta.step == config.steps:
            return target
    data = training_set(profile_name, config.train_data, config.model)
    clip = load_clip(config.model, weights_path(config), config.activation, pick_device())
    print(f"Training {name}, seed {seed}: {config.steps} steps of {config.batch_size}", flush=True)
    with one_thread(pick_device()):
        return train(config, clip, data.pairs, data.alignment, data.images, folder).checkpoint


def evaluate_run(name: str, profile_name: str, seed: int = 0, fresh: bool = False) -> None:
    """Compute what is missing of a run's records (all of them with `fresh`, once a clone)."""
    run = _LazyEncoder(checkpoint_path(name, profile_name, seed))
    data = _data_digest(profile_name)
    suites = {**SUITES, **BASE_SUITES} if name == "base" else SUITES
    for suite, measure in suites.items():
        content = f"{MEASUREMENT} {suite} {run.digest} {data}"
        load_or_run(
            record_name(name, suite, seed),
            profile_name,
            hashlib.sha256(content.encode()).hexdigest()[:12],
            lambda measure=measure: measure(run.encoder, profile_name),
            config={"run": name, "suite": suite, "weights": run.digest[:12], "data": data[:12]},
            seed=seed,
            fresh=fresh,
        )


def record_name(name: str, suite: str, seed: int) -> str:
    """Name of the record of one run's evaluation."""
    return f"{name}/{seed}/{suite}"


@lru_cache(maxsize=256)
def _load(name: str, profile_name: str) -> Record:
    return load_record(name, profile_name)


def results(name: str, profile_name: str, suite: str, seeds: int | None = None) -> list[Record]:
    """The stored evaluations of a run, one a seed; the base has one.

    Raises:
        ConfigError: More seeds are asked for than the profile has.
        DataError: A record is missing; the message says which command computes it.
    """
    available = profile(profile_name).seeds
    seeds = available if seeds is None else seeds
    if not 1 <= seeds <= available:
        raise ConfigError(f"seeds={seeds}: expected 1 to {available} in profile {profile_name}")
    numbers = range(1 if name == "base" else seeds)
    return [_load(record_name(name, suite, number), profile_name) for number in numbers]


class _LazyEncoder:
    """Loads the model only when something has to be computed."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.digest = file_digest(checkpoint)
        self._encoder: Encoder | None = None

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = Encoder(_load_checkpoint(self.checkpoint))
        return self._encoder


def _load_checkpoint(path: Path) -> Clip:
    meta = read_meta(path)
    if meta is None:
        raise DataError(f"{path} holds no meta data: write it with `cae train`")
    return load_clip(meta.model, path, device=pick_device())


def _data_digest(profile_name: str) -> str:
    path = manifest_path(profile_name)
    if not path.is_file():
        command = f"cae world build --profile {profile_name}"
        raise DataError(f"{path}: the data are not built here; run `{command}`")
    return file_digest(path)
