"""The runs of a profile: train one, evaluate one, and know where their files and records lie.

A run is trained once: a checkpoint whose configuration key still holds is not made again. An
evaluation is a record whose key covers the weights, the data and the kind of measurement. Settings
other than the profile's make a variant, whose files and records lie apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cae_lib.config import Experiment, experiment, paths, profile
from cae_lib.data import needs
from cae_lib.data.identity import data_digests
from cae_lib.data.needs import is_real
from cae_lib.data.training_set import training_set
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.amounts import amounts
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.registry import BASE_SUITES, SUITES, Suite
from cae_lib.models.checkpoint import file_digest, read_meta
from cae_lib.models.clip import load_clip
from cae_lib.models.weights import Weights
from cae_lib.records import Record, load_or_run, load_record, record_path
from cae_lib.runtime import one_thread, pick_device
from cae_lib.training.execution import Execution
from cae_lib.training.loop import train

BASE = "base"
MEASUREMENT = 1
"""Raise when what an evaluation stores changes meaning: old records are then computed anew."""


def weights_path(config: Experiment) -> str | Path | None:
    """The weights a run starts from: a file under the data folder, or an open_clip tag."""
    if config.weights is None or not config.weights.endswith(".safetensors"):
        return config.weights
    return paths().data / config.weights


def checkpoint_path(name: str, profile_name: str, seed: int, **overrides: Any) -> Path:
    """Where the weights of a run lie; "base" is where every run of the profile starts.

    A run with `overrides` lies in a folder of its own, named by its key.

    Raises:
        ConfigError: The base is no file, but a tag of open_clip or random weights.
    """
    if name == BASE:
        path = weights_path(experiment("clip-ft", profile_name, **overrides))
        if not isinstance(path, Path):
            raise ConfigError(f"the base of profile {profile_name} is the open_clip tag {path!r}")
        return path
    folder = paths().checkpoints / profile_name
    if overrides:
        key = experiment(name, profile_name, seed=seed, **overrides).key()
        return folder / "variants" / key / "model.safetensors"
    return folder / name / str(seed) / "model.safetensors"


def weights_of(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Weights:
    """The weights of a run, or those that the profile's runs start from ("base").

    Raises:
        ConfigError: Unknown run, profile or setting.
    """
    if name != BASE:
        return Weights(checkpoint_path(name, profile_name, seed, **overrides))
    start = experiment("clip-ft", profile_name, **overrides)
    return Weights(weights_path(start), start.model, start.activation)


def run_training(
    name: str,
    profile_name: str,
    seed: int = 0,
    execution: Execution | None = None,
    **overrides: Any,
) -> Path:
    """Train one run, or find it trained; returns its checkpoint.

    How it is executed (`execution`) changes its numbers by rounding at most.

    Raises:
        ConfigError: Unknown run, profile or setting.
        DataError: The training data are not there, or a part of them is missing.
    """
    config = experiment(name, profile_name, seed=seed, **overrides)
    target = checkpoint_path(name, profile_name, seed, **overrides)
    if _is_trained(target, config):
        return target
    if is_real(profile_name):
        start = weights_path(config)
        tag = needs.weights_source(config.model, start)
        _tell(needs.Stock.of((*needs.TRAINING, *tag)).require())
    data = training_set(profile_name, config.train_data, config.model, config.tagger)
    clip = load_clip(config.model, weights_path(config), config.activation, pick_device())
    rows = f" on {data.pairs.n_used:,} of {data.pairs.n_expected:,} rows"
    print(
        f"Training {name}, seed {seed}: {config.steps} steps of {config.batch_size}"
        f"{rows if is_real(profile_name) else ''}",
        flush=True,
    )
    with one_thread(pick_device()):
        out = target.parent
        parts = (data.pairs, data.alignment, data.images)
        return train(config, clip, *parts, out, execution=execution).checkpoint


def _is_trained(path: Path, config: Experiment) -> bool:
    """Whether a run is complete, from the weights that it starts from now.

    Raises:
        DataError: It was trained on a part of its data, which is not allowed now.
    """
    meta = read_meta(path) if path.is_file() else None
    if meta is None or meta.config_key != config.key() or meta.step != config.steps:
        return False
    start = weights_path(config)
    if isinstance(start, Path) and meta.extra.get("started_from") != file_digest(start):
        return False
    used, expected = meta.extra.get("rows", (0, 0))
    if used != expected and not needs.may_be_incomplete(needs.TRAINING[0]):
        raise DataError(
            f"{path} was trained on {used:,} of {expected:,} rows. Remove its folder to train on "
            f"all of them, or keep it with --allow-missing {needs.TRAINING[0]}"
        )
    return True


def evaluate_run(
    name: str,
    profile_name: str,
    seed: int = 0,
    fresh: bool = False,
    only: Iterable[str] = (),
    **overrides: Any,
) -> None:
    """Compute what is missing of a run's records (all of them with `fresh`, once a clone).

    Real sets that may be incomplete (see `allowing`) are used as far as they are there. With `only`
    no other suites are measured than those.

    Raises:
        ConfigError: Unknown run, profile, setting or suite.
        CheckpointError: The run is not trained.
        DataError: Data are missing; the message says which, and how to get them.
    """
    suites = _chosen({**SUITES, **BASE_SUITES} if name == BASE else SUITES, only)
    weights = weights_of(name, profile_name, seed, **overrides)
    tag = needs.weights_source(weights.model, weights.source)
    data = data_digests(profile_name, suites, tag)
    run = _LazyEncoder(weights, is_real(profile_name))
    for suite, measure in suites.items():
        content = f"{MEASUREMENT} {suite} {run.digest} {data[suite]}"
        try:
            record = load_or_run(
                record_name(run_label(name, profile_name, **overrides), suite, seed),
                profile_name,
                hashlib.sha256(content.encode()).hexdigest()[:12],
                lambda measure=measure: measure(run.encoder, profile_name),
                config={**overrides, "run": name, "suite": suite, "weights": run.digest[:12],
                        "data": data[suite][:12]},
                seed=seed,
                fresh=fresh,
            )  # fmt: skip
        except DataError as error:
            if not (is_real(profile_name) and needs.may_be_absent(suite)):
                raise
            print(f"Left out: {suite}. {error}", flush=True)
        else:
            _tell(amounts(suite, record.results) if is_real(profile_name) else ())


def _chosen(suites: Mapping[str, Suite], only: Iterable[str]) -> Mapping[str, Suite]:
    names = list(only)
    unknown = [name for name in names if name not in suites]
    if unknown:
        raise ConfigError(
            f"no such measurement: {', '.join(unknown)}; expected some of {', '.join(suites)}"
        )
    return {name: suites[name] for name in names} if names else suites


def run_label(name: str, profile_name: str, **overrides: Any) -> str:
    """The part of a record's name that tells the run: its name, or `variants/KEY`.

    The key is that of seed 0, so that the seeds of a variant lie side by side.
    """
    if not overrides:
        return name
    config = experiment("clip-ft" if name == BASE else name, profile_name, **overrides)
    return f"variants/{dataclasses.replace(config, name=name).key()}"


def record_name(name: str, suite: str, seed: int) -> str:
    """Name of the record of one run's evaluation."""
    return f"{name}/{seed}/{suite}"


