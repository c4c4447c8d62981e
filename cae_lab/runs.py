"""Profiles and their runs: settings, names, where weights are, how models are opened and trained.

Runs whose settings differ from their entry in the profile have folders of their own. PyTorch is
imported only where a model is read or trained.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from filelock import FileLock

from cae_bench.datasets import Datasets
from cae_bench.missing import require_weights, source_reports, sources_digest
from cae_lab.names import (
    BASE,
    CLIP_FT,
    DATA_RUN,
    GELU_CONTROLS,
    SETTINGS,
    parse_setting,
    parse_value,
)
from cae_lib.config import Experiment, bundled_path, paths
from cae_lib.errors import CheckpointError, ConfigError, check_type, field_types
from cae_lib.methods import METHODS
from cae_lib.runtime import file_hash
from cae_lib.training.inputs import digest, run_inputs, text_versions

if TYPE_CHECKING:
    from cae_lib.models.clip import Clip
    from cae_lib.models.external import ExternalModel
    from cae_lib.models.weights import Weights
    from cae_lib.runtime import ExecutionOptions


LOCK_FILE = ".lock"  # beside the weights of a run; the process that holds it trains the run
TRAINING_SOURCES = ("negclip-captions",)  # of `sources.yml`, that training on real data reads

# Value in a name for a parameter of the attribution method that only the entry sets, not the run.
DROPPED = "default"


@dataclass(frozen=True)
class SearchSpace:
    """Candidate settings of a profile's runs, which are tried on validation captions."""

    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)  # learning rates of CLIP-FT and NegCLIP
    # Further numbers of steps of these two, as multiples of the profile's number.
    shares: tuple[float, ...] = (0.25, 0.5, 2)
    # λ of the attribution loss, ascending; the search starts at 1, which has to be among them.
    weights: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    # eps of CAE with the method "binding", and of margin losses on hard negatives.
    margins: tuple[float, ...] = (0.05, 0.1, 0.2)
    # λ of the losses for which `margins` are tried. The search `footing` of
    # `data/recipes/choose_settings.py` takes every second of them.
    binding_weights: tuple[float, ...] = (2.5, 5.0, 10.0, 20.0)


