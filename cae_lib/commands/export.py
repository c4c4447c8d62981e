"""`cae export`: open_clip's weights and configuration of a run, and a card with its figures; with
`--push` all three go to the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from huggingface_hub import HfApi, errors, get_token
from huggingface_hub.utils import validate_repo_id

from cae_lib.commands.options import RUN, SETTINGS, option, run_of, set_words, takes
from cae_lib.errors import CheckpointError, ConfigError, WriteError
from cae_lib.profiles import experiment
from cae_lib.variants import BASE, run_name

HUB_NAME = "OWNER/NAME"


@takes(
    RUN,
    *SETTINGS,
    option("--format", default="safetensors", choices=("safetensors", "pt")),
    option("-o", "--output", type=Path, required=True, metavar="DIR"),
    option(
        "--push",
        metavar="OWNER/NAME",
        help="upload them to this repository of the Hugging "
        "Face hub too; it is made, a private one, if it is not there",
    ),
    option("--public", action="store_true", help="make the repository a public one"),
    option("--dry-run", action="store_true", help="tell what would be uploaded, and ask no server"),
)
def run(parsed: argparse.Namespace) -> None:
    """Write a trained run as open_clip's weights, its configuration and a model card, and with
    `--push` upload them."""
    from cae_lib.commands.cards import figures_of, run_card
    from cae_lib.models.checkpoint import file_digest, read_meta
    from cae_lib.models.clip import EXPORT_FILES, export_clip, load_clip
    from cae_lib.runs import checkpoint_path

    check_push(parsed)
    name, overrides = run_of(parsed)
    profile, seed = parsed.profile, 0 if name == BASE else parsed.seed
    config = None if name == BASE else experiment(name, profile, seed=seed, **overrides)
    path = checkpoint_path(name, profile, seed, **overrides)
    meta = read_meta(path)
    options = f"{name} --profile {profile} --seed {parsed.seed}{set_words(overrides)}"
    if meta is None or config is not None and meta.config_key != config.key():
        raise CheckpointError(
            f"{path} holds another configuration than the present one of {name}: run "
            f"`cae train {options}` first."
        )
    clip = load_clip(meta.model, path)
    row = run_name(name, profile, **overrides)
    figures = figures_of(row, profile, seed, file_digest(path), options)
    card = run_card(
        row,
        clip,
        meta,
        config,
        EXPORT_FILES[parsed.format],
        parsed.push or HUB_NAME,
        figures,
        profile,
        seed,
    )
    written = export_clip(clip, parsed.output, meta, card, parsed.format)
    print(f"The weights are {written}; README.md beside them says how to load them")
    if parsed.push:
        push(written, parsed.push, parsed.public, parsed.dry_run)


def check_push(parsed: argparse.Namespace) -> None:
    """ConfigError, before anything is written, for an upload that cannot be meant or succeed."""
    if not parsed.push:
        if parsed.public or parsed.dry_run:
            raise ConfigError(f"--public and --dry-run say how to upload: add --push {HUB_NAME}")
        return
    try:
        validate_repo_id(parsed.push)
    except errors.HFValidationError as error:
        raise ConfigError(f"--push {parsed.push}: {error}") from error
    if "/" not in parsed.push:
        raise ConfigError(f"--push {parsed.push}: expected {HUB_NAME}")
    if parsed.format != "safetensors":
        raise ConfigError("open_clip reads safetensors from the hub: leave out --format")
    if not (parsed.dry_run or get_token()):
        raise ConfigError(
            "not signed in to the Hugging Face hub: call `hf auth login`, or set "
            "HF_TOKEN to a token that may write"
        )


def push(weights: Path, name: str, public: bool, dry_run: bool) -> None:
    """Upload weights, configuration and card, and nothing else of their folder, to the repository
    `name` of the hub, which is made if it is not there; a dry run tells and asks no server.
    WriteError if the hub does not take them."""
    files = [weights, weights.with_name("open_clip_config.json"), weights.with_name("README.md")]
    if dry_run:
        print(f"Would go to {name}, {'public' if public else 'private'} if it is not there yet:")
        for file in files:
            print(f"  {file.name}, {file.stat().st_size / 1e6:,.3f} MB")
        return
    api = HfApi()
    try:
        url = api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=weights.parent, allow_patterns=[file.name for file in files]
        )
    except (OSError, errors.HTTPError, RuntimeError) as error:
        raise WriteError(
            f"{name}: the hub does not take it ({error}). The files are in "
            f"{weights.parent}; the same command tries again"
        ) from error
    print(f"Uploaded to {url}")
