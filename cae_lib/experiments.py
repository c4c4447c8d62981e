"""The runs of a profile: train one, and know where its files lie.

A run is trained once: a checkpoint is not made again while its settings, first weights, training
data and training code still hold. Settings other than the profile's make a variant, whose files
and records lie apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cae_lib.config import Experiment, experiment, paths
from cae_lib.data import needs
from cae_lib.data.needs import is_real
from cae_lib.data.training_set import training_set
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.pictures import forget_pictures
from cae_lib.evaluation.weights import Weights
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import load_clip
from cae_lib.runtime import one_thread, pick_device
from cae_lib.training.execution import Execution
from cae_lib.training.loop import train
from cae_lib.training.state import changes, run_identity

BASE = "base"


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

    The training set is read in either case, since the checkpoint must be of the same. How a run is
    executed (`execution`) changes its numbers by rounding at most.

    Raises:
        ConfigError: Unknown run, profile or setting.
        DataError: The training data are not there, or a part of them is missing.
    """
    config = experiment(name, profile_name, seed=seed, **overrides)
    target = checkpoint_path(name, profile_name, seed, **overrides)
    _refuse_partial(target)
    if is_real(profile_name):
        start = weights_path(config)
        tag = needs.weights_source(config.model, start)
        tell(needs.Stock.of((*needs.TRAINING, *tag)).require())
    data = training_set(profile_name, config.train_data, config.model, config.tagger)
    clip = load_clip(config.model, weights_path(config), config.activation, pick_device())
    parts = (data.pairs, data.alignment, data.images)
    if is_trained(target, config.steps, run_identity(config, clip.weights_id, *parts)):
        return target
    forget_pictures()  # those of an evaluation before this in the same process
    rows = f" on {data.pairs.n_used:,} of {data.pairs.n_expected:,} rows"
    print(
        f"Training {name}, seed {seed}: {config.steps} steps of {config.batch_size}"
        f"{rows if is_real(profile_name) else ''}",
        flush=True,
    )
    with one_thread(pick_device()):
        return train(config, clip, *parts, target.parent, execution=execution).checkpoint


def is_trained(path: Path, steps: int, identity: dict[str, str]) -> bool:
    """Whether a checkpoint is that of a complete run of this identity; prints why if it is not."""
    meta = read_meta(path) if path.is_file() else None
    if meta is None:
        return False
    why = changes(meta.extra.get("identity"), identity)
    if why or meta.step != steps:
        print(f"{path} is out of date: {why or f'step {meta.step} of {steps}'}", flush=True)
    return not why and meta.step == steps


def _refuse_partial(path: Path) -> None:
    """Raise a DataError if a run was trained on a part of its data, which is not allowed now."""
    meta = read_meta(path) if path.is_file() else None
    used, expected = meta.extra.get("rows", (0, 0)) if meta else (0, 0)
    if used != expected and not needs.may_be_incomplete(needs.TRAINING[0]):
        raise DataError(
            f"{path} was trained on {used:,} of {expected:,} rows. Remove its folder to train on "
            f"all of them, or keep it with --allow-missing {needs.TRAINING[0]}"
        )


def tell(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        print(line, flush=True)
