"""The runs of a profile: their files, and training one. A run is trained once, until something that
decides it changes; where two processes want the same, one waits. Settings other than the profile's
make a variant, whose files lie apart. What trains is imported where it is asked for."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from cae_lib.config import Experiment, paths, shipped
from cae_lib.data import needs
from cae_lib.data.sources import load_sources
from cae_lib.data.training_set import training_set
from cae_lib.errors import CheckpointError, ConfigError, DataError
from cae_lib.evaluation.encoder import Weights
from cae_lib.evaluation.suites import SUITES
from cae_lib.keys import run_inputs
from cae_lib.models.checkpoint import CheckpointMeta, read_meta
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.external import ExternalModel, load_external
from cae_lib.models.weight_files import unpacked
from cae_lib.profiles import experiment, find_profile
from cae_lib.runtime import one_thread, pick_device
from cae_lib.variants import BASE, CONTROLS, TUNED

if TYPE_CHECKING:
    from cae_lib.training.execution import Execution

LOCK = ".lock"
"""File beside the weights: who holds it trains them."""


def weights_path(config: Experiment) -> str | Path | None:
    """The weights a run starts from: a file under the data folder, or an open_clip tag, for which
    OpenAI's own archive stands in where it lies in `data/raw/weights/openai`."""
    archive = paths().raw / "weights" / "openai" / f"{config.model}.pt"
    if config.weights == "openai" and archive.is_file():
        return unpacked(
            archive, config.model, paths().cache / "openai" / f"{config.model}.safetensors"
        )
    if config.weights is not None and config.weights.startswith("raw/"):
        return paths().data / config.weights
    if config.weights is None or not config.weights.endswith(".safetensors"):
        return config.weights
    made_here = config.weights.startswith("checkpoints/")
    return paths().data / config.weights if made_here else shipped(f"data/{config.weights}")


