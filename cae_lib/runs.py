"""The runs of a profile: their files; training one and measuring one. A run is trained once, and a
table measured once, until something that decides it changes; where two processes want the same, one
waits. Settings other than the profile's make a variant, whose files and tables lie apart. What
trains and what measures are imported where they are asked for."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from cae_lib import results
from cae_lib.config import Experiment, paths, shipped
from cae_lib.data import needs
from cae_lib.data.needs import data_digests, sources_digest
from cae_lib.data.sources import load_sources
from cae_lib.data.training_set import training_set
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.encoder import Encoder, Weights
from cae_lib.evaluation.suites import BASE_SUITES, OF_DATA, SUITES, Suite, measure
from cae_lib.fingerprint import training_hash
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import Clip, load_clip
from cae_lib.models.weight_files import unpacked
from cae_lib.profiles import experiment, find_profile
from cae_lib.results import Tables
from cae_lib.runtime import one_thread, pick_device, versions, write_atomic
from cae_lib.variants import BASE, CONTROLS, TUNED, run_name

if TYPE_CHECKING:
    from cae_lib.training.execution import Execution

CONTROL_SUITES = ("benchmarks", "retrieval")
LOCK, GLANCE = ".lock", "glance.txt"
"""Files beside the weights: who holds the first trains them; of the second see `_glance`."""

OF_CONTENT = ("zero_shot", "heatmaps")
"""Suites that ask what is in a picture, which nobody said of photographs with captions."""


def weights_path(config: Experiment) -> str | Path | None:
    """The weights a run starts from: a file under the data folder, or an open_clip tag, for which
    OpenAI's own archive stands in where it lies in `data/raw/weights/openai`."""
    archive = paths().raw / "weights" / "openai" / f"{config.model}.pt"
    if config.weights == "openai" and archive.is_file():
        return unpacked(archive, config.model, paths().cache / "openai" /
                        f"{config.model}.safetensors")
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


def train_run(name: str, profile_name: str, seed: int = 0, execution: Execution | None = None,
              **overrides: Any) -> Path:
    """Train one run, or find it trained on the same data; returns its checkpoint. ConfigError for
    an unknown run, profile or setting; DataError if training data are missing, all or in part."""
    config = experiment(name, profile_name, seed=seed, **overrides)
    start = weights_path(config)
    target = checkpoint_path(name, profile_name, seed, **overrides)
    _require_data(config, start, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = nullcontext() if os.environ.get("RANK", "0") != "0" else FileLock(target.with_name(LOCK))
    with lock:  # taken once for all processes of torchrun
        state, note = _glance(config, start, target), target.with_name(GLANCE)
        if target.is_file() and note.is_file() and note.read_text(encoding="utf-8") == state:
            return target
        _trained(config, start, target, execution)
        write_atomic(note, _glance(config, start, target))
    return target


def _glance(config: Experiment, start: str | Path | None, target: Path) -> str:
    """What decides a run, as far as it is known without reading data: a finished run that has
    looked the same before is taken as it is; one that has not is looked at closely."""
    root = find_profile(config.profile).root
    files = [target, start, root / "manifest.json", root / "coco" / "train_neg_clip.tsv"]
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files
             if isinstance(file, Path) and file.is_file()]
    return repr([config, start, training_hash(method=config.method), versions(), stats])


def _require_data(config: Experiment, start: str | Path | None, target: Path) -> None:
    """Say what may be missing; DataError for what may not, or what `target` was made without."""
    used, expected = read_meta(target).extra.get("rows", (0, 0)) if target.is_file() else (0, 0)
    if used != expected and not needs.may_be_incomplete(needs.TRAINING[0]):
        raise DataError(
            f"{target} was trained on {used:,} of {expected:,} rows. Remove its folder to train on "
            f"all of them, or keep it with --allow-missing {needs.TRAINING[0]}"
        )
    if find_profile(config.profile).real:
        tag = needs.weights_source(config.model, start)
        for line in needs.require(needs.stock((*needs.TRAINING, *tag))):
            print(line, flush=True)


def _trained(config: Experiment, start: str | Path | None, target: Path,
             execution: Execution | None) -> Path:
    from cae_lib.training.state import changes, run_identity
    from cae_lib.training.trainer import STATE, train

    known = read_meta(target) if target.is_file() else None
    data = training_set(config.profile, config.train_data, config.model, config.tagger)
    clip = load_clip(config.model, start, config.activation, pick_device())
    parts = (data.pairs, data.alignment, data.images)
    identity = run_identity(config, clip.weights_id, *parts)
    if known is not None:
        why = changes(known.extra.get("identity"), identity)
        if not why and known.step == config.steps:
            return target
        print(f"{target} is out of date: {why or f'step {known.step} of {config.steps}'}",
              flush=True)
    _drop_other_state(target.with_name(STATE), identity)
    rows = f" on {data.pairs.n_used:,} of {data.pairs.n_expected:,} rows"
    print(f"Training {config.name}, seed {config.seed}: {config.steps} steps of "
          f"{config.batch_size}{rows if find_profile(config.profile).real else ''}", flush=True)
    with one_thread(pick_device()):
        return train(config, clip, *parts, target.parent, execution=execution)


