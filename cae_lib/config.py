"""Folders of the project, and the settings of a training run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cae_lib.errors import ConfigError, check_fields

DISTRIBUTION = "cae-lib"  # name of the package for pip
HINGES = ("difference", "log", "margin")  # of `AttributionLossConfig`
SCOPES = ("batch", "caption", "word")  # of `AttributionLossConfig`
# Names that open_clip's weights have in a repository of the hub; the first that exists is used.
OPEN_CLIP_WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Paths:
    """Folders of the project below `root`, as attributes: `data`, `raw`, `runs` and others."""

    root: Path

    def __getattr__(self, name: str) -> Path:
        places = {
            "book": "book",
            "data": "data",
            "raw": "data/raw",
            "cache": "data/cache",
            "checkpoints": "data/checkpoints",
            "records": "data/records",
            "mini": "data/mini",
            "runs": "runs",
            "build": "build",
        }
        if name not in places:
            raise AttributeError(name)
        return self.root / places[name]


def paths() -> Paths:
    """Return the project's folders: below `CAE_HOME` if set, the checkout, or the current folder.

    The current folder counts if the package was installed without a checkout.
    """
    # Read anew at each call, because a rehearsal sets CAE_HOME within the process. An empty value
    # counts as not set: Path("") would be the current folder.
    home = os.environ.get("CAE_HOME")
    return Paths(Path(home).expanduser().resolve() if home else repository_root() or Path.cwd())


def repository_root() -> Path | None:
    """Return the root of the checkout that contains this package; None without a checkout."""
    folder = Path(__file__).resolve().parent.parent
    # Of a wheel, `folder` is site-packages, which has no such file.
    return folder if (folder / "pyproject.toml").is_file() else None


def install_command(extra: str) -> str:
    """Return the command that adds an extra of `pyproject.toml`, such as "lab", to this package."""
    # No package index has the package, so the command names where this copy came from.
    if (clone := repository_root()) is not None:
        return f'pip install -e "{clone}[{extra}]"'
    try:
        # pip records here the wheel or address that it installed from (PEP 610).
        record = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        record = None
    if record is None:
        return f'pip install "PATH[{extra}]", where PATH is the wheel or a clone of the repository'
    source = json.loads(record)
    address = source["url"]
    if vcs := source.get("vcs_info"):
        address = f"{vcs['vcs']}+{address}@{vcs['commit_id']}"
    return f'pip install "{DISTRIBUTION}[{extra}] @ {address}"'


def missing_package_error(error: ModuleNotFoundError, name: str) -> ModuleNotFoundError:
    """Return an error that says how to install the package that the public name `name` needs."""
    # If one of our own modules is missing, installing an extra does not help.
    if str(error.name).partition(".")[0] in ("cae_lib", "cae_bench", "cae_lab"):
        return error
    text = f"{name} needs {error.name}, which is not installed: {install_command('lab')}"
    return ModuleNotFoundError(text, name=error.name)


def bundled_path(relative_path: str) -> Path:
    """Return the path of a file that comes with the repository, such as "data/roles/captions.txt".

    It is below `paths().root`, or in the repository if the file exists only there.
    """
    path, home = paths().root / relative_path, repository_root()
    # A copy in the folder that CAE_HOME names counts before the committed file. If neither exists,
    # the caller's error should name the former.
    return (
        path
        if path.exists() or home is None or not (home / relative_path).exists()
        else home / relative_path
    )


def cached_open_clip_weights(repository: str) -> Path | None:
    """Return the path of the weights of `OWNER/NAME` in the Hugging Face cache; None without them.

    The network is not used.
    """
    from huggingface_hub import try_to_load_from_cache

    cached = (try_to_load_from_cache(repository, name) for name in OPEN_CLIP_WEIGHT_FILES)
    # Besides a path and None, it returns an object for a file that the hub is known not to have.
    return next((Path(path) for path in cached if isinstance(path, str)), None)


@dataclass(frozen=True, kw_only=True)
class AttributionLossConfig:
    """Settings of the attribution loss.

    Attributes:
        hinge: "difference" is the paper's `max(0, A_obj - A_comp + eps)`, where A_obj is the mean
            score of object words, A_comp is the mean score of attribute and relation words, and eps
            is the value of the setting `margin`. "log" compares the logarithms of A_obj and A_comp
            instead, so that the loss does not depend on the scale of the scores; means below 1e-6
            are first raised to 1e-6. "margin" does not use object words. It is `max(0, eps - a_j)`
            for the score a_j of each attribute or relation token j, averaged over attributes and
            over relations separately. The loss is the mean of the two averages. If only one of the
            two roles occurs, the loss is the average for this role; if none occurs, it is 0.
        margin: The value eps. With the hinge "margin" it must be above 0: some methods, such as
            "attention", have no scores below 0, so this hinge would always be 0 with an eps of 0.
        scope: "batch", as in the paper, averages over all tokens of the batch. We add two others:
            "caption" computes means and hinge within each caption and then averages over captions;
            "word" first averages the tokens of each word, so that a word with many tokens counts
            once.
        stop_gradient: Treat A_obj as a constant, so that gradients flow only through A_comp.
        complete_captions: Use only captions that have an object word and also an attribute or
            relation word. The scope "caption" uses only these captions even if this is False. The
            hinge "margin" uses all captions even if this is True.

    Raises:
        ConfigError: If a value is not allowed or has the wrong type, or if `hinge="margin"` is
            combined with `scope="caption"`, with `stop_gradient`, or with a `margin` of 0 or less.
    """

    hinge: str = "difference"
    margin: float = 0.0
    scope: str = "batch"
    stop_gradient: bool = False
    complete_captions: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        for name, allowed in (("scope", SCOPES), ("hinge", HINGES)):
            if (value := getattr(self, name)) not in allowed:
                expected = ", ".join(allowed)
                raise ConfigError(f"unknown {name} {value!r}: expected one of {expected}.")
        # The hinge "margin" has no A_obj, which the scope "caption" needs in each caption and which
        # `stop_gradient` would hold constant.
        alone = self.scope != "caption" and not self.stop_gradient and self.margin > 0
        if self.hinge == "margin" and not alone:
            raise ConfigError(
                "hinge 'margin' holds each composition word against eps, not against the objects "
                "of its caption: it takes a margin above 0, scope 'batch' or 'word', and no "
                "stop_gradient."
            )


@dataclass(frozen=True)
class Experiment(AttributionLossConfig):
    """Configuration of one training run. Comments explain the fields beside those of the loss.

    Types and the settings of the loss are checked here, other values where they are used.
    """

    name: str  # name of the run, such as "clip-ft" or "cae-attention"
    profile: str  # a key of `cae_lab.profiles.PROFILES`
    model: str = "clip-mini"  # or "clip-photo", or a model of open_clip
    activation: str = "quickgelu"  # or "gelu"
    # The weights to start from: the path, below the data folder, of a .safetensors file or of any
    # weight file in `raw`; or a tag of open_clip; None for random weights. If `steps` is 0, None is
    # not allowed, but a folder in `raw`, hf-hub:OWNER/NAME and hf:OWNER/NAME are.
    weights: str | None = None
    # If `steps` is 0: share of a weight file in the weighted mean of its weights and those of
    # OpenAI's ViT-B-32; 1 is the file alone.
    weights_share: float = 1.0
    train_data: str = "coco"  # name of the training set, see `training_set`
    augment: bool = True  # crop images at random; False takes the crop of evaluation
    method: str | None = None  # attribution method of the CAE loss; None trains without it
    # Parameters of the method, as names and values; `swap` also applies to foils "exchanged".
    attribution: tuple[tuple[str, Any], ...] = ()
    weight: float = 0.0  # λ, the weight of the attribution loss
    # Further attribution methods, each with its own λ; their losses are added to that of `method`.
    further_methods: tuple[tuple[str, float], ...] = ()
    image_gradient: bool = True  # see `CAELoss`
    roles: str = "parsed"  # or "permuted", "random": see `cae_lib.training.batch.placebo_roles`
    # For a placebo: the loss is A_obj - A_comp without a hinge, scaled at each step so that its
    # gradient has the norm that the loss with the parsed roles would give.
    match_gradient: bool = False
    tagger: str = "scene-graph"  # the paper's; or "dependency", "truth": see `training_set`
    negatives: bool = False  # NegCLIP's hard negatives: two images, up to four texts for each row
    # Hard negative captions without NegCLIP's images, one for each caption that has any: from the
    # training set ("given"), or a swap that `cae_lib.attribution.binding` makes ("exchanged").
    foils: str | None = None
    # Which of the swaps that the tagger finds a training uses: () for all, ("relations",) or
    # ("attributes",) for those of one kind, ("pairs",) for half of the pairs of words, otherwise
    # relations with one of these words; see `cae_lib.training.batch.select_swaps`.
    swapped: tuple[str, ...] = ()
    # Compare these `foils` with their source captions by a margin loss, with the run's `weight` and
    # `margin`; otherwise they are negatives of the contrastive loss.
    foil_hinge: bool = False
    # "fixed": the margin of that loss is `margin`. "adaptive": it is the mean similarity gap in the
    # last step that had foils, clamped to between 0 and `margin`, as in CE-CLIP; 0 at first.
    margin_rule: str = "fixed"
    lock_image: bool = False  # keep the image tower as it is, and train the text tower alone
    lock_trunk: bool = False  # keep only the trunk of a timm image tower as it is
    tower_steps: int = 0  # for a base model: steps that first train the image tower alone
    steps: int = 300  # of the optimiser; 0 measures the weights that the run starts from
    batch_size: int = 128  # pairs in a step, over all processes; `negatives` adds as many
    warmup: int = 30  # steps of linear warm-up, before a cosine decay towards 0
    lr: float = 3e-4  # highest learning rate; this and the next three are settings of AdamW
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    precision: str = "fp32"  # or "bf16" (autocast), or "auto": bf16 if the device supports it
    # Seed of the order of the data, crops, negatives, placebos, random numbers within the
    # model and the method, and the initial weights of a base model.
    seed: int = 0

    def key(self) -> str:
        """Return a hash of `changed()`, as 12 hexadecimal digits."""
        # Defaults are not hashed, so a field that is added later leaves existing keys as they are.
        # The default of a new field must therefore reproduce the earlier behaviour.
        content = json.dumps(self.changed(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def changed(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, with `name` and `profile`."""
        values = dataclasses.asdict(self)
        # The default of `name` and `profile` is MISSING, from which every value differs.
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value != defaults[name]}
