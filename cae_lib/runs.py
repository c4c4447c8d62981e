"""Train the runs of a profile, and locate and load their weights.

A finished run is reused until one of its inputs changes. If two processes request the same run, one
of them trains it and the other waits. Settings that differ from the profile's define a variant of
the run, whose files are stored in a separate folder. The training code is imported only where it is
needed.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from cae_lib.config import Experiment, bundled_path, paths
from cae_lib.data import needs
from cae_lib.data.sources import load_sources
from cae_lib.data.training_set import training_set
from cae_lib.errors import CheckpointError, ConfigError, DataError
from cae_lib.evaluation.encoder import Weights
from cae_lib.evaluation.suites import RUN_SUITES
from cae_lib.keys import run_inputs
from cae_lib.models.checkpoint import CheckpointMeta, read_meta
from cae_lib.models.clip import WEIGHT_SUFFIXES, Clip, load_clip
from cae_lib.models.external import ExternalModel, load_external, model_loader
from cae_lib.models.weight_files import convert_openai_archive
from cae_lib.profiles import experiment, find_profile
from cae_lib.runtime import one_thread, pick_device
from cae_lib.variants import BASE, CLIP_FT, GELU_CONTROLS, parse_run_name, run_name

if TYPE_CHECKING:
    from cae_lib.training.execution import ExecutionOptions

LOCK_FILE = ".lock"
"""Name of the lock file beside the weights of a run. The process that holds it trains the run."""


def initial_weights(config: Experiment) -> str | Path | None:
    """Return the weights that a run starts from.

    Returns:
        A path, if the setting `weights` names a file or folder in the data folder or a file that is
        shipped with the repository. None for random weights. Otherwise the setting itself: a tag of
        open_clip, or a name on the Hugging Face hub. If the tag is "openai" and OpenAI's own
        archive is here as `data/raw/weights/openai/MODEL.pt`, the archive is converted once, and
        the path of the converted file is returned instead. Other files need not exist.

    Raises:
        CheckpointError: If OpenAI's archive cannot be read.
        WriteError: If the converted archive cannot be written.
    """
    archive = paths().raw / "weights" / "openai" / f"{config.model}.pt"
    if config.weights == "openai" and archive.is_file():
        return convert_openai_archive(
            archive, config.model, paths().cache / "openai" / f"{config.model}.safetensors"
        )
    if config.weights is not None and config.weights.startswith("raw/"):
        return paths().data / config.weights
    if config.weights is None or not config.weights.endswith(".safetensors"):
        return config.weights
    made_here = config.weights.startswith("checkpoints/")
    return paths().data / config.weights if made_here else bundled_path(f"data/{config.weights}")


def checkpoint_path(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Path:
    """Return the path of the weights of a run; the file need not exist.

    Args:
        name: Name of the run. "base" stands for the weights that the run "clip-ft" starts from. If
            they are OpenAI's, and OpenAI's archive is on this machine, it is converted first; see
            `initial_weights`.
        profile_name: Name of the profile.
        seed: Seed of the run; not used for "base".
        **overrides: Settings that differ from the profile's. If there are any, the weights of a run
            other than "base" are in a folder whose name is `Experiment.key` of the changed run.

    Raises:
        ConfigError: For "base" or with settings, if the profile, the run or a setting is unknown,
            or a value is not allowed. For "base", also if "clip-ft" does not start from a file.
        CheckpointError: If OpenAI's archive cannot be read.
        WriteError: If the converted archive cannot be written.
    """
    if name == BASE:
        path = initial_weights(experiment(CLIP_FT, profile_name, **overrides))
        if not isinstance(path, Path):
            raise ConfigError(f"the base of profile {profile_name} is the open_clip tag {path!r}")
        return path
    folder = paths().checkpoints / profile_name
    if overrides:
        key = experiment(name, profile_name, **overrides, seed=seed).key()
        return folder / "variants" / key / "model.safetensors"
    return folder / name / str(seed) / "model.safetensors"


def weights_of(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Weights:
    """Return a description of the weights of a run; the weights need not exist yet.

    For "base", these are the weights that the run "clip-ft" starts from, which may also be a tag of
    open_clip or random; see `initial_weights`. For another run, they are its checkpoint. The
    arguments are those of `checkpoint_path`.

    Raises:
        ConfigError: For "base" or with settings, if the profile, the run or a setting is unknown,
            or a value is not allowed.
        CheckpointError: If OpenAI's archive cannot be read.
        WriteError: If the converted archive cannot be written.
    """
    if name != BASE:
        return Weights(checkpoint_path(name, profile_name, seed, **overrides))
    start = experiment(CLIP_FT, profile_name, **overrides)
    return Weights(initial_weights(start), start.model, start.activation)


def has_training(name: str, profile_name: str, **overrides: Any) -> bool:
    """Return whether `train_run` trains a run: any run of the profile with more than 0 steps.

    It is False for "base", which a recipe trains; nothing else is checked then. A run with 0 steps
    is measured with the weights that it starts from.

    Raises:
        ConfigError: If the profile, the run or a setting is unknown. The names in `GELU_CONTROLS`
            count as unknown.
    """
    return name != BASE and experiment(name, profile_name, **overrides).steps > 0


def external_model(config: Experiment) -> ExternalModel:
    """Return how to load the model of a run with 0 steps, whose weights are the initial ones.

    Raises:
        ConfigError: If the run has no weights.
        DataError: If the weights belong to a source in `sources.yml` and are not on this machine;
            the message says how to get them. Other weights are not checked.
        CheckpointError: If OpenAI's archive cannot be read; see `initial_weights`.
        WriteError: If the converted archive cannot be written.
    """
    weights = initial_weights(config)
    if weights is None:
        raise ConfigError(f"{config.name}: a run with steps 0 needs weights")
    if not (isinstance(weights, Path) and weights.exists()):
        needs.require_weights(config.model, weights)
    if isinstance(weights, Path):
        share = config.weights_share
        return ExternalModel(str(weights), config.model, config.activation, share)
    source = weights if ":" in weights else f"{config.model}:{weights}"
    return ExternalModel(source, activation=config.activation)


def train_run(
    name: str,
    profile_name: str,
    seed: int = 0,
    execution: ExecutionOptions | None = None,
    hours: float | None = None,
    **overrides: Any,
) -> Path:
    """Train one run, unless it is already trained with the same inputs.

    A checkpoint with other inputs is replaced, and an interrupted training with the same inputs is
    resumed. If another process trains the run, the call waits for it.

    Args:
        name: Name of the run.
        profile_name: Name of the profile.
        seed: Seed of the run.
        execution: Options of speed and memory; None for the defaults.
        hours: The longest time in hours that the remaining steps may take on this machine; None for
            no limit.
        **overrides: Settings that differ from the profile's.

    Returns:
        The path of the checkpoint.

    Raises:
        ConfigError: If the run, the profile or a setting is unknown, the settings do not fit
            together, or the run has 0 steps.
        DataError: If training data, or downloaded weights that the run starts from, are missing.
        CheckpointError: If the base model is not trained yet, or the weights that the run starts
            from are missing or damaged, or its checkpoint or saved state is damaged.
        NotFiniteError: If a loss or gradient is not finite. The state before the step is saved.
        TimeLimitError: After the first steps, if they show that the remaining steps would take more
            than `hours`. The state is saved.
        WriteError: If the state or the checkpoint cannot be written.
        OSError: If the folder of the run or the lock file cannot be created.
    """
    config = experiment(name, profile_name, seed=seed, **overrides)
    if not config.steps:
        raise ConfigError(f"{name} has no steps to train; `cae evaluate {name}` measures it")
    target = checkpoint_path(name, profile_name, seed, **overrides)
    require_training_inputs(config)
    inputs = training_inputs(config)
    if _is_trained(target, inputs):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = (
        nullcontext()
        if os.environ.get("RANK", "0") != "0"
        else FileLock(target.with_name(LOCK_FILE))
    )
    with lock:  # taken once for all processes of torchrun
        label = f"{run_name(name, profile_name, **overrides)}, seed {seed}"
        return _train_if_stale(config, target, inputs, execution, hours, label)


def training_inputs(config: Experiment) -> dict[str, str]:
    """Return the inputs that determine the weights of a run; see `run_inputs`.

    Parts of real data that are missing on this machine change the digest of the training data. The
    weights of an open_clip tag are downloaded if they are not cached.

    Raises:
        DataError: If the data have to be generated on this machine first.
        CheckpointError: If the weights that the run starts from are missing or damaged, or cannot
            be downloaded.
    """
    start = Weights(initial_weights(config), config.model, config.activation).digest()
    return run_inputs(config, needs.training_digest(config.profile, config.train_data), start)


def _is_trained(path: Path, inputs: Mapping[str, str]) -> bool:
    """Return whether a checkpoint exists and its run was trained with these `training_inputs`.

    Raises:
        CheckpointError: If the file is damaged.
    """
    meta = read_meta(path) if path.is_file() else None
    return meta is not None and meta.extra.get("identity") == inputs


def require_training_inputs(config: Experiment) -> None:
    """Check quickly whether the weights and datasets that a training needs are on this machine.

    With real data, only the weights that the run starts from are checked, and only if they belong
    to a source in `sources.yml`. With generated data, it is checked whether the datasets were
    generated, but not whether they are complete. The base model is checked, too, if the run starts
    from it. OpenAI's archive is converted first, if it is needed and on this machine; see
    `initial_weights`.

    Raises:
        DataError: If downloaded weights are missing, or the datasets were not generated yet; the
            message names the command that fetches or builds them.
        CheckpointError: If the run starts from the base model and it is missing; the message then
            names the command that trains it. Also if OpenAI's archive cannot be read.
        WriteError: If the converted archive cannot be written.
    """
    profile_name, start = config.profile, initial_weights(config)
    if find_profile(profile_name).is_real:
        needs.require_weights(config.model, start)
        return
    base = initial_weights(experiment(CLIP_FT, profile_name))
    if isinstance(base, Path) and start == base and not base.is_file():
        raise CheckpointError(
            f"{base}: the base model is not trained yet; run `python -m data.recipes.base "
            f"--profile {profile_name}`, which builds the datasets as well"
        )
    if not (find_profile(profile_name).root / "coco").is_dir():
        needs.data_digests(profile_name, [])  # raises the error that names the command


def _train_if_stale(
    config: Experiment,
    target: Path,
    inputs: Mapping[str, str],
    execution: ExecutionOptions | None,
    hours: float | None,
    label: str,
) -> Path:
    from cae_lib.training.state import describe_changes
    from cae_lib.training.trainer import STATE_FILE, train

    if _is_trained(target, inputs):  # by another process, meanwhile
        return target
    if target.is_file():
        why = describe_changes(
            (read_meta(target) or CheckpointMeta("", "")).extra.get("identity"), inputs
        )
        print(f"{target} is out of date: {why}", flush=True)
    data = training_set(config.profile, config.train_data, config.model, config.tagger)
    clip = load_clip(config.model, initial_weights(config), config.activation, pick_device())
    _drop_other_state(target.with_name(STATE_FILE), inputs)
    print(
        f"Training {label}: {config.steps} steps of "
        f"{config.batch_size} on {data.pairs.n_used:,} rows",
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
            label=label,
            execution=execution,
            inputs=inputs,
            hours=hours,
        )


def _drop_other_state(path: Path, identity: Mapping[str, str]) -> None:
    """Remove the saved state of an interrupted training whose inputs differ from `identity`.

    Such a state cannot be resumed: the training would refuse it. A file that cannot be read as a
    state is kept.
    """
    from cae_lib.training.state import describe_changes

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return  # there is none, or the training says what is wrong with it
    if not isinstance(state, dict) or "identity" not in state:
        return  # a file of something else, which the training refuses by name
    if why := describe_changes(state["identity"], identity):
        print(f"{path} is out of date: {why}", flush=True)
        path.unlink(missing_ok=True)


def open_run(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Clip:
    """Load the model of a run on the device that `pick_device` returns.

    Nothing is trained. A checkpoint is loaded even if the settings or the data of its run have
    changed since; `train_run` brings it up to date.

    Args:
        name: Name of the run, "base" for the base model, or one of `GELU_CONTROLS`.
        profile_name: Name of the profile.
        seed: Seed of the run; "base" has none.
        **overrides: Settings that differ from the profile's.

    Raises:
        ConfigError: If the run, the profile or a setting is unknown.
        CheckpointError: If the run is not trained, or its weights are missing or damaged.
        DataError: If downloaded weights are missing; the message says how to get them.
    """
    if name not in (BASE, *GELU_CONTROLS) and not has_training(name, profile_name, **overrides):
        config = experiment(name, profile_name, seed=seed, **overrides)
        return load_external(external_model(config), pick_device())
    weights = weights_of(GELU_CONTROLS.get(name, name), profile_name, seed, **overrides)
    needs.require_weights(weights.model, weights.source)
    if name not in GELU_CONTROLS:
        return weights.load(pick_device())
    model = experiment(CLIP_FT, profile_name).model
    return load_clip(model, weights.source, "gelu", pick_device(), allow_activation_mismatch=True)


def is_run(name: str, profile_name: str) -> bool:
    """Return whether a name in tables belongs to a run of a profile.

    The base model ("base"), the `GELU_CONTROLS`, and runs with other settings (`clip-ft+lr=5e-07`)
    count as runs.

    Raises:
        ConfigError: If the profile, or a setting in the name, is unknown.
    """
    return parse_run_name(name, profile_name)[0] in (
        BASE,
        *GELU_CONTROLS,
        *find_profile(profile_name).runs,
    )


def model_opener(
    name: str,
    profile_name: str,
    seed: int = 0,
    model: str | None = None,
    activation: str | None = None,
    processor: str | None = None,
    **overrides: Any,
) -> Callable[[], Clip]:
    """Return a function that loads a run by its name in tables, or any other model.

    An unknown name, a wrong or missing setting and a missing file of weights raise errors here,
    before weights are loaded. Other errors are raised when the function is called.

    Args:
        name: Name of a run of the profile, or another model in a form that
            `external.MODEL_SOURCE_HELP` describes. With `model`, a name without a colon and without
            the suffix of a weight file is an open_clip tag of that architecture, such as "openai".
        profile_name: Name of the profile.
        seed: Seed, for a run.
        model: open_clip's name of the architecture; needed for a weight file that does not state
            it. Not used for a run.
        activation: "quickgelu" or "gelu"; None for the one that the source states. Needed for a
            weight file that states none. Not used for a run.
        processor: See `ExternalModel`; not used for a run.
        **overrides: Settings that differ from the profile's, for a run; they replace those in the
            name. Not used for another model.

    Raises:
        ConfigError: If the name is neither a run nor a form of a model, if the profile or a setting
            is unknown, or if the architecture or the activation is not known.
        CheckpointError: If the run is not trained, a weight file is missing, or its header is
            damaged.
        DataError: If downloaded weights of a run are missing; the message says how to get them.
    """
    if not is_run(name, profile_name):
        is_tag = model is not None and ":" not in name and Path(name).suffix not in WEIGHT_SUFFIXES
        source = f"{model}:{name}" if is_tag else name
        external = ExternalModel(source, model, activation, processor=processor)
        return model_loader(external, pick_device())
    run, settings = parse_run_name(name, profile_name)
    settings |= overrides
    if run in (BASE, *GELU_CONTROLS) or has_training(run, profile_name, **settings):
        weights = weights_of(GELU_CONTROLS.get(run, run), profile_name, seed, **settings)
        needs.require_weights(weights.model, weights.source)
        if isinstance(weights.source, Path):
            read_meta(weights.source)
    return partial(open_run, run, profile_name, seed, **settings)


def required_sources(profile_name: str) -> list[str]:
    """Return the names of all data sources that a profile with real data reads.

    These are the sources of the first weights, of the training data, and of the data of all
    `RUN_SUITES` with their images. `cae_lib/data/sources.yml` has their names. The list is empty
    for a profile without real data.
    """
    if not find_profile(profile_name).is_real:
        return []
    names = [
        *_needed_to_train(profile_name),
        *(name for suite in RUN_SUITES for name in needs.sources_of(suite)),
    ]
    sources = load_sources()
    return list(dict.fromkeys(each for name in names for each in (*sources[name].needs, name)))


def _needed_to_train(profile_name: str) -> list[str]:
    config = experiment(CLIP_FT, profile_name)
    return [
        *needs.sources_of_weights(config.model, initial_weights(config)),
        *needs.TRAINING_SOURCES,
    ]


def check_real_data(profile_name: str) -> None:
    """Check that a profile's real data suffice for training, and print what else is missing.

    Missing files of the other data raise no error, since models are measured on what is present.
    Rehearsals and profiles with generated data are not checked.

    Raises:
        DataError: If training data or the weights that training starts from are missing or
            incomplete, or a file of any of the data is malformed.
    """
    profile = find_profile(profile_name)
    if not profile.is_real or profile.is_rehearsal:
        return
    reports = needs.source_reports(required_sources(profile_name))
    required = {name: reports.pop(name) for name in _needed_to_train(profile_name)}
    for line in needs.describe_missing_data(reports):
        print(line, flush=True)
    if lines := needs.describe_missing_data(required):
        raise DataError("\n".join(["data that training needs are missing.", *lines]))
    if faults := [fault for report in reports.values() for fault in report.faults]:
        raise DataError("\n".join(faults))