@dataclass(frozen=True)
class Profile:
    """Settings of one profile, as read from a file of `configs`."""

    name: str  # name of its file, without the suffix
    seeds: int  # number of seeds of each run
    base: dict[str, Any] | None  # settings of the base model's training; None if it is downloaded
    training: dict[str, Any]  # fields of `Experiment` that all runs share unless they set them
    runs: dict[str, dict[str, Any]]  # by the name of the run, the fields that it sets
    title: str = ""  # what its images are, such as "synthetic scenes"
    labels: dict[str, str] = field(default_factory=dict)  # of some runs, for tables and figures
    looks: dict[str, tuple[str, str]] = field(
        default_factory=dict
    )  # marker and colour of some runs
    studies: frozenset[str] = frozenset()  # names of the runs of the studies beside the paper
    # Settings of shorter runs, which are compared only with each other; empty if there are
    # none.
    short: dict[str, Any] = field(default_factory=dict)
    earlier_bases: tuple[int, ...] = ()  # numbers of steps of base models with a shorter training
    # Runs with other settings that the studies train, by name, with their numbers of seeds.
    variants: dict[str, int] = field(default_factory=dict)
    search: SearchSpace = SearchSpace()
    built_from_photographs: bool = False  # whether its images are made from Flickr8k's photographs
    # Whether each image shows two photographs, with a caption made of theirs by a template.
    pairs_photographs: bool = False
    studies_apart: bool = False  # whether `cae reproduce` includes the studies only with `--all`
    # Announcement above each page of its own copy of the book; None if it has no copy.
    own_book: str | None = None
    recorded: bool = True  # whether its numbers mean something, and are kept in `data/records`
    datasets_profile: str = ""  # name of the profile whose datasets it reads; "" if it has its own
    # Name of the profile that its chain of `like` keys ends at; pages that describe that one
    # describe it, too. "" without such a key.
    like: str = ""
    # Whether it is a rehearsal: drawn scenes replace its real datasets, with all files in
    # `build/NAME`.
    is_rehearsal: bool = False

    @property
    def is_real(self) -> bool:
        """Whether it uses published data and downloaded weights, or a rehearsal's stand-ins."""
        return self.base is None

    @property
    def is_synthetic(self) -> bool:
        """Whether the images are synthetic scenes, whose full content is known as ground truth."""
        # False for a rehearsal, whose scenes are read like the real datasets that they replace.
        return not (self.is_real or self.built_from_photographs)

    @property
    def has_ground_truth(self) -> bool:
        """Whether the word roles of its captions are known without a parser."""
        return self.is_synthetic or self.pairs_photographs

    @property
    def root(self) -> Path:
        """Folder of the profile's datasets."""
        name = self.datasets_profile or self.name
        folder = f"world-{name}" if self.is_synthetic else name
        return paths().raw if self.is_real else paths().raw / folder

    # Profiles are keys of caches, but hold mappings, which cannot be hashed.
    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def datasets(self) -> Datasets:
        """The profile's test sets."""
        return Datasets(self.root, self.is_real, self.build_command)

    @property
    def build_command(self) -> str:
        """Shell command that generates the datasets of a profile that is not `is_real`."""
        recipe = "photographs" if self.built_from_photographs else "synthetic_scenes"
        return f"python -m data.recipes.{recipe}.build --profile {self.name}"

    @property
    def records(self) -> Path:
        """Folder of the profile's packed tables; in the cache if `recorded` is false."""
        folder = paths().records if self.recorded else paths().cache / "records"
        return folder / self.name

    def earlier_base(self, steps: int) -> str:
        """Return the setting `weights` of runs that start from one of `earlier_bases`."""
        return self.training["weights"].replace("base", f"base-{steps}")

    def experiment(self, name: str, **settings: Any) -> Experiment:
        """Return the profile's settings, updated with those of an entry, then with `settings`.

        Raises:
            ConfigError: If the entry, a setting or an attribution method is unknown, or a value has
                the wrong type or is not allowed.
        """
        if name not in self.runs:
            expected = ", ".join(self.runs)
            raise ConfigError(f"unknown experiment {name!r}: expected one of {expected}")
        hints = field_types(Experiment)
        for key, value in settings.items():
            if key not in hints or key in ("name", "profile"):
                expected = ", ".join(k for k in hints if k not in ("name", "profile"))
                raise ConfigError(f"unknown setting {key!r} of {name}: expected one of {expected}")
            check_type(f"{name}: {key}", value, hints[key])
        for key in ("seed", "steps", "weight"):
            if settings.get(key, 0) < 0:
                raise ConfigError(f"{name}: {key} is {settings[key]}: expected 0 or more")
        if settings.get("method") not in (None, *METHODS):
            raise ConfigError(
                f"{name}: unknown method {settings['method']!r}: expected one of "
                f"{', '.join(METHODS)}"
            )
        return Experiment(name, self.name, **self.training | self.runs[name] | settings)

    def training_digest(self, train_data: str) -> str:
        """Return a digest of the data that a run with this `train_data` is trained on."""
        # "kept" and "spacy" are made from the files of "coco"; `text_versions` covers how.
        if self.is_real:
            return sources_digest(source_reports(TRAINING_SOURCES), TRAINING_SOURCES)
        # Synthetic scenes for pretraining have a manifest of their own.
        apart = train_data == "pretrain" and self.is_synthetic
        return file_hash(self.datasets.manifest("pretrain" if apart else ""))

    def run(self, name: str, seed: int = 0, **settings: Any) -> Run:
        """Return a run with all its settings resolved.

        Args:
            name: Name in tables: an entry of `runs` such as "cae-gradcam", which settings may
                follow, as in "cae-gradcam+weight=0.3"; or "base", or "data".
            seed: The seed; ignored for what is not trained here.
            **settings: Settings that differ from the entry's; they replace those in the name, and
                are ignored for "base" and "data".

        Raises:
            ConfigError: If the run or a setting is unknown, or a value is not allowed.
        """
        return resolve_run(self, name, seed, **settings)


