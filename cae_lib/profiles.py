"""The profiles, such as `smoke` (seconds, its numbers mean nothing), `mini` (the published book, on
two CPU cores) and `paper` (the paper's setting, one large GPU), and the rows of each. One code path
serves all of them; a row of a table is a line here."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cae_lib.config import Experiment, Profile, Search, paths
from cae_lib.errors import ConfigError, check_type
from cae_lib.methods import METHODS, methods


def _rows(hard_batch: int, **weights: float) -> dict[str, dict[str, Any]]:
    """The rows of Tables 1 and 2 that are trained, from lambda for each attribution method, and the
    batch size with hard negatives, which make two pictures and four texts of a row; and those of
    methods that bring their own lambda."""
    cae = {method: {"method": method, "weight": weight} for method, weight in weights.items()}
    hard = {"negatives": True, "batch_size": hard_batch}
    rows: dict[str, dict[str, Any]] = {"clip-ft": {}}
    rows |= {f"cae-{method}": row for method, row in cae.items()}
    rows |= {"negclip": hard}
    rows |= {f"negclip-cae-{method}": row | hard for method, row in cae.items()}
    return rows | {f"cae-{name}": {"method": name, "weight": method.weight}
                   for name, method in methods().items() if method.weight is not None}


def _placebos(**weights: float) -> dict[str, dict[str, Any]]:
    """Rows of CAE with the roles permuted in each caption, from lambda for each method."""
    return {f"placebo-{method}": {"method": method, "weight": weight, "roles": "permuted"}
            for method, weight in weights.items()}


def _controls(
    counterfactual: float, hard_batch: int = 0, **weights: float
) -> dict[str, dict[str, Any]]:
    """Rows beside the paper's, from lambda for each method: placebos, and with `hard_batch` those
    beside hard negatives; CAE on words drawn at random; counterfactual CAE with its placebo."""
    rows = _placebos(**weights)
    if hard_batch:
        hard = {"negatives": True, "batch_size": hard_batch}
        rows |= {f"negclip-{name}": row | hard for name, row in rows.items()}
    rows["random-perturbation"] = rows["placebo-perturbation"] | {"roles": "random"}
    ours = {"method": "counterfactual", "weight": counterfactual,
            "attribution": (("samples", 1),)}  # one object and one other word a caption and step
    rows["cae-counterfactual"] = ours
    return rows | {"placebo-counterfactual": ours | {"roles": "permuted"}}


def _bindings(hard_batch: int, margin: float, weight: float) -> dict[str, dict[str, Any]]:
    """Rows of CAE on the attribution of bindings: with placebos, with hard negatives, and those
    that ask whether the exchanges or the hinge do it."""
    hinge = {"margin": margin, "weight": weight}
    ours = hinge | {"method": "binding", "hinge": "margin", "attribution": (("samples", 1),)}
    any_words = {"attribution": (("samples", 1), ("exchange", "any"))}
    return {
        "cae-binding": ours,
        "placebo-binding": ours | {"roles": "permuted"},
        "wrong-binding": ours | any_words,  # two words change places, whatever their roles
        "kept-binding": hinge | {"foils": "given", "foil_hinge": True, "train_data": "kept"},
        "softmax-binding": {"foils": "exchanged"},  # among the negatives, without a hinge
        "hinge-negclip": hinge | {"foils": "given", "foil_hinge": True},
        "negclip-binding": ours | {"negatives": True, "batch_size": hard_batch},
    }


def _retagged(**weights: float) -> dict[str, dict[str, Any]]:
    """Rows of CAE with the roles that the second tagger finds, from lambda for each method."""
    return {f"dependency-{method}": {"method": method, "weight": weight, "tagger": "dependency"}
            for method, weight in weights.items()}


EVEN = dict.fromkeys(METHODS, 1.0)
"""Lambda of each method where none was chosen."""

CHOSEN = "chosen.json"
"""File among the records of a profile with real data: what `cae tune` has chosen there."""

MARKER = "rehearsal"
"""File at the top of a home that says that everything in it is a rehearsal. It may name the model
that takes the place of the profile's."""

