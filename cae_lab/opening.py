"""Open any model by its name: a run of a profile, a weight file, a tag of open_clip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cae_bench.missing import require_weights
from cae_lab.runs import Profile, is_run
from cae_lib.models.checkpoint import read_meta
from cae_lib.models.clip import WEIGHT_SUFFIXES, Clip
from cae_lib.models.external import ExternalModel, model_loader
from cae_lib.runtime import pick_device


def model_opener(
    name: str,
    profile: Profile,
    seed: int = 0,
    model: str | None = None,
    activation: str | None = None,
    processor: str | None = None,
    **settings: Any,
) -> Callable[[], Clip]:
    """Return a function that loads a run by its name in tables, or any other model.

    Wrong names and settings and missing weights raise errors here, before weights are loaded.
    `seed` and `settings` are those of a run; `model`, `activation` and `processor` those of an
    `ExternalModel`.
    """
    if not is_run(name, profile):
        # Such as "openai" with --model ViT-B-32.
        is_tag = model is not None and ":" not in name and Path(name).suffix not in WEIGHT_SUFFIXES
        source = f"{model}:{name}" if is_tag else name
        external = ExternalModel(source, model, activation, processor=processor)
        return model_loader(external, pick_device())
    run = profile.run(name, seed, **settings)
    if not run.is_external:
        require_weights(run.weights.model, run.weights.source)
        # A run that is not trained is refused now, and not after the data were read.
        if isinstance(run.weights.source, Path):
            read_meta(run.weights.source)
    return run.open