@dataclass(frozen=True)
class Run:
    """A run of a profile with one seed, all of whose settings are resolved.

    `Profile.run` makes it.

    Attributes:
        profile: The profile.
        entry: Name of the run in the profile; "base" for the base model, "data" for the datasets,
            which have no model, or one of `GELU_CONTROLS`.
        seed: The seed; 0 for what is not trained here.
        settings: Names and values of the settings that differ from those of the entry.
    """

    profile: Profile
    entry: str
    seed: int = 0
    settings: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def name(self) -> str:
        """The run's name in tables, which `Profile.run` reads back; see `format_name`."""
        return format_name(self.profile, self.entry, dict(self.settings))

    @cached_property
    def config(self) -> Experiment:
        """All settings; for the base model and the data, those of CLIP-FT without training."""
        # A control has the settings of the run whose weights it reads.
        entry, settings = GELU_CONTROLS.get(self.entry, self.entry), dict(self.settings)
        if entry in (BASE, DATA_RUN):
            return self.profile.experiment(CLIP_FT, **settings | {"steps": 0})
        return self.profile.experiment(entry, seed=self.seed, **settings)

    @property
    def is_trained_here(self) -> bool:
        """Whether the run has training steps; without any, it has the weights it starts from."""
        return self.config.steps > 0

    @property
    def is_external(self) -> bool:
        """Whether the run is a model that was trained elsewhere: an entry with 0 steps."""
        return self.entry in self.profile.runs and not self.is_trained_here

    @cached_property
    def start(self) -> Weights:
        """The weights that the run starts from; for "base", those that CLIP-FT starts from."""
        from cae_lib.models.weights import Weights

        config = self.config
        return Weights(initial_weights(config), config.model, config.activation)

    @property
    def path(self) -> Path:
        """Path of the run's weights, which need not exist.

        Raises:
            ConfigError: If the run is not trained here, and its weights are not a file.
        """
        config = self.config
        if not config.steps:
            if not isinstance(self.start.source, Path):
                raise ConfigError(
                    f"{self.name} of profile {self.profile.name} is the open_clip tag "
                    f"{self.start.source!r}"
                )
            return self.start.source
        folder = paths().checkpoints / self.profile.name
        # The key covers all settings, the seed among them.
        if self.settings:
            return folder / "variants" / config.key() / "model.safetensors"
        return folder / config.name / str(self.seed) / "model.safetensors"

    @property
    def weights(self) -> Weights:
        """Where the run's weights are; they need not exist."""
        from cae_lib.models.weights import Weights

        return Weights(self.path) if self.is_trained_here else self.start

    def inputs(self) -> dict[str, str]:
        """Return the inputs that determine the weights of a trained run; see `run_inputs`.

        Parts of real data that are missing on this machine change the digest of the training data.
        The weights of an open_clip tag are downloaded if they are not cached.

        Raises:
            DataError: If the data have to be generated on this machine first.
            CheckpointError: If the weights that the run starts from are missing or damaged, or
                cannot be downloaded.
        """
        data = self.profile.training_digest(self.config.train_data)
        return run_inputs(self.config, data, self.start.digest())

    def described(self) -> dict[str, Any]:
        """Return what the provenance of a trained run's tables says of its inputs; else {}."""
        if not self.is_trained_here:
            return {}
        changed = self.config.changed()
        settings = {key: value for key, value in changed.items() if key in SETTINGS}
        return {"settings": settings, "text": text_versions(self.config)}

    def stored_digest(self) -> str:
        """Return a digest that identifies the stored weights and how they are evaluated.

        Raises:
            DataError: If downloaded weights are missing; the message says how to get them.
            CheckpointError: If the weights are missing or damaged, cannot be downloaded, or were
                trained with other settings or versions. Only `train` compares the training data and
                the first weights.
        """
        from cae_lib.models.checkpoint import read_meta

        source = self.weights.source
        require_weights(self.weights.model, source)
        meta = read_meta(source) if isinstance(source, Path) else None
        inputs = meta and meta.extra.get("identity")
        if inputs and self.is_trained_here:
            self._require_current(inputs)
        # The inputs of a training determine its weights, so a run that is trained anew on another
        # machine keeps its results. Other weights are identified by their content.
        return self._evaluation_digest(digest(inputs) if inputs else self.weights.digest())

    def trained_digest(self) -> str:
        """Return the `stored_digest` of a run that is trained here, without reading its weights."""
        return self._evaluation_digest(digest(self.inputs()))

    def _evaluation_digest(self, weights_digest: str) -> str:
        """Return a digest of weights and of the activation that the run evaluates them with."""
        is_control = self.entry in GELU_CONTROLS
        return digest(weights_digest, "gelu") if is_control else weights_digest

    def _require_current(self, inputs: Mapping[str, str]) -> None:
        from cae_lib.models.checkpoint import describe_changes

        # Taken over as they are: computing them needs the data.
        stored = inputs.get("training data", ""), inputs.get("first weights", "")
        if changes := describe_changes(inputs, run_inputs(self.config, *stored)):
            raise CheckpointError(
                f"{self.path} is out of date: {changes}. Run `cae train {self.name} --profile "
                f"{self.profile.name} --seed {self.seed}`"
            )

    def require_inputs(self) -> None:
        """Check quickly whether the weights and datasets that the training needs are here.

        Of real data, only downloaded weights are checked; of generated data, only whether they were
        generated, and not whether they are complete.

        Raises:
            DataError: If downloaded weights are missing, or the datasets were not generated yet;
                the message names the command that fetches or builds them.
            CheckpointError: If the run starts from the base model, which is missing; the message
                names the command that trains it.
        """
        profile, start = self.profile, self.start.source
        if profile.is_real:
            require_weights(self.config.model, start)
            return
        base = profile.run(BASE).start.source
        if isinstance(base, Path) and start == base and not base.is_file():
            raise CheckpointError(
                f"{base}: the base model is not trained yet; run `python -m data.recipes.base "
                f"--profile {profile.name}`, which builds the datasets as well"
            )
        if not (profile.root / "coco").is_dir():
            profile.datasets.manifest()  # raises the error that names the command

    def is_trained(self) -> bool:
        """Return whether the run's checkpoint exists and was trained with its present inputs.

        Raises:
            DataError: As for `inputs`.
            CheckpointError: If the checkpoint is damaged, or as for `inputs`.
        """
        from cae_lib.models.checkpoint import read_meta

        meta = read_meta(self.path) if self.path.is_file() else None
        return meta is not None and meta.extra.get("identity") == self.inputs()

    def train(self, execution: ExecutionOptions | None = None, hours: float | None = None) -> Path:
        """Train the run, unless it is already trained with the same inputs.

        A checkpoint with other inputs is replaced, and an interrupted training with the same inputs
        is resumed. If another process trains the run, the call waits for it.

        Args:
            execution: Options of speed and memory; None for the defaults.
            hours: The longest time in hours that the remaining steps may take on this machine; None
                for no limit.

        Returns:
            The path of the checkpoint.

        Raises:
            ConfigError: If the settings do not fit together, or the run has no training steps.
            DataError: If training data, or downloaded weights that the run starts from, are
                missing.
            CheckpointError: If the base model is not trained yet, or the weights that the run
                starts from are missing or damaged, or its checkpoint or saved state is damaged.
            NotFiniteError: If a loss or gradient is not finite. The state before the step is saved.
            TimeLimitError: After the first steps, if they show that the remaining steps would take
                more than `hours`. The state is saved.
            WriteError: If the state or the checkpoint cannot be written.
        """
        if not self.is_trained_here:
            raise ConfigError(
                f"{self.name} has no steps to train; `cae evaluate {self.name}` measures it"
            )
        self.require_inputs()
        if self.is_trained():
            return self.path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_first = os.environ.get("RANK", "0") == "0"
        lock = FileLock(self.path.with_name(LOCK_FILE)) if is_first else nullcontext()
        # The first process of torchrun takes it for all, which would deadlock otherwise.
        with lock:
            return _train_if_stale(self, execution, hours)

    def open(self) -> Clip:
        """Load the model on the device that `pick_device` returns; nothing is trained.

        A checkpoint is loaded even if the settings or the data of its run have changed since;
        `train` brings it up to date.

        Raises:
            CheckpointError: If the run is not trained, or its weights are missing or damaged.
            DataError: If downloaded weights are missing; the message says how to get them.
        """
        from cae_lib.models.clip import load_clip
        from cae_lib.models.external import load_external
        from cae_lib.runtime import pick_device

        if self.is_external:
            return load_external(self.external(), pick_device())
        weights = self.weights
        require_weights(weights.model, weights.source)
        # Elsewhere, reading weights with an activation that they were not trained with is an error.
        if self.entry not in GELU_CONTROLS:
            return weights.load(pick_device())
        model = self.profile.experiment(CLIP_FT).model
        return load_clip(
            model, weights.source, "gelu", pick_device(), allow_activation_mismatch=True
        )

    def external(self) -> ExternalModel:
        """Return how to load the model of a run with 0 steps.

        Raises:
            ConfigError: If the run has no weights.
            DataError: If the weights belong to a source in `sources.yml` and are not on this
                machine; the message says how to get them. Other weights are not checked.
        """
        from cae_lib.models.external import ExternalModel

        config, source = self.config, self.start.source
        if source is None:
            raise ConfigError(f"{self.name}: a run with steps 0 needs weights")
        # Of a source with several files, the one that is read suffices.
        if not (isinstance(source, Path) and source.exists()):
            require_weights(config.model, source)
        if isinstance(source, Path):
            return ExternalModel(str(source), config.model, config.activation, config.weights_share)
        tag = source if ":" in source else f"{config.model}:{source}"
        return ExternalModel(tag, activation=config.activation)


