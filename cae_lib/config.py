"""Folders, profiles, and the configuration of every training run. One code path serves all
profiles, such as `smoke` (seconds, its numbers mean nothing), `mini` (the published book, two CPU
cores) and `paper` (the paper's setting, one large GPU)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cae_lib.errors import ConfigError, check_fields, check_type
from cae_lib.methods import METHODS, methods

HINGES = ("difference", "log", "margin")
SCOPES = ("batch", "caption", "word")


@dataclass(frozen=True)
class Paths:
    """Folders of the project; all lie under `root`."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        places = {
            "book": "book", "data": "data", "raw": "data/raw", "cache": "data/cache",
            "checkpoints": "data/checkpoints", "records": "data/records", "mini": "data/mini",
            "runs": "runs", "build": "build",
        }
        if name not in places:
            raise AttributeError(name)
        return self.root / places[name]


def paths() -> Paths:
    """The project's folders, below `CAE_HOME` if that is set, else the repository that holds this
    package, else the current folder."""
    home = os.environ.get("CAE_HOME")
    return Paths(Path(home).expanduser().resolve() if home else repository() or Path.cwd())


def repository() -> Path | None:
    """The checkout that holds this package; None for one that was installed."""
    folder = Path(__file__).resolve().parent.parent
    return folder if (folder / "pyproject.toml").is_file() else None


def shipped(place: str) -> Path:
    """A file or folder that comes with the repository, such as "data/mini/base.safetensors": the
    one below `CAE_HOME`, or the repository's own where that has none."""
    own, home = paths().root / place, repository()
    return own if own.exists() or home is None or not (home / place).exists() else home / place


@dataclass(frozen=True, kw_only=True)
class Hinge:
    """How far object words may lead over composition words: the settings of the attribution loss.

    ConfigError for a value that is not offered, and for hinge "margin" with a margin of 0 or less
    (only perturbation, counterfactual and binding have scores below 0), with scope "caption" or
    with `stop_gradient`.

    Attributes:
        hinge: "difference", the paper's `max(0, A_obj - A_comp + eps)`; "log", the same of the
            logarithms, which no scale of the scores changes, each A at least 1e-6; "margin",
            `max(0, eps - a_j)` of each composition token, its mean over attributes and that over
            relations, and the mean of the two that occur: object words play no part.
        margin: eps.
        scope: "batch", the paper's, averages over all tokens of the batch. Ours: "caption" takes
            means and hinge within each caption, then the mean over captions; "word" first averages
            the tokens of each word, so that a word of many tokens counts once.
        stop_gradient: treat A_obj as a constant, so that only A_comp is moved.
        complete_captions: let a caption without object word or without composition word add
            nothing; scope "caption" always does, hinge "margin" never.
    """

    hinge: str = "difference"
    margin: float = 0.0
    scope: str = "batch"
    stop_gradient: bool = False
    complete_captions: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        for name, known in (("scope", SCOPES), ("hinge", HINGES)):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"unknown {name} {value!r}: expected one of {', '.join(known)}.")
        alone = self.scope != "caption" and not self.stop_gradient and self.margin > 0
        if self.hinge == "margin" and not alone:
            raise ConfigError(
                "hinge 'margin' holds each composition word against eps, not against the objects "
                "of its caption: it takes a margin above 0, scope 'batch' or 'word', and no "
                "stop_gradient."
            )


