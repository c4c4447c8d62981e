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

    An unknown name, a wrong or missing setting and a missing file of weights raise errors here,
    before weights are loaded. Other errors are raised when the function is called.

    Args:
        name: Name of a run of the profile, or another model in a form that
            `external.MODEL_SOURCE_HELP` describes. With `model`, a name without a colon and without
            the suffix of a weight file is an open_clip tag of that architecture, such as "openai".
        profile: The profile.
        seed: Seed, for a run.
        model: open_clip's name of the architecture; needed for a weight file that does not state
            it. Not used for a run.
        activation: "quickgelu" or "gelu"; None for the one that the source states. Needed for a
            weight file that states none. Not used for a run.
        processor: See `ExternalModel`; not used for a run.
        **settings: Settings that differ from the profile's, for a run; they replace those in the
            name. Not used for another model.

    Raises:
        ConfigError: If the name is neither a run nor a form of a model, if a setting is unknown, or
            if the architecture or the activation is not known.
        CheckpointError: If the run is not trained, a weight file is missing, or its header is
            damaged.
        DataError: If downloaded weights of a run are missing; the message says how to get them.
    """
    if not is_run(name, profile):
        is_tag = model is not None and ":" not in name and Path(name).suffix not in WEIGHT_SUFFIXES
        source = f"{model}:{name}" if is_tag else name
        external = ExternalModel(source, model, activation, processor=processor)
        return model_loader(external, pick_device())
    run = profile.run(name, seed, **settings)
    if not run.is_external:
        require_weights(run.weights.model, run.weights.source)
        if isinstance(run.weights.source, Path):
            read_meta(run.weights.source)
    return run.open
