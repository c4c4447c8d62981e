"""Export of a trained run: open_clip's weights and configuration, and a card with its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cae_lib.config import experiment
from cae_lib.errors import CheckpointError
from cae_lib.experiments import checkpoint_path
from cae_lib.models.checkpoint import file_digest, read_meta
from cae_lib.models.clip import load_clip
from cae_lib.models.export import FILES, export_clip
from cae_lib.overrides import as_options
from cae_lib.report.card_figures import Run
from cae_lib.report.model_card import card
from cae_lib.report.runs import BASE


def export_run(name: str, profile: str, seed: int, folder: str | Path,
               form: str = "safetensors", **overrides: Any) -> Path:  # fmt: skip
    """Write a trained run as open_clip's weights, its configuration and a model card.

    Args:
        name: "base", or an experiment of the profile.
        profile: whose run it is.
        seed: of the run.
        folder: where to write.
        form: "safetensors" or "pt".
        overrides: settings in which the run differs from the profile's.

    Returns:
        The weight file.

    Raises:
        ConfigError: unknown run, profile, setting or form.
        CheckpointError: the run is not trained, or with another configuration.
    """
    config = None if name == BASE else experiment(name, profile, seed=seed, **overrides)
    path = checkpoint_path(name, profile, seed, **overrides)
    meta = read_meta(path)
    command = f"`cae train {name} --profile {profile} --seed {seed}{as_options(overrides)}`"
    if meta is None:
        raise CheckpointError(f"{path} does not say what it is: write it with {command}.")
    if config is not None and meta.config_key != config.key():
        raise CheckpointError(
            f"{path} was trained with another configuration than the present one of {name}: run "
            f"{command} first."
        )
    clip = load_clip(meta.model, path)
    digest = file_digest(path)
    run = Run(name, profile, seed, overrides)
    text = card(run, clip, meta, config, digest, FILES.get(form, ""))
    return export_clip(clip, folder, meta, text, form)
