"""The runs of a profile: their names, settings and files; training one and measuring one. A run is
trained once, and a table measured once, until something that decides it changes. Settings other
than the profile's make a variant, whose files and tables lie apart."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cae_lib import results
from cae_lib.config import METHODS, Experiment, experiment, paths, profile, shipped
from cae_lib.data import needs
from cae_lib.data.needs import data_digests, is_real, sources_digest
from cae_lib.data.training_set import data_root, training_set
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.embed import Encoder, Weights, image_digest
from cae_lib.evaluation.sets import is_world
from cae_lib.evaluation.suites import BASE_SUITES, SUITES, data_tables
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import Clip, load_clip
from cae_lib.results import Tables
from cae_lib.runtime import measuring_hash, one_thread, pick_device
from cae_lib.training.execution import Execution
from cae_lib.training.loop import STATE, train
from cae_lib.training.state import changes, run_identity

BASE, TUNED, CONTROL = "base", "clip-ft", "negclip"
ABLATED = "cae-gradcam"
"""The run whose settings are varied: its method has all of them, and levels within a short run."""

BASE_STUDY = (TUNED, "cae-perturbation")
"""Trained from each base model: the reference, and the method whose scores stay faithful."""

LEADS = (0.1, 0.3, 3.0, 10.0)
"""Of the chosen weight of a method: from little to beyond what levels attribution."""

CONTROLS: Mapping[str, str] = {f"{run}-gelu": run for run in (BASE, TUNED)}
"""Weights trained with QuickGELU and read with GELU, as open_clip loads a file under its plain
name: what the evaluations of NegCLIP, CAE and MACCO do."""

CONTROL_SUITES = ("benchmarks", "retrieval")
OF_CONTENT = ("zero_shot", "heatmaps")
"""Suites that ask what is in a picture, which nobody said of photographs with captions."""
PLAIN = re.compile(r"[\w.-]{1,24}")


class Variant(NamedTuple):
    """A run of a profile (or its base model) with other settings, and the seeds that it takes."""

    run: str
    settings: dict[str, Any]
    seeds: int = 1

    def name(self, profile_name: str) -> str:
        """The run's name in tables."""
        return run_name(self.run, profile_name, **self.settings)


def run_name(name: str, profile_name: str, **overrides: Any) -> str:
    """The name of a run in tables and their files, such as `cae-gradcam+short+scope=word`: "short"
    for the profile's `short` settings, `base=600` for the base model of so many steps that a run
    starts from, a hash for a value that is long or no word."""
    chosen, rest, parts = profile(profile_name), dict(overrides), [name]
    if chosen.short and chosen.short.items() <= rest.items():
        parts.append("short")
        rest = {key: value for key, value in rest.items() if key not in chosen.short}
    for steps in chosen.earlier_bases:
        if rest.get("weights") == earlier_base(profile_name, steps):
            del rest["weights"]
            parts.append(f"{'steps' if name == BASE else 'base'}={steps}")
    rest |= dict(rest.pop("attribution", ()))
    for key, value in sorted(rest.items()):
        short = isinstance(value, float) and value == float(f"{value:g}")
        text = f"{value:g}" if short else str(value)
        if not PLAIN.fullmatch(text):
            text = hashlib.sha256(text.encode()).hexdigest()[:8]
        parts.append(f"{key}={text}")
    return "+".join(parts)


def find_run(name: str, profile_name: str) -> tuple[str, dict[str, Any]]:
    """Row and overrides of a run of the studies by its name; any other name is a row itself."""
    for variant in (*ablations(profile_name), *base_variants(profile_name),
                    *lead_variants(profile_name)):
        if variant.name(profile_name) == name:
            return variant.run, variant.settings
    return name, {}


def weights_path(config: Experiment) -> str | Path | None:
    """The weights a run starts from: a file under the data folder, or an open_clip tag."""
    if config.weights is None or not config.weights.endswith(".safetensors"):
        return config.weights
    made_here = config.weights.startswith("checkpoints/")
    return paths().data / config.weights if made_here else shipped(f"data/{config.weights}")


def earlier_base(profile_name: str, steps: int) -> str:
    """The setting `weights` of runs that start from a base model of fewer steps."""
    return profile(profile_name).training["weights"].replace("base", f"base-{steps}")


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
    target = checkpoint_path(name, profile_name, seed, **overrides)
    start = weights_path(config)
    known = read_meta(target) if target.is_file() else None
    used, expected = known.extra.get("rows", (0, 0)) if known else (0, 0)
    if used != expected and not needs.may_be_incomplete(needs.TRAINING[0]):
        raise DataError(
            f"{target} was trained on {used:,} of {expected:,} rows. Remove its folder to train on "
            f"all of them, or keep it with --allow-missing {needs.TRAINING[0]}"
        )
    if is_real(profile_name):
        tag = needs.weights_source(config.model, start)
        for line in needs.require(needs.stock((*needs.TRAINING, *tag))):
            print(line, flush=True)
    data = training_set(profile_name, config.train_data, config.model, config.tagger)
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
    print(f"Training {name}, seed {seed}: {config.steps} steps of {config.batch_size}"
          f"{rows if is_real(profile_name) else ''}", flush=True)
    with one_thread(pick_device()):
        return train(config, clip, *parts, target.parent, execution=execution)