@lru_cache(maxsize=256)
def _load(name: str, profile_name: str) -> Record:
    return load_record(name, profile_name)


def results(
    name: str, profile_name: str, suite: str, seeds: int | None = None, **overrides: Any
) -> list[Record]:
    """The stored evaluations of a run, one a seed; the base has one.

    Raises:
        ConfigError: More seeds are asked for than the profile has.
        DataError: A record is missing; the message says which command computes it.
    """
    available = profile(profile_name).seeds
    seeds = available if seeds is None else seeds
    if not 1 <= seeds <= available:
        raise ConfigError(f"seeds={seeds}: expected 1 to {available} in profile {profile_name}")
    label = run_label(name, profile_name, **overrides)
    names = [record_name(label, suite, number) for number in range(1 if name == BASE else seeds)]
    for seed, record in enumerate(names):
        if is_real(profile_name) and not record_path(record, profile_name).is_file():
            raise _not_measured(name, record, profile_name, suite, seed, overrides)
    return [_load(record, profile_name) for record in names]


def _not_measured(
    name: str, record: str, profile_name: str, suite: str, seed: int, overrides: Mapping[str, Any]
) -> DataError:
    settings = "".join(f" --set {shlex.quote(f'{key}={v}')}" for key, v in overrides.items())
    options = f"--profile {profile_name} --seed {seed}{settings}"
    commands = [f"cae evaluate {name} {options}"]
    if name != BASE:
        commands.insert(0, f"cae train {name} {options}")
    lines = [
        f"{record} is not measured yet in the profile {profile_name}.",
        f"Run: {'; '.join(commands)}",
        needs.missing_for(suite),
    ]
    return DataError("\n".join(line for line in lines if line))


class _LazyEncoder:
    """Loads the model only when something has to be computed."""

    def __init__(self, weights: Weights, real: bool) -> None:
        self.weights = weights
        self.real = real  # VL-CheckList has pictures that end too early; they are counted
        self.digest = weights.digest()
        self._encoder: Encoder | None = None

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            clip = self.weights.load(pick_device())
            self._encoder = Encoder(clip, allow_truncated=self.real)
        return self._encoder


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)