def resolve_run(profile: Profile, name: str, seed: int = 0, **settings: Any) -> Run:
    """Return a run of a profile; see `Profile.run`."""
    entry, named = parse_name(profile, name)
    trained = GELU_CONTROLS.get(entry, entry)
    if trained in (BASE, DATA_RUN):
        return Run(profile, entry, 0, tuple(sorted(named.items())))
    configured = profile.experiment(trained)
    differs = named | settings
    resolved = vars(profile.experiment(trained, **differs) if differs else configured)
    # Only what differs from the entry is part of the name, so that one run has one name.
    changed = {key: value for key, value in resolved.items() if value != getattr(configured, key)}
    # Also those of its settings that the entry has anyway, so that the name says "short".
    if profile.short and profile.short.items() <= resolved.items():
        changed |= profile.short
    return Run(profile, entry, seed if resolved["steps"] else 0, tuple(sorted(changed.items())))


def initial_weights(config: Experiment) -> str | Path | None:
    """Return the weights that a run starts from: a path, a tag or hub name, or None if random.

    Files need not exist.
    """
    # OpenAI's own archive, if it is here, takes the place of open_clip's download.
    archive = paths().raw / "weights" / "openai" / f"{config.model}.pt"
    if config.weights == "openai" and archive.is_file():
        from cae_lib.models.weight_files import convert_openai_archive

        return convert_openai_archive(
            archive, config.model, paths().cache / "openai" / f"{config.model}.safetensors"
        )
    if config.weights is not None and config.weights.startswith("raw/"):
        return paths().data / config.weights
    if config.weights is None or not config.weights.endswith(".safetensors"):
        return config.weights
    # Checkpoints are written here; other weights may come with the repository.
    made_here = config.weights.startswith("checkpoints/")
    return paths().data / config.weights if made_here else bundled_path(f"data/{config.weights}")