def _drop_other_state(path: Path, identity: dict[str, str]) -> None:
    """Remove what an interrupted training left if it was another one; that would be refused."""
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
    if not (is_real(profile_name) or is_world(data_root(profile_name))):
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
        return encoder_of(open_run(name, profile_name, seed, **overrides), profile_name)

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
    run: str, profile_name: str, seed: int, suites: Mapping[str, Any], digest: str,
    data: Mapping[str, str], encoder: Callable[[], Encoder], fresh: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Measure what is missing of some suites under the name `run`, of the weights `digest` and the
    `data` of each suite; real data that may be absent are left out with a message."""
    for suite in suites:
        try:
            results.measure(
                suite, run, seed, profile_name, _key(suite, digest, data[suite]),
                lambda measure=suites[suite]: _numbers(measure(encoder(), profile_name),
                                                       profile_name),
                fresh=fresh, weights=digest[:12], data=data[suite][:12],
                settings=dict(settings or {}),
            )
        except DataError as error:
            if not (is_real(profile_name) and needs.may_be_absent(suite)):
                raise
            print(f"Left out: {suite}. {error}", flush=True)


def _numbers(tables: Tables, profile_name: str) -> Tables:
    """Tables without the words of captions, where these are people's and not ours to store."""
    if is_real(profile_name) or is_world(data_root(profile_name)):
        return tables
    return {name: frame.drop(columns="word", errors="ignore") for name, frame in tables.items()}


def encoder_of(clip: Clip, profile_name: str) -> Encoder:
    """An encoder of a profile's data; where runs lock the image tower they share its vectors."""
    kept = None
    if experiment(TUNED, profile_name).lock_image and hasattr(clip.model, "visual"):
        name = f"{image_digest(clip.model)[:32]}-{clip.activation}.npz"
        kept = paths().cache / "pictures" / name
    return Encoder(clip, kept=kept, progress=clip.name if is_real(profile_name) else None)


def measure_data(profile_name: str, fresh: bool = False) -> None:
    """Measure the tables that belong to the data and to no model; DataError if data are missing."""
    suites = ("benchmarks", *needs.SUITES)
    digests = sorted(data_digests(profile_name, suites, needs.TRAINING).items())
    if is_real(profile_name):
        digests.append(("", sources_digest(needs.stock(needs.TRAINING), needs.TRAINING)))
    data = hashlib.sha256(repr(digests).encode()).hexdigest()
    results.measure(results.DATA, results.DATA, 0, profile_name, _key(results.DATA, "", data),
                    lambda: data_tables(profile_name), fresh=fresh, data=data[:12])


def _key(suite: str, weights: str, data: str) -> str:
    return hashlib.sha256(f"{suite} {weights} {data} {measuring_hash()}".encode()).hexdigest()[:12]


def ablations(profile_name: str) -> list[Variant]:
    """Every setting of the loss that the paper leaves open, varied one at a time, with the
    profile's `short` settings. The first variant of a run is its reference; what the profile has
    already is no variant. Without `short` settings there is none."""
    short = profile(profile_name).short
    if not short:
        return []
    weight, opened = experiment(ABLATED, profile_name).weight, {"lock_image": False}
    varied: dict[str, list[dict[str, Any]]] = {
        TUNED: [{}, opened],
        ABLATED: [
            {}, {"weight": weight / 10}, {"weight": weight * 10}, {"margin": 0.05},
            {"scope": "caption"}, {"scope": "word"}, {"stop_gradient": True},
            {"attribution": (("start_layer", -1),)}, {"attribution": (("second_order", False),)},
            {"tagger": "dependency"}, opened, opened | {"image_gradient": False},
        ],
    }
    found = []
    for run, rows in varied.items():
        has = vars(experiment(run, profile_name)).items()
        first, *new = [dict(settings.items() - has) for settings in rows]
        found += [Variant(run, short | settings) for settings in (first, *filter(None, new))]
    return found


def base_variants(profile_name: str) -> list[Variant]:
    """The base models of fewer steps, and the runs of `BASE_STUDY` from each and from the base."""
    chosen = profile(profile_name)
    starts = [{"weights": earlier_base(profile_name, steps)} for steps in chosen.earlier_bases]
    found = [Variant(run, chosen.short | start, 2) for start in (*starts, {}) for run in BASE_STUDY]
    return [*(Variant(BASE, start) for start in starts), *found] if chosen.earlier_bases else []


def lead_variants(profile_name: str) -> list[Variant]:
    """Each paper method with other weights than the chosen one, from little to beyond levelling;
    of the method of `BASE_STUDY` three seeds. None without `earlier_bases`."""
    methods = METHODS if profile(profile_name).earlier_bases else ()
    rows = {f"cae-{method}": experiment(f"cae-{method}", profile_name) for method in methods}
    return [Variant(name, {"weight": round(share * row.weight, 9)}, 3 if name in BASE_STUDY else 1)
            for name, row in rows.items() for share in LEADS]


def study_runs(profile_name: str) -> list[tuple[Variant, int]]:
    """Every run of the studies with its seed, none twice; base models are not among them."""
    variants = (*base_variants(profile_name), *ablations(profile_name),
                *lead_variants(profile_name))
    found = {(variant.name(profile_name), seed): (variant, seed) for variant in variants
             for seed in range(min(variant.seeds, profile(profile_name).seeds))
             if variant.run != BASE}
    return list(found.values())