@dataclass(frozen=True)
class Experiment(Hinge):
    """One training run, whose attribution loss has the settings of `Hinge`; `key` names it by
    content."""

    name: str  # row of the tables, such as "clip-ft" or "cae-attention"
    profile: str  # one of `PROFILES`
    model: str = "clip-mini"  # or a model of open_clip
    activation: str = "quickgelu"  # or "gelu"
    weights: str | None = None  # the start: a file in the data folder, a tag; None: random weights
    train_data: str = "coco"  # name of the training set
    augment: bool = True  # crop pictures at random; False takes the crop of evaluation
    method: str | None = None  # attribution method of the CAE loss; None trains CLIP-FT
    attribution: tuple[tuple[str, Any], ...] = ()  # parameters of the method: names, values
    weight: float = 0.0  # lambda, the weight of the attribution loss
    image_gradient: bool = True  # see `CAELoss`
    roles: str = "parsed"  # or "permuted", "random": see `cae_lib.training.batch.placebo_roles`
    tagger: str = "scene-graph"  # what finds the roles of words: the paper's, or "dependency"
    negatives: bool = False  # NegCLIP's hard negatives: two pictures and four texts for each row
    foils: str | None = None  # false captions: one of the data's own for each caption ("given"), or
    # an exchange as `cae_lib.attribution.binding` makes it ("exchanged"), without a method
    foil_hinge: bool = False  # hold them against their caption, by weight and margin, not among
    # the negatives of the contrastive loss
    masked: float = 0.0  # share of the captions with a role that the contrastive loss sees with
    # one word masked, as perturbation masks it by default
    lock_image: bool = False  # keep the image tower as it is, and train the text tower alone
    lock_trunk: bool = False  # keep the network of a tower of timm, and train the tower's head
    tower_steps: int = 0  # of the image tower alone, before, on what its pictures hold
    steps: int = 300  # of the optimiser
    batch_size: int = 128  # pairs a step
    warmup: int = 30  # steps of linear warm-up
    lr: float = 3e-4  # this and the next three: of AdamW
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    precision: str = "fp32"  # or "bf16" (autocast)
    seed: int = 0  # of the order of the data, crops, negatives, masks, placebos

    def key(self) -> str:
        """Hash of the fields that differ from their defaults, 12 hexadecimal digits. So a field
        that is added later, with a default that means what was before, changes no key."""
        values = dataclasses.asdict(self)
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        chosen = {name: value for name, value in values.items() if value != defaults[name]}
        content = json.dumps(chosen, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Search:
    """Settings that `cae tune` tries: learning rates, lambdas (walked from 1), and of CAE on
    bindings margins and lambdas."""

    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    shares: tuple[float, ...] = (0.25, 0.5, 2)  # of the steps, that are measured beside them
    weights: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    margins: tuple[float, ...] = (0.05, 0.1, 0.2)
    binding_weights: tuple[float, ...] = (2.5, 5.0, 10.0, 20.0)


@dataclass(frozen=True)
class Profile:
    """What differs between profiles."""

    name: str
    seeds: int  # of each run
    base: dict[str, Any] | None  # of the base model's own training; None where it is downloaded
    training: dict[str, Any]  # fields of `Experiment` that every run of the profile shares
    methods: dict[str, dict[str, Any]]  # for each row of the tables, the fields of it alone
    short: dict[str, Any] = field(default_factory=dict)  # of the shorter runs that are compared
    # with each other only, see `study_runs`; empty where there are none
    earlier_bases: tuple[int, ...] = ()  # steps of bases of shorter trainings than `base`
    search: Search = Search()
    hard_batch: int = 0  # of rows with hard negatives, where `CHOSEN` makes the rows
    photographs: bool = False  # whether its pictures are photographs, not drawn
    studies_apart: bool = False  # whether `cae reproduce` runs them on request alone
    own_book: str | None = None  # what stands above each page of its copy of the book; None where
    # its pages are those of the book itself
    recorded: bool = True  # whether its numbers mean something, and are kept among the records

    @property
    def real(self) -> bool:
        """Whether it takes real data and downloaded weights, which nobody can build here."""
        return self.base is None

    @property
    def gold(self) -> bool:
        """Whether its pictures are drawn, so that all that is in them is known."""
        return not (self.real or self.photographs)

    @property
    def root(self) -> Path:
        """Folder that holds its data sets side by side."""
        own = f"world-{self.name}" if self.gold else self.name
        return paths().raw if self.real else paths().raw / own

    @property
    def records(self) -> Path:
        """Where its tables lie; those that mean nothing stay in the cache."""
        place = paths().records if self.recorded else paths().cache / "records"
        return place / self.name


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
"""File at the top of a home that says that everything in it is a rehearsal."""

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
            name="paper", seeds=3, base=None, hard_batch=256, studies_apart=True, own_book="",
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
        known = dataclasses.replace(known, **REHEARSAL, training=known.training | FEW)
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