def is_run(name: str, profile: Profile) -> bool:
    """Return whether a name in tables is that of a run, the base model or a GELU control."""
    return parse_name(profile, name)[0] in (BASE, *GELU_CONTROLS, *profile.runs)


def is_trained_here(name: str, profile: Profile) -> bool:
    """Return whether a name in tables is that of a run that is trained, once for each seed."""
    return is_run(name, profile) and profile.run(name).is_trained_here


def format_name(profile: Profile, entry: str, settings: Mapping[str, Any]) -> str:
    """Return the name of a run in tables and their files, such as `cae-gradcam+short+scope=word`.

    `settings` are those that differ from the entry's own. `base=600` stands for a start from the
    base model with 600 training steps, and `steps=600` for that base model itself.
    """
    rest, parts = dict(settings), [entry]
    if profile.short and profile.short.items() <= rest.items():
        parts.append("short")
        rest = {key: value for key, value in rest.items() if key not in profile.short}
    for steps in profile.earlier_bases:
        if rest.get("weights") == profile.earlier_base(steps):
            del rest["weights"]
            parts.append(f"{'steps' if entry == BASE else 'base'}={steps}")
    if "attribution" in rest:
        # Written as settings of their own. "samples=default" says that the entry sets `samples` and
        # this run does not.
        parameters, entry_parameters = (
            dict(rest.pop("attribution")),
            _entry_parameters(profile, entry),
        )
        rest |= dict(parameters.items() - entry_parameters.items())
        rest |= dict.fromkeys(entry_parameters.keys() - parameters.keys(), DROPPED)
    for key, value in sorted(rest.items()):
        # "1" and not "1.0", where no digit is lost.
        short = isinstance(value, float) and value == float(f"{value:g}")
        text = f"{value:g}" if short else str(value)
        # Names are file names, and "+" and "=" separate their parts.
        parts.append(f"{key}={quote(text, safe='')}")
    return "+".join(parts)