def checkpoint_path(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Path:
    """Where the weights of a run lie, with `overrides` in a folder named by its key. "base" is
    where every run of the profile starts; ConfigError if that is a tag of open_clip."""
    if name == BASE:
        path = weights_path(experiment(TUNED, profile_name, **overrides))
        if not isinstance(path, Path):
            raise ConfigError(f"the base of profile {profile_name} is the open_clip tag {path!r}")
        return path
    folder = paths().checkpoints / profile_name
    if overrides:
        key = experiment(name, profile_name, **overrides, seed=seed).key()
        return folder / "variants" / key / "model.safetensors"
    return folder / name / str(seed) / "model.safetensors"


def weights_of(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Weights:
    """The weights of a run, or those that the profile's runs start from ("base")."""
    if name != BASE:
        return Weights(checkpoint_path(name, profile_name, seed, **overrides))
    start = experiment(TUNED, profile_name, **overrides)
    return Weights(weights_path(start), start.model, start.activation)


def has_training(name: str, profile_name: str, **overrides: Any) -> bool:
    """Return whether a run has steps; one without is measured with the weights it starts from."""
    return name != BASE and experiment(name, profile_name, **overrides).steps > 0


def external_model(config: Experiment) -> ExternalModel:
    """Return how the weights of a run without training are read.

    Raises:
        ConfigError: If it has no weights.
        DataError: If they are not here; the message says how to get them.
    """
    weights = weights_path(config)
    if weights is None:
        raise ConfigError(f"{config.name}: a run with steps 0 needs weights")
    if not (isinstance(weights, Path) and weights.exists()):
        names = needs.source_of_weights(config.model, weights)
        needs.raise_if_missing(needs.check_sources(names))
    if isinstance(weights, Path):
        share = config.weights_share
        return ExternalModel(str(weights), config.model, config.activation, share)
    source = weights if ":" in weights else f"{config.model}:{weights}"
    return ExternalModel(source, activation=config.activation)


def train_run(
    name: str,
    profile_name: str,
    seed: int = 0,
    execution: Execution | None = None,
    hours: float | None = None,
    **overrides: Any,
) -> Path:
    """Train one run, or find it trained on the same data; returns its checkpoint. ConfigError for
    an unknown run, profile or setting; DataError if training data are missing, all or in part;
    TooLongError, after its first steps, if it would take more `hours` here."""
    config = experiment(name, profile_name, seed=seed, **overrides)
    if not config.steps:
        raise ConfigError(f"{name} has no steps to train; `cae evaluate {name}` measures it")
    target = checkpoint_path(name, profile_name, seed, **overrides)
    require_data(config, target)
    inputs = training_inputs(config)
    if is_trained(target, inputs):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = nullcontext() if os.environ.get("RANK", "0") != "0" else FileLock(target.with_name(LOCK))
    with lock:  # taken once for all processes of torchrun
        return _train_if_stale(config, target, inputs, execution, hours)


def training_inputs(config: Experiment) -> dict[str, str]:
    """Return what decides a run, see `run_inputs`; DataError if its data are not here, and
    CheckpointError if the weights are not that it starts from."""
    start = Weights(weights_path(config), config.model, config.activation).digest()
    return run_inputs(config, needs.training_digest(config.profile, config.train_data), start)


def is_trained(path: Path, inputs: Mapping[str, str]) -> bool:
    """Return whether a checkpoint holds the finished run of these inputs."""
    meta = read_meta(path) if path.is_file() else None
    return meta is not None and meta.extra.get("identity") == inputs


def require_data(config: Experiment, target: Path) -> None:
    """Say what may be missing for a training; DataError for what may not, or what its checkpoint
    `target` was made without."""
    start = weights_path(config)
    used, expected = read_meta(target).extra.get("rows", (0, 0)) if target.is_file() else (0, 0)
    if used != expected and not needs.may_be_incomplete(needs.TRAINING[0]):
        raise DataError(
            f"{target} was trained on {used:,} of {expected:,} rows. Remove its folder to train on "
            f"all of them, or keep it with --allow-missing {needs.TRAINING[0]}"
        )
    if not find_profile(config.profile).real:
        _require_built(config.profile, start)
        return
    tag = needs.source_of_weights(config.model, start)
    for line in needs.raise_if_missing(needs.check_sources((*needs.TRAINING, *tag))):
        print(line, flush=True)


def _require_built(profile_name: str, start: str | Path | None) -> None:
    """CheckpointError or DataError, which names the command to run, where a profile without real
    data has no base model yet, although runs `start` from it, or no sets."""
    base = weights_path(experiment(TUNED, profile_name))
    if isinstance(base, Path) and start == base and not base.is_file():
        raise CheckpointError(
            f"{base}: the base model is not trained yet; run `cae train base "
            f"--profile {profile_name}`, which builds the sets as well"
        )
    if not (find_profile(profile_name).root / "coco").is_dir():
        needs.data_digests(profile_name, ())


def _train_if_stale(
    config: Experiment,
    target: Path,
    inputs: Mapping[str, str],
    execution: Execution | None,
    hours: float | None,
) -> Path:
    from cae_lib.training.state import describe_changes
    from cae_lib.training.trainer import STATE, train

    if is_trained(target, inputs):  # by another process, meanwhile
        return target
    if target.is_file():
        why = describe_changes(
            (read_meta(target) or CheckpointMeta("", "")).extra.get("identity"), inputs
        )
        print(f"{target} is out of date: {why}", flush=True)
    data = training_set(config.profile, config.train_data, config.model, config.tagger)
    clip = load_clip(config.model, weights_path(config), config.activation, pick_device())
    _drop_other_state(target.with_name(STATE), inputs)
    rows = f" on {data.pairs.n_used:,} of {data.pairs.n_expected:,} rows"
    print(
        f"Training {config.name}, seed {config.seed}: {config.steps} steps of "
        f"{config.batch_size}{rows if find_profile(config.profile).real else ''}",
        flush=True,
    )
    with one_thread(pick_device()):
        return train(
            config,
            clip,
            data.pairs,
            data.alignment,
            data.images,
            target.parent,
            execution=execution,
            inputs=inputs,
            hours=hours,
        )


def _drop_other_state(path: Path, identity: Mapping[str, str]) -> None:
    """Remove what an interrupted training left if it was another one; that would be refused."""
    from cae_lib.training.state import describe_changes

    try:
        kept = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["identity"]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return  # there is none, or the training says what is wrong with it
    if why := describe_changes(kept, identity):
        print(f"{path} is out of date: {why}", flush=True)
        path.unlink(missing_ok=True)


def open_run(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Clip:
    """The model of a run, "base" or one of `CONTROLS`; CheckpointError if it is not trained."""
    if name not in (BASE, *CONTROLS) and not has_training(name, profile_name, **overrides):
        config = experiment(name, profile_name, seed=seed, **overrides)
        return load_external(external_model(config), pick_device())
    weights = weights_of(CONTROLS.get(name, name), profile_name, seed, **overrides)
    names = needs.source_of_weights(weights.model, weights.source)
    needs.raise_if_missing(needs.check_sources(names))
    if name not in CONTROLS:
        return weights.load(pick_device())
    model = experiment(TUNED, profile_name).model
    return load_clip(model, weights.source, "gelu", pick_device(), allow_activation_mismatch=True)


def wanted(profile_name: str) -> list[str]:
    """Names in `data/sources.yml` of all that a profile with real data reads, pictures of sets
    included; none of another profile."""
    if not find_profile(profile_name).real:
        return []
    config = experiment(TUNED, profile_name)
    names = [
        *needs.source_of_weights(config.model, weights_path(config)),
        *needs.TRAINING,
        *(name for suite in SUITES for name in needs.sources_of(suite)),
    ]
    sources = load_sources()
    return list(dict.fromkeys(each for name in names for each in (*sources[name].needs, name)))
