"""What is measured on a run: compute what is missing, and read what is stored.

A measurement is a record whose key covers the weights, the data and the kind of measurement.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from cae_lib.config import experiment, profile
from cae_lib.data import needs
from cae_lib.data.identity import data_digests
from cae_lib.data.needs import is_real
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.amounts import amounts
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.registry import BASE_SUITES, SUITES, Suite
from cae_lib.evaluation.weights import Weights
from cae_lib.experiments import BASE, tell, weights_of
from cae_lib.records import Record, load_or_run, load_record, record_path
from cae_lib.runtime import pick_device

MEASUREMENT = 2
"""Raise when what an evaluation stores changes meaning: old records are then computed anew."""


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
            tell(amounts(suite, record.results) if is_real(profile_name) else ())


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
        DataError: A record is missing, or does not tell which items share a picture; the message
            says which command computes it.
    """
    available = profile(profile_name).seeds
    seeds = available if seeds is None else seeds
    if not 1 <= seeds <= available:
        raise ConfigError(f"seeds={seeds}: expected 1 to {available} in profile {profile_name}")
    label = run_label(name, profile_name, **overrides)
    names = [record_name(label, suite, number) for number in range(1 if name == BASE else seeds)]
    for seed, record in enumerate(names):
        path, fault = record_path(record, profile_name), ""
        if is_real(profile_name) and not path.is_file():
            fault = f"{record} is not measured yet in the profile {profile_name}."
        elif suite in ("benchmarks", "retrieval") and not all(
            "pictures" in part for part in _load(record, profile_name).results.values()
        ):
            fault = f"{path} does not tell which items share a picture."
        if fault:
            raise _to_measure(fault, name, profile_name, suite, seed, overrides)
    return [_load(record, profile_name) for record in names]


def _to_measure(
    fault: str, name: str, profile_name: str, suite: str, seed: int, overrides: Mapping[str, Any]
) -> DataError:
    settings = "".join(f" --set {shlex.quote(f'{key}={v}')}" for key, v in overrides.items())
    options = f"--profile {profile_name} --seed {seed}{settings}"
    commands = [f"cae evaluate {name} {options}"]
    if name != BASE:
        commands.insert(0, f"cae train {name} {options}")
    lines = [fault, f"Run: {'; '.join(commands)}", needs.missing_for(suite)]
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
