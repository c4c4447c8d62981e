"""`cae export`: open_clip's weights and configuration of a run, and a card with its figures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cae_lib.commands.card import card
from cae_lib.commands.settings import as_options, chosen_run
from cae_lib.errors import CheckpointError
from cae_lib.models.checkpoint import file_digest, read_meta
from cae_lib.models.clip import load_clip
from cae_lib.models.export import FILES, export_clip
from cae_lib.runs import BASE, checkpoint_path, run_name, run_settings


def run(parsed: argparse.Namespace) -> None:
    """Write a run as open_clip weights."""
    name, overrides = chosen_run(parsed)
    path = export_run(name, parsed.profile, parsed.seed, parsed.output, parsed.format, **overrides)
    print(f"The weights are {path}; README.md beside them says how to load them")


def export_run(
    name: str,
    profile: str,
    seed: int,
    folder: str | Path,
    form: str = "safetensors",
    **overrides: Any,
) -> Path:
    """Write a trained run as open_clip's weights, its configuration and a model card.

    Args:
        name: "base", or an experiment of the profile.
        profile: Whose run it is.
        seed: Of the run.
        folder: Where to write.
        form: "safetensors" or "pt".
        overrides: Settings in which the run differs from the profile's.

    Returns:
        The weight file.

    Raises:
        ConfigError: Unknown run, profile, setting or form.
        CheckpointError: The run is not trained, or with another configuration.
    """
    config = None if name == BASE else run_settings(name, profile, seed, **overrides)
    path = checkpoint_path(name, profile, seed, **overrides)
    meta = read_meta(path)
    options = f"{name} --profile {profile} --seed {seed}{as_options(overrides)}"
    if meta is None:
        raise CheckpointError(
            f"{path} does not say what it is: write it with `cae train {options}`."
        )
    if config is not None and meta.config_key != config.key():
        raise CheckpointError(
            f"{path} was trained with another configuration than the present one of {name}: run "
            f"`cae train {options}` first."
        )
    clip = load_clip(meta.model, path)
    text = card(run_name(name, profile, **overrides), profile, 0 if name == BASE else seed, clip,
                meta, config, file_digest(path), FILES.get(form, ""), options)
    return export_clip(clip, folder, meta, text, form)
