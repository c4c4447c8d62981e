"""The runs of a profile: their names, settings and files; training one and measuring one.

A run is trained once: a checkpoint is not made again while its settings, first weights, training
data and training code still hold. A table is measured once, too: its key covers the weights, the
data and the code that measures. Settings other than the profile's make a variant, whose files and
tables lie apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cae_lib import results
from cae_lib.config import Experiment, experiment, paths, profile
from cae_lib.data import needs
from cae_lib.data.identity import data_digests, sources_digest
from cae_lib.data.needs import is_real
from cae_lib.data.training_set import training_set
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.pictures import forget_pictures
from cae_lib.evaluation.suites import BASE_SUITES, SUITES, data_tables
from cae_lib.evaluation.weights import Weights
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import load_clip
from cae_lib.runtime import measuring_hash, one_thread, pick_device
from cae_lib.training.execution import Execution
from cae_lib.training.loop import train
from cae_lib.training.state import changes, run_identity

MEASUREMENT = 3
"""Raise when what an evaluation stores changes meaning: old tables are then computed anew."""

BASE, TUNED = "base", "clip-ft"
ABLATED = "cae-gradcam"
"""The run whose settings are varied: its method has all of them, and levels within a short run."""

BASE_STUDY_RUNS = (TUNED, "cae-perturbation")
"""Trained from each base model: the reference, and the method whose scores stay faithful."""

BASE_SEEDS, ABLATION_SEEDS = 2, 1

STUDY_SUITES = ("benchmarks", "attribution")
CONTROL_SUITES = ("benchmarks", "retrieval")
HARD_SUITES = ("benchmarks", "phrases", "attribution")
"""What the pages show of runs with hard negatives; `cae evaluate` measures all of them."""

GELU = "gelu"
"""The activation of an open_clip model that is loaded by path under its plain name: what NegCLIP's,
CAE's and MACCO's evaluations do, with weights that were trained with QuickGELU."""

BASE_GELU, TUNED_GELU = "base-gelu", "clip-ft-gelu"
"""Base and CLIP-FT, trained with QuickGELU, read with GELU: how the papers' numbers were made."""

TUNED_UNDER_GELU = "clip-ft-under-gelu"
"""CLIP-FT fine-tuned from the same base with GELU, and read with GELU."""

CONTROLS: Mapping[str, str] = {
    BASE_GELU: BASE, TUNED_GELU: TUNED, TUNED_UNDER_GELU: TUNED_UNDER_GELU,
}
"""The activation controls, and whose weights each one reads."""

PLAIN = re.compile(r"[\w.-]{1,24}")


def run_name(name: str, profile_name: str, **overrides: Any) -> str:
    """The name of a run in tables and their files, such as `cae-gradcam+short+scope=word`.

    Overrides that make up the profile's `short` settings become "short", and the base model of
    fewer steps that a run starts from is named by them. A value that is long, or no word, is
    replaced by a hash.
    """
    rest = dict(overrides)
    parts = []
    short = profile(profile_name).short
    if short.items() <= rest.items():
        parts.append("short")
        rest = {key: value for key, value in rest.items() if key not in short}
    for steps in profile(profile_name).earlier_bases if "weights" in rest else ():
        if rest["weights"] == _relative(earlier_base_path(profile_name, steps)):
            rest.pop("weights")
            parts.append(f"{'steps' if name == BASE else 'base'}={steps}")
            break
    rest |= dict(rest.pop("attribution", ()))
    for key, value in sorted(rest.items()):
        text = f"{value:g}" if isinstance(value, float) and value == float(f"{value:g}") else value
        text = str(text)
        if not PLAIN.fullmatch(text):
            text = hashlib.sha256(text.encode()).hexdigest()[:8]
        parts.append(f"{key}={text}")
    return "+".join([name, *parts])


def find_run(name: str, profile_name: str) -> tuple[str, dict[str, Any]]:
    """Row and overrides of a run of the studies by its name; any other name is a row itself."""
    for variant in (*ablations(profile_name), *base_variants(profile_name)):
        if variant.name(profile_name) == name:
            return variant.run, variant.settings
    return name, {}


# Files and settings


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
        path = weights_path(experiment(TUNED, profile_name, **overrides))
        if not isinstance(path, Path):
            raise ConfigError(f"the base of profile {profile_name} is the open_clip tag {path!r}")
        return path
    folder = paths().checkpoints / profile_name
    if overrides:
        key = run_settings(name, profile_name, seed, **overrides).key()
        return folder / "variants" / key / "model.safetensors"
    return folder / name / str(seed) / "model.safetensors"


def earlier_base_path(profile_name: str, steps: int) -> Path:
    """Where the weights of a base model of fewer steps lie."""
    base = checkpoint_path(BASE, profile_name, 0)
    if base.parent == paths().mini:
        return base.with_name(f"base-{steps}.safetensors")
    return base.parent.parent / f"base-{steps}" / base.name