FEW = {"steps": 2, "batch_size": 4, "warmup": 1, "precision": "fp32"}
REHEARSAL = {"seeds": 1, "hard_batch": 2, "short": {"steps": 1},
             "search": Search((1e-6,), (), (1.0,), (0.05,), (20.0,))}
"""What a rehearsal changes of runs, and of their profile."""


def _scale_rows(hard_batch: int, weights: Mapping[str, float] = EVEN, margin: float = 0.05,
                binding: float = 20.0) -> dict[str, dict[str, Any]]:
    """The rows of a profile with real data, from what was chosen; untuned those of `mini`."""
    return (_rows(hard_batch, **weights) | _retagged(**weights)
            | _controls(2.0, hard_batch, **weights) | _bindings(hard_batch, margin, binding))


def native_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether Linux says that the processor computes in bfloat16 (AMX, AVX-512 or ARM's BF16). One
    that does not takes several times as long in it as in float32."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return bool(flags and {"avx512_bf16", "amx_bf16", "bf16"} & set(flags[1].split()))


ON_CPU = "bf16" if native_bf16() else "fp32"
"""Precision of the runs that are made for a CPU, see `Experiment.precision`."""

MINI = {"attention": 0.3, "gradcam": 0.1, "perturbation": 0.3, "gradient": 0.03}
PHOTO = {"attention": 1.0, "gradcam": 10.0, "perturbation": 1.0, "gradient": 0.3}
SIDE_BY_SIDE = {"attention": 0.3, "gradcam": 1.0, "perturbation": 0.1, "gradient": 0.1}

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke", seeds=3, recorded=False,
            own_book="Smoke test: its numbers mean nothing",
            base={"tower_steps": 2, "steps": 4, "batch_size": 16, "lr": 1e-3, "warmup": 2,
                  "lock_image": True, "augment": False},
            training={"weights": "checkpoints/smoke/base/model.safetensors", "steps": 3,
                      "batch_size": 16, "warmup": 1, "lock_image": True, "augment": False},
            methods=_rows(4, **EVEN) | _retagged(**EVEN) | _controls(1.0, 4, **EVEN)
            | _bindings(4, 0.1, 1.0),
            short={"steps": 2, "warmup": 1},
            earlier_bases=(1, 2),
        ),
        Profile(
            name="mini", seeds=3, studies_apart=True,
            base={"tower_steps": 3000, "steps": 1200, "batch_size": 256, "lr": 1e-3,
                  "warmup": 100, "precision": "bf16", "lock_image": True, "augment": False},
            training={"weights": "mini/base.safetensors", "steps": 400, "lr": 1e-3,
                      "precision": ON_CPU, "lock_image": True, "augment": False},
            methods=_rows(64, **MINI) | _controls(2.0, 64, **MINI) | _bindings(64, 0.05, 20.0),
            short={"steps": 100, "batch_size": 64, "warmup": 10},
            earlier_bases=(300, 600),
        ),
        Profile(
            name="photo", seeds=3, photographs=True,
            base={"model": "clip-photo", "steps": 300, "batch_size": 256, "lr": 1e-3, "warmup": 50,
                  "precision": "bf16", "lock_trunk": True, "augment": False},
            training={"model": "clip-photo", "weights": "photo/base.safetensors", "steps": 300,
                      "precision": ON_CPU, "lock_image": True, "augment": False},
            methods=_rows(64, **PHOTO) | _retagged(**PHOTO) | _controls(2.0, **PHOTO)
            | _bindings(64, 0.2, 20.0),
        ),
        Profile(
            name="side-by-side", seeds=3, photographs=True,
            base={"model": "clip-photo", "tower_steps": 250, "steps": 250, "batch_size": 256,
                  "lr": 1e-3, "warmup": 50, "precision": "bf16", "lock_trunk": True,
                  "lock_image": True, "augment": False},
            training={"model": "clip-photo", "weights": "side-by-side/base.safetensors",
                      "steps": 400, "lr": 1e-3, "precision": ON_CPU, "lock_image": True,
                      "augment": False},
            methods=_rows(64, **SIDE_BY_SIDE) | _placebos(**SIDE_BY_SIDE)
            | _bindings(64, 0.1, 5.0),
        ),
        Profile(
            name="paper", seeds=3, base=None, hard_batch=256, studies_apart=True,
            own_book="The paper's scale. On the pages on attribution, bindings, accuracy, and "
                     "retrieval and text, what the text calls the small world, clip-mini or "
                     "mini-COCO is here real pictures, ViT-B/32 and COCO. All other pages are "
                     "those of the book.",
            training={"model": "ViT-B-32", "weights": "openai", "steps": 2135, "batch_size": 256,
                      "warmup": 50, "lr": 1e-6, "precision": "bf16"},
            methods=_scale_rows(256), short={"steps": 427},
            search=Search(rates=(5e-7, 1e-6, 5e-6, 1e-5), shares=()),
        ),
    )
}


