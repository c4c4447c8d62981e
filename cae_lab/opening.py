"""Find any model by its name: a run of a profile, a weight file, a tag of open_clip."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from cae_bench.missing import require_weights
from cae_lab.runs import Profile, Run, is_run
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import WEIGHT_SUFFIXES, Clip
from cae_lib.models.external import LORA_ALPHA, ExternalModel, load_external, model_loader
from cae_lib.runtime import pick_device
from cae_lib.training.inputs import digest


@dataclass(frozen=True)
class OtherModel:
    """A model that was not trained here, with its name in the tables of a profile."""

    external: ExternalModel
    name: str
    profile: Profile
    seed: ClassVar[int] = 0  # as of a run that is not trained

    def open(self) -> Clip:
        """Load the model, once."""
        return self._clip

    @cached_property
    def _clip(self) -> Clip:
        return load_external(self.external, pick_device())

    def stored_digest(self) -> str:
        """Return a digest that identifies the weights, which are loaded, and their evaluation."""
        clip, external = self.open(), self.external
        # The same weights give other numbers with GELU than with QuickGELU.
        settings = clip.activation, LORA_ALPHA, external.weights_share, external.processor
        return digest(clip.weights_id, *settings)

    def described(self) -> dict[str, Any]:
        """Return what the provenance of the model's tables says of its inputs."""
        return {"settings": {"source": Path(self.external.source).name}}


def find_model(
    name: str,
    profile: Profile,
    seed: int = 0,
    model: str | None = None,
    activation: str | None = None,
    processor: str | None = None,
    **settings: Any,
) -> Run | OtherModel:
    """Return a run by its name in tables, or any other model; weights need not exist.

    `seed` and `settings` are those of a run; `model`, `activation` and `processor` those of an
    `ExternalModel`.
    """
    if is_run(name, profile):
        return profile.run(name, seed, **settings)
    # Such as "openai" with --model ViT-B-32.
    is_tag = model is not None and ":" not in name and Path(name).suffix not in WEIGHT_SUFFIXES
    source = f"{model}:{name}" if is_tag and not Path(name).is_dir() else name
    external = ExternalModel(source, model, activation, processor=processor)
    return OtherModel(external, name_in_tables(name), profile)


def name_in_tables(name: str) -> str:
    """Return the name of a model that is no run: of a path the stem, and "-" for "/" and ":"."""
    stem = Path(name).stem if Path(name).exists() else name
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.")


def model_opener(model: Run | OtherModel) -> Callable[[], Clip]:
    """Return a function that loads a model.

    Missing weights and wrong options raise errors here, before weights are loaded.
    """
    if isinstance(model, OtherModel):
        return model_loader(model.external, pick_device())
    if not model.is_external:
        source = model.weights.source
        require_weights(model.weights.model, source)
        # A run that is not trained is refused now, and not after the data were read.
        if isinstance(source, Path):
            read_meta(source)
    return model.open