def weights_of(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Weights:
    """The weights of a run, or those that the profile's runs start from ("base").

    Raises:
        ConfigError: Unknown run, profile or setting.
    """
    if name != BASE:
        return Weights(checkpoint_path(name, profile_name, seed, **overrides))
    start = experiment(TUNED, profile_name, **overrides)
    return Weights(weights_path(start), start.model, start.activation)


def run_settings(name: str, profile_name: str, seed: int = 0, **overrides: Any) -> Experiment:
    """The configuration of a run that is trained, the control under GELU among them.

    Raises:
        ConfigError: Unknown run, profile or setting.
    """
    if name != TUNED_UNDER_GELU:
        return experiment(name, profile_name, seed=seed, **overrides)
    config = experiment(TUNED, profile_name, seed=seed, **overrides)
    return replace(config, name=name, activation=GELU)


# Training


def train_run(
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
    config = run_settings(name, profile_name, seed, **overrides)
    target = checkpoint_path(name, profile_name, seed, **overrides)
    _refuse_partial(target)
    start = weights_path(config)
    if is_real(profile_name):
        tag = needs.weights_source(config.model, start)
        for line in needs.Stock.of((*needs.TRAINING, *tag)).require():
            print(line, flush=True)
    data = training_set(profile_name, config.train_data, config.model, config.tagger)
    clip = load_clip(config.model, start, config.activation, pick_device(),
                     allow_activation_mismatch=name == TUNED_UNDER_GELU)
    parts = (data.pairs, data.alignment, data.images)
    if _is_trained(target, config.steps, run_identity(config, clip.weights_id, *parts)):
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


def _is_trained(path: Path, steps: int, identity: dict[str, str]) -> bool:
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


# Measuring


def measure_run(
    name: str,
    profile_name: str,
    seed: int = 0,
    fresh: bool = False,
    only: Iterable[str] = (),
    **overrides: Any,
) -> None:
    """Measure what is missing of a run's tables (all of them with `fresh`, once a clone).

    Real sets that may be incomplete (see `allowing`) are used as far as they are there. With `only`
    no other suites are measured than those. A control (see `CONTROLS`) has `CONTROL_SUITES`.

    Raises:
        ConfigError: Unknown run, profile, setting or suite.
        CheckpointError: The run is not trained.
        DataError: Data are missing; the message says which, and how to get them.
    """
    known = {**SUITES, **BASE_SUITES} if name == BASE else SUITES
    only = list(only) or (CONTROL_SUITES if name in CONTROLS else list(known))
    if unknown := [suite for suite in only if suite not in known]:
        raise ConfigError(
            f"no such measurement: {', '.join(unknown)}; expected some of {', '.join(known)}"
        )
    weights = weights_of(CONTROLS.get(name, name), profile_name, seed, **overrides)
    tag = needs.weights_source(weights.model, weights.source)
    data = data_digests(profile_name, only, tag)
    run = _Measured(weights, profile_name, GELU if name in CONTROLS else None)
    for suite in only:
        try:
            results.measure(
                suite, run_name(name, profile_name, **overrides), seed, profile_name,
                _key(suite, run.digest, data[suite]),
                lambda measure=known[suite]: measure(run.encoder, profile_name),
                fresh=fresh, weights=run.digest[:12], data=data[suite][:12], settings=overrides,
            )
        except DataError as error:
            if not (is_real(profile_name) and needs.may_be_absent(suite)):
                raise
            print(f"Left out: {suite}. {error}", flush=True)


def measure_controls(profile_name: str, seed: int, fresh: bool = False) -> None:
    """Measure CLIP-FT of one seed, read with GELU, and if it is there that trained with GELU."""
    for name in (TUNED_GELU, TUNED_UNDER_GELU):
        if checkpoint_path(CONTROLS[name], profile_name, seed).is_file():
            measure_run(name, profile_name, seed, fresh)
        elif name == TUNED_GELU:
            print(f"{name}/{seed}: left out, {CONTROLS[name]}/{seed} is not trained", flush=True)


def measure_data(profile_name: str, fresh: bool = False) -> None:
    """Measure the tables that belong to the data and to no model.

    Raises:
        DataError: Data are missing; the message says which, and how to get them.
    """
    suites = ("benchmarks", *needs.SUITES)
    digests = sorted(data_digests(profile_name, suites, needs.TRAINING).items())
    if is_real(profile_name):
        digests.append(("", sources_digest(needs.Stock.of(needs.TRAINING), needs.TRAINING)))
    data = hashlib.sha256(repr(digests).encode()).hexdigest()
    results.measure(results.DATA, results.DATA, 0, profile_name, _key(results.DATA, "", data),
                    lambda: data_tables(profile_name), fresh=fresh, data=data[:12])


def _key(suite: str, weights: str, data: str) -> str:
    content = f"{MEASUREMENT} {suite} {weights} {data} {measuring_hash()}"
    return hashlib.sha256(content.encode()).hexdigest()[:12]


class _Measured:
    """Weights to measure; the model is loaded only when something has to be computed.

    Args:
        weights: The weights.
        profile_name: Of real data some pictures end too early (VL-CheckList's); they are counted.
        activation: What the weights are read with in place of their own activation.
    """

    def __init__(self, weights: Weights, profile_name: str, activation: str | None) -> None:
        self.weights, self.profile_name, self.activation = weights, profile_name, activation
        self.digest = weights.digest()
        if activation:
            self.digest = hashlib.sha256(f"{self.digest} {activation}".encode()).hexdigest()

    @cached_property
    def encoder(self) -> Encoder:
        """The model with these weights."""
        if self.activation is None:
            clip = self.weights.load(pick_device())
        else:
            model = experiment(TUNED, self.profile_name).model
            clip = load_clip(model, self.weights.source, self.activation, pick_device(),
                             allow_activation_mismatch=True)
        return Encoder(clip, allow_truncated=is_real(self.profile_name))


# Studies: shorter runs that are compared with each other only


@dataclass(frozen=True)
class Variant:
    """A run of a profile with other settings.

    Attributes:
        run: Row of the profile, or "base".
        group: The setting that is varied, or "reference".
        value: The setting's value, as text for tables.
        settings: The fields of `Experiment` that differ from the profile's, as `overrides`.
        seeds: Seeds that are trained.
    """

    run: str
    group: str
    value: str
    settings: dict[str, Any]
    seeds: int = ABLATION_SEEDS

    @property
    def label(self) -> str:
        """The setting and its value in a few words."""
        return f"{self.group} {self.value}".strip()

    def name(self, profile_name: str) -> str:
        """The run's name in tables."""
        return run_name(self.run, profile_name, **self.settings)


def ablations(profile_name: str) -> list[Variant]:
    """Every setting of the loss that the paper leaves open, varied one at a time.

    The first variants are the references: CLIP-FT and CAE as the profile has them. All take the
    profile's `short` settings, because a study of many settings has to be cheap.
    """
    weight = experiment(ABLATED, profile_name).weight
    rows: list[tuple[str, str, str, dict[str, Any]]] = [
        (TUNED, "reference", "", {}),
        (ABLATED, "reference", "", {}),
        (ABLATED, "lambda", f"{weight / 10:g}", {"weight": weight / 10}),
        (ABLATED, "lambda", f"{weight * 10:g}", {"weight": weight * 10}),
        (ABLATED, "eps", "0.05", {"margin": 0.05}),
        (ABLATED, "scope", "caption", {"scope": "caption"}),
        (ABLATED, "scope", "word", {"scope": "word"}),
        (ABLATED, "stop-gradient", "on A_obj", {"stop_gradient": True}),
        (ABLATED, "layers", "last", {"attribution": (("start_layer", -1),)}),
        (ABLATED, "second order", "off", {"attribution": (("second_order", False),)}),
        (ABLATED, "role tagger", "dependency", {"tagger": "dependency"}),
        (ABLATED, "trained", "text tower only", {"lock_image": True}),
        (TUNED, "trained", "text tower only", {"lock_image": True}),
    ]
    short = profile(profile_name).short
    return [Variant(run, group, value, short | settings) for run, group, value, settings in rows]


def base_variants(profile_name: str) -> list[Variant]:
    """Each base model, and CLIP-FT and CAE from it; the group is its number of steps as text."""
    chosen = profile(profile_name)
    if chosen.base is None:
        return []
    starts = [(steps, {"weights": _relative(earlier_base_path(profile_name, steps))})
              for steps in chosen.earlier_bases]
    starts.append((chosen.base["steps"], {}))
    variants = []
    for steps, start in starts:
        variants.append(Variant(BASE, str(steps), "", start, 1))
        variants += [Variant(run, str(steps), "", chosen.short | start, BASE_SEEDS)
                     for run in BASE_STUDY_RUNS]
    return variants


def study_runs(profile_name: str) -> list[tuple[Variant, int]]:
    """Every run of the studies with its seed, none twice; base models are not among them."""
    found: dict[tuple[str, int], tuple[Variant, int]] = {}
    for variant in (*base_variants(profile_name), *ablations(profile_name)):
        for seed in range(min(variant.seeds, profile(profile_name).seeds)):
            if variant.run != BASE:
                found.setdefault((variant.name(profile_name), seed), (variant, seed))
    return list(found.values())


def _relative(path: Path) -> str:
    return path.relative_to(paths().data).as_posix()
