"""The activation control: the same weights read with the other activation than their own.

NegCLIP's, CAE's and MACCO's evaluations reload a checkpoint by its path, which in open_clip means
GELU, while the weights descend from OpenAI's and were trained with QuickGELU. So a difference
between "CLIP" and "CLIP, fine-tuned" can be partly one of activations. Here every part is measured
alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from cae_lib.config import experiment, profile
from cae_lib.data.identity import data_digests
from cae_lib.data.needs import weights_source
from cae_lib.data.training_set import training_set
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.registry import SUITES
from cae_lib.evaluation.weights import Weights
from cae_lib.experiments import checkpoint_path, is_trained, weights_path
from cae_lib.measurements import MEASUREMENT, record_name
from cae_lib.models.clip import Clip, load_clip
from cae_lib.records import load_or_run
from cae_lib.runtime import one_thread, pick_device
from cae_lib.training.loop import train
from cae_lib.training.state import run_identity

OTHER = "gelu"
"""The activation of an open_clip model that is loaded by path under its plain name."""

BASE_OTHER = "base-gelu"
"""The base model, trained with QuickGELU, read with GELU."""

TUNED_OTHER = "clip-ft-gelu"
"""CLIP-FT, fine-tuned with QuickGELU, read with GELU: how the papers' numbers were made."""

TUNED_UNDER_OTHER = "clip-ft-under-gelu"
"""CLIP-FT fine-tuned from the same base with GELU, and read with GELU."""

CONTROLS = (BASE_OTHER, TUNED_OTHER, TUNED_UNDER_OTHER)
MEASURED = ("benchmarks", "retrieval")


def evaluate_activation_control(profile_name: str, fresh: bool = False) -> None:
    """Store the records of the base and of CLIP-FT, read with GELU; each seed of CLIP-FT.

    Where CLIP-FT was also fine-tuned with GELU (`train_under_other`), its records are stored, too.
    Nothing is trained here; a run that is not trained is named and left out.

    Args:
        profile_name: Whose runs.
        fresh: Compute anew what this clone has not computed itself.

    Raises:
        DataError: The data are not there.
    """
    read_base(profile_name, fresh)
    for seed in range(profile(profile_name).seeds):
        read_tuned(profile_name, seed, fresh)


def read_base(profile_name: str, fresh: bool = False) -> None:
    """Store the records of the base, read with GELU."""
    start = experiment("clip-ft", profile_name)
    run = _Reread(start.model, weights_path(start))
    _evaluate(BASE_OTHER, profile_name, 0, run, fresh)


def read_tuned(profile_name: str, seed: int, fresh: bool = False) -> None:
    """Store the records of CLIP-FT of one seed, read with GELU."""
    model = experiment("clip-ft", profile_name).model
    tuned = checkpoint_path("clip-ft", profile_name, seed)
    if tuned.is_file():
        _evaluate(TUNED_OTHER, profile_name, seed, _Reread(model, tuned), fresh)
    else:
        print(f"{TUNED_OTHER}/{seed}: left out, clip-ft/{seed} is not trained", flush=True)
    under = under_other_path(profile_name, seed)
    if under.is_file():
        _evaluate(TUNED_UNDER_OTHER, profile_name, seed, _Reread(model, under), fresh)


def under_other_path(profile_name: str, seed: int) -> Path:
    """Where CLIP-FT lies that was fine-tuned with GELU."""
    return checkpoint_path(TUNED_UNDER_OTHER, profile_name, seed)


def train_under_other(profile_name: str, seed: int = 0) -> Path:
    """Fine-tune as CLIP-FT does, from the same weights, but with GELU from the first step on.

    Returns:
        The checkpoint; it is not trained again while all that decides the run holds.

    Raises:
        DataError: The training data are not there.
    """
    config = replace(
        experiment("clip-ft", profile_name, seed=seed), name=TUNED_UNDER_OTHER, activation=OTHER
    )
    target = under_other_path(profile_name, seed)
    data = training_set(profile_name, config.train_data, config.model)
    clip = load_clip(config.model, weights_path(config), OTHER, pick_device(),
                     allow_activation_mismatch=True)  # fmt: skip
    parts = (data.pairs, data.alignment, data.images)
    if is_trained(target, config.steps, run_identity(config, clip.weights_id, *parts)):
        return target
    print(f"Training {config.name}, seed {seed}: {config.steps} steps", flush=True)
    with one_thread(pick_device()):
        train(config, clip, *parts, target.parent)
    return target


class _Reread:
    """Weights read with GELU whatever they were trained with; loaded when first used."""

    def __init__(self, model: str, weights: str | Path | None) -> None:
        self.model, self.weights = model, weights
        self.digest = Weights(weights, model, OTHER).digest()

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.clip())

    def clip(self) -> Clip:
        return load_clip(self.model, self.weights, OTHER, pick_device(),
                         allow_activation_mismatch=True)  # fmt: skip


def _evaluate(name: str, profile_name: str, seed: int, run: _Reread, fresh: bool) -> None:
    """Store the records of one set of weights."""
    tag = () if isinstance(run.weights, Path) else weights_source(run.model, run.weights)
    data = data_digests(profile_name, MEASURED, tag)
    suites: Mapping[str, Callable] = {suite: SUITES[suite] for suite in MEASURED}
    for suite, measure in suites.items():
        content = f"{MEASUREMENT} {suite} {run.digest} {data[suite]} {OTHER}"
        load_or_run(
            record_name(name, suite, seed),
            profile_name,
            hashlib.sha256(content.encode()).hexdigest()[:12],
            lambda measure=measure: measure(run.encoder, profile_name),
            config={"run": name, "suite": suite, "weights": run.digest[:12],
                    "data": data[suite][:12], "activation": OTHER},
            seed=seed,
            fresh=fresh,
        )  # fmt: skip