def _drop_other_state(path: Path, identity: dict[str, str]) -> None:
    """Remove what an interrupted training left if it was another one; that would be refused."""
    from cae_lib.training.state import changes

    try:
        kept = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["identity"]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return  # there is none, or the training says what is wrong with it
    if why := changes(kept, identity):
        print(f"{path} is out of date: {why}", flush=True)
        path.unlink(missing_ok=True)


def measure_run(name: str, profile_name: str, seed: int = 0, fresh: bool = False,
                only: Iterable[str] = (), without: Collection[str] = (), **overrides: Any) -> None:
    """Measure what is missing of a run's tables (all of them with `fresh`, once a clone).

    The run may be one of `CONTROLS` or "base"; `only` names suites, by default all but `without`,
    of a control `CONTROL_SUITES`. ConfigError for an unknown run, profile, setting or suite;
    CheckpointError if the run is not trained; DataError, which says which and how to get them, if
    data are missing.
    """
    known = {**SUITES, **BASE_SUITES} if name == BASE else {**SUITES}
    if find_profile(profile_name).photographs:
        known = {suite: known[suite] for suite in known if suite not in OF_CONTENT}
    everything = [suite for suite in known if suite not in without]
    only = list(only) or (CONTROL_SUITES if name in CONTROLS else everything)
    if unknown := [suite for suite in only if suite not in known]:
        raise ConfigError(
            f"no such measurement: {', '.join(unknown)}; expected some of {', '.join(known)}"
        )
    weights = weights_of(CONTROLS.get(name, name), profile_name, seed, **overrides)
    data = data_digests(profile_name, only, needs.weights_source(weights.model, weights.source))
    digest = weights.digest()
    if name in CONTROLS:
        digest = hashlib.sha256(f"{digest} gelu".encode()).hexdigest()

    @cache
    def encoder() -> Encoder:
        """The model, loaded only when something has to be computed."""
        return Encoder(open_run(name, profile_name, seed, **overrides), profile_name)

    chosen = {suite: known[suite] for suite in only}
    measure_suites(run_name(name, profile_name, **overrides), profile_name, seed, chosen, digest,
                   data, encoder, fresh, overrides)


def open_run(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Clip:
    """The model of a run, "base" or one of `CONTROLS`; CheckpointError if it is not trained."""
    weights = weights_of(CONTROLS.get(name, name), profile_name, seed, **overrides)
    needs.require(needs.stock(needs.weights_source(weights.model, weights.source)))
    if name not in CONTROLS:
        return weights.load(pick_device())
    model = experiment(TUNED, profile_name).model
    return load_clip(model, weights.source, "gelu", pick_device(), allow_activation_mismatch=True)


def measure_suites(
    run: str, profile_name: str, seed: int, suites: Mapping[str, Suite], digest: str,
    data: Mapping[str, str], encoder: Callable[[], Encoder], fresh: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Measure what is missing of some suites under the name `run`, of the weights `digest` and the
    `data` of each suite; real data that may be absent are left out with a message."""
    for name, suite in suites.items():
        try:
            code = suite.code(profile_name)
            measure(
                name, run, seed, profile_name, _key(name, digest, data[name], code["code"]),
                lambda measure=suite: _numbers(measure(encoder(), profile_name), profile_name),
                fresh=fresh, weights=digest[:12], data=data[name][:12],
                settings=dict(settings or {}), **code,
            )
        except DataError as error:
            if not (find_profile(profile_name).real and needs.may_be_absent(name)):
                raise
            print(f"Left out: {name}. {error}", flush=True)


def _numbers(tables: Tables, profile_name: str) -> Tables:
    """Tables without the words of captions, where these are people's and not ours to store."""
    if not find_profile(profile_name).photographs:
        return tables
    return {name: frame.drop(columns="word", errors="ignore") for name, frame in tables.items()}


def wanted(profile_name: str) -> list[str]:
    """Names in `data/sources.yml` of all that a profile with real data reads, pictures of sets
    included; none of another profile."""
    if not find_profile(profile_name).real:
        return []
    config = experiment(TUNED, profile_name)
    names = [*needs.weights_source(config.model, weights_path(config)), *needs.TRAINING,
             *(name for suite in SUITES for name in needs.sources_of(suite))]
    sources = load_sources()
    return list(dict.fromkeys(each for name in names for each in (*sources[name].needs, name)))


def measure_data(profile_name: str, fresh: bool = False) -> None:
    """Measure the tables that belong to the data and to no model; DataError if data are missing."""
    from cae_lib.evaluation.items import data_tables

    suites = ("benchmarks", *needs.SUITES)
    digests = sorted(data_digests(profile_name, suites, needs.TRAINING).items())
    if find_profile(profile_name).real:
        digests.append(("", sources_digest(needs.stock(needs.TRAINING), needs.TRAINING)))
    data = hashlib.sha256(repr(digests).encode()).hexdigest()
    code = OF_DATA.code(profile_name)
    measure(results.DATA, results.DATA, 0, profile_name,
                    _key(results.DATA, "", data, code["code"]), lambda: data_tables(profile_name),
                    fresh=fresh, data=data[:12], **code)


def _key(suite: str, weights: str, data: str, code: str) -> str:
    return hashlib.sha256(f"{suite} {weights} {data} {code}".encode()).hexdigest()[:12]