def find_profile(name: str) -> Profile:
    """The profile of that name, with what `cae tune` has chosen where its data are real;
    ConfigError, which lists the known ones, if there is none."""
    if name not in PROFILES:
        raise ConfigError(f"unknown profile {name!r}: expected one of {', '.join(PROFILES)}")
    known = PROFILES[name]
    if not known.real:
        return known
    if rehearsed():
        training = known.training | rehearsal_settings()
        known = dataclasses.replace(known, **REHEARSAL, training=training)
    path = paths().records / name / CHOSEN
    if not path.is_file():
        return dataclasses.replace(known, methods=_scale_rows(known.hard_batch))
    found = json.loads(path.read_text(encoding="utf-8"))
    training = known.training | {"lr": found.pop("lr", known.training["lr"])}
    methods = _scale_rows(known.hard_batch, **found)
    return dataclasses.replace(known, training=training, methods=methods)


def rehearsed() -> bool:
    """Whether this home is one of `cae rehearse`, whose runs have few steps of few pairs."""
    return (paths().root / MARKER).is_file()


def rehearsal_settings() -> dict[str, Any]:
    """Settings that every run of a rehearsal has: few steps of few pairs, and the model that its
    `MARKER` names, if it names one."""
    model = (paths().root / MARKER).read_text(encoding="utf-8").strip()
    return FEW | ({"model": model} if model else {})


def choose(name: str, **found: Any) -> None:
    """Write to `CHOSEN` of a profile with real data: `lr`, `weights` by method, `margin` and
    `binding`, the lambda of CAE on bindings; what is not given stays."""
    from filelock import FileLock  # of the extra `lab`

    path = paths().records / name / CHOSEN
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{CHOSEN}.lock")):  # several choices end side by side
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        new = path.with_name(f".{CHOSEN}")
        new.write_text(json.dumps(known | found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        new.replace(path)


def experiment(name: str, profile_name: str, **overrides: Any) -> Experiment:
    """The configuration of one run: defaults, then the profile's, the row's, and `overrides`.
    ConfigError for an unknown name or profile, or an override of unknown name or wrong type; the
    message lists the known ones."""
    chosen = find_profile(profile_name)
    if name not in chosen.methods:
        known = ", ".join(chosen.methods)
        raise ConfigError(f"unknown experiment {name!r}: expected one of {known}")
    hints = typing.get_type_hints(Experiment)
    for key, value in overrides.items():
        if key not in hints or key in ("name", "profile"):
            known = ", ".join(k for k in hints if k not in ("name", "profile"))
            raise ConfigError(f"unknown setting {key!r} of {name}: expected one of {known}")
        check_type(f"{name}: {key}", value, hints[key])
    return Experiment(name, profile_name, **chosen.training | chosen.methods[name] | overrides)