def _entry_parameters(profile: Profile, entry: str) -> dict[str, Any]:
    return dict(profile.experiment(entry).attribution) if entry in profile.runs else {}


def parse_name(profile: Profile, name: str) -> tuple[str, dict[str, Any]]:
    """Read back what `format_name` writes: an entry, and the settings that differ from its own.

    Any other name, such as the path of a weight file, is returned unchanged and without settings.
    """
    entry, *parts = name.split("+")
    if name in profile.runs or entry not in (BASE, DATA_RUN, *GELU_CONTROLS, *profile.runs):
        return name, {}  # such as the path of a file whose folder is called "c++"
    settings: dict[str, Any] = {}
    parameters: dict[str, str] = {}
    for part in parts:
        key, _, text = part.partition("=")
        text = unquote(text)
        if part == "short":
            settings |= profile.short
        elif key == ("steps" if entry == BASE else "base") and text in map(
            str, profile.earlier_bases
        ):
            settings["weights"] = profile.earlier_base(int(text))
        # Without a method, anything else is refused as an unknown setting.
        elif key in SETTINGS or entry not in profile.runs:
            settings[key] = parse_setting(key, text)
        else:
            parameters[key] = text
    if parameters:
        settings["attribution"] = _changed_parameters(profile, entry, settings, parameters)
    return entry, settings


def _changed_parameters(
    profile: Profile, entry: str, settings: Mapping[str, Any], parameters: Mapping[str, str]
) -> tuple[tuple[str, Any], ...]:
    """Return the parameters of an entry's attribution method after changes that a name states."""
    from cae_lib.attribution import get_method  # imports PyTorch, which few names need

    config = profile.experiment(entry, **settings)
    # Without a method, they are parameters of the swapped hard negatives, which "binding" makes.
    method = config.method or ("binding" if config.foils == "exchanged" else None)
    allowed = [*vars(get_method(method))] if method else []
    for key, text in parameters.items():
        if key not in allowed:
            raise ConfigError(
                f"{key}={text}: expected a setting, one of {', '.join([*SETTINGS, *allowed])}"
            )
    changed = {key: parse_value(text) for key, text in parameters.items() if text != DROPPED}
    return tuple(
        (key, value)
        for key, value in (dict(config.attribution) | changed).items()
        if parameters.get(key) != DROPPED
    )


def _drop_other_state(path: Path, identity: Mapping[str, str]) -> None:
    """Remove the saved state of a training with other inputs, which the training would refuse."""
    import torch

    from cae_lib.models.checkpoint import describe_changes

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return  # there is none, or the training says what is wrong with it
    if not isinstance(state, dict) or "identity" not in state:
        return  # a file of something else, which the training refuses by name
    if why := describe_changes(state["identity"], identity):
        print(f"{path} is out of date: {why}", flush=True)
        path.unlink(missing_ok=True)


def _train_if_stale(run: Run, execution: ExecutionOptions | None, hours: float | None) -> Path:
    from cae_lab.training_set import training_set
    from cae_lib.models.checkpoint import CheckpointMeta, describe_changes, read_meta
    from cae_lib.runtime import one_thread, pick_device
    from cae_lib.training.trainer import STATE_FILE, train

    config, target, inputs = run.config, run.path, run.inputs()
    if run.is_trained():  # by another process, meanwhile
        return target
    if target.is_file():
        meta = read_meta(target) or CheckpointMeta("", "")
        why = describe_changes(meta.extra.get("identity"), inputs)
        print(f"{target} is out of date: {why}", flush=True)
    clip = run.start.load(pick_device())
    data = training_set(
        run.profile, clip.tokenizer, clip.image_size, config.train_data, config.tagger
    )
    _drop_other_state(target.with_name(STATE_FILE), inputs)
    label = f"{run.name}, seed {run.seed}"
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
