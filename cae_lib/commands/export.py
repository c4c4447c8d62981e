"""`cae export`: open_clip's weights and configuration of a run, and a card with its figures; with
`--push` all three go to the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from huggingface_hub import EvalResult, HfApi, ModelCardData, errors, get_token
from huggingface_hub.utils import validate_repo_id

from cae_lib import results
from cae_lib.commands.base import OF_PHOTOGRAPHS, markdown
from cae_lib.commands.scores import HUB_TASK, eval_results, named, recorded_choices
from cae_lib.commands.train import as_options, chosen_run
from cae_lib.config import Experiment, experiment
from cae_lib.data.needs import is_real
from cae_lib.errors import CheckpointError, ConfigError, WriteError
from cae_lib.evaluation.scores import TABLE, weights
from cae_lib.grid import BASE, TUNED, run_name
from cae_lib.models.checkpoint import file_digest, read_meta
from cae_lib.models.clip import FILES, Clip, export_clip, load_clip, open_clip_name
from cae_lib.plots import intervals, label
from cae_lib.runs import checkpoint_path
from cae_lib.statistics import levels

PAPER = "https://doi.org/10.18653/v1/2024.emnlp-main.810"
HUB_NAME = "OWNER/NAME"
OWN = ({"license": "mit"}, "MIT.", "For research: it knows nothing but the drawn pictures of a "
       "small world of some thirty nouns, and is of no use on photographs.")
INHERITED = (
    {"license": "other", "license_name": "that-of-the-starting-weights",
     "license_link": "README.md#licence-and-citation"},
    "Code: MIT. These weights derive from the weights named above and from the captions and "
    "pictures of the training set: the terms of both hold for them.",
    "For research on what CLIP understands of composition. It inherits the data and the biases of "
    "the weights that it started from. Compare its numbers only under the same protocol.",
)
"""Front matter, licence and limits: of models of the small world, and of those of photographs."""

LOADING = """```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("{0}"{1})
model.eval()
tokenizer = open_clip.get_tokenizer("{0}")
```
"""


def run(parsed: argparse.Namespace) -> None:
    """Write a trained run as open_clip's weights, its configuration and a model card, and with
    `--push` upload them."""
    check_push(parsed)
    name, overrides = chosen_run(parsed)
    profile, seed = parsed.profile, parsed.seed
    config = None if name == BASE else experiment(name, profile, seed=seed, **overrides)
    path = checkpoint_path(name, profile, seed, **overrides)
    meta = read_meta(path)
    options = f"{name} --profile {profile} --seed {seed}{as_options(overrides)}"
    if meta is None or config is not None and meta.config_key != config.key():
        raise CheckpointError(
            f"{path} holds another configuration than the present one of {name}: run "
            f"`cae train {options}` first."
        )
    clip = load_clip(meta.model, path)
    seed = 0 if name == BASE else seed
    full = run_name(name, profile, **overrides)
    row, *settings = full.split("+")
    title = ", ".join([label(row), *settings, clip.name, f"profile {profile}", f"seed {seed}"])
    licence, rights, limits = OWN
    if is_real(profile) or profile in OF_PHOTOGRAPHS:
        licence, rights, limits = INHERITED
    other = "gelu" if clip.activation == "quickgelu" else "quickgelu"
    numbers, found = figures(full, profile, seed, file_digest(path), options)
    head = ModelCardData(
        **licence, library_name="open_clip", pipeline_tag=HUB_TASK, language="en",
        tags=["clip", "compositionality", clip.activation],
        **({"model_name": title, "eval_results": found} if found else {}))
    card = "\n".join([
        "---", head.to_yaml(), "---", "",
        f"# {title}", "",
        f"Architecture {clip.name}, activation **{clip.activation}**, {meta.step} optimiser steps, "
        f"configuration `{meta.config_key or 'unknown'}`.", _training(profile, config), "",
        "## Load it", "", *_loading(clip, FILES[parsed.format], parsed.push or HUB_NAME),
        f"With {other} the same weights load without an error and give other scores.", "",
        "## What was measured", "", *numbers, "",
        "## Use and limits", "", limits, "", "## Licence and citation", "", rights, "",
        f"The method is that of Li et al., EMNLP 2024 ({PAPER}); these weights are an independent "
        "reproduction, not the authors' own. Please cite the paper.", "",
    ])
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
        raise ConfigError("not signed in to the Hugging Face hub: call `hf auth login`, or set "
                          "HF_TOKEN to a token that may write")


def push(weights: Path, name: str, public: bool, dry_run: bool) -> None:
    """Upload weights, configuration and card, and nothing else of their folder, to the repository
    `name` of the hub, which is made if it is not there; a dry run tells and asks no server.
    WriteError if the hub does not take them."""
    others = ("open_clip_config.json", "README.md")
    files = [weights, *(weights.with_name(other) for other in others)]
    if dry_run:
        print(f"Would go to {name}, {'public' if public else 'private'} if it is not there yet:")
        for file in files:
            print(f"  {file.name}, {file.stat().st_size / 1e6:,.3f} MB")
        return
    api = HfApi()
    try:
        url = api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=weights.parent,
                          allow_patterns=[file.name for file in files])
    except (OSError, errors.HTTPError, RuntimeError) as error:
        raise WriteError(f"{name}: the hub does not take it ({error}). The files are in "
                         f"{weights.parent}; the same command tries again") from error
    print(f"Uploaded to {url}")


def figures(run: str, profile: str, seed: int, digest: str,
            options: str) -> tuple[list[str], list[EvalResult]]:
    """Benchmarks and retrieval of a run, if of the weights `digest`; beside it CLIP-FT and base;
    and what of it is a result for the card's metadata. `options` is what `cae evaluate` takes to
    measure the run."""
    index = results.index_of("benchmarks", profile)
    provenance = index[run, seed].provenance if (run, seed) in index else {}
    if provenance.get("weights") != digest[:12]:
        state = "The stored numbers belong to other weights" if provenance else "Nothing yet"
        return [f"{state}: `cae evaluate {options}`."], []
    if results.missing("items", [results.DATA], profile):
        advice = f"`cae evaluate data --profile {profile}`"
        return [f"The benchmarks' items are not stored: {advice}."], []
    seeds = {run: seed} | {TUNED: seed, BASE: 0} | {run: seed}
    scores = weights(results.load("items", profile, [results.DATA]))
    found = levels(_load("benchmarks", seeds, profile), weights=scores)
    found["cell"] = intervals(found)
    table = found.pivot(index="score", columns="run", values="cell")
    table = table.reindex(columns=[name for name in seeds if name in table])
    table.insert(0, "n", found.groupby("score")["n"].first())
    rules = [TABLE[score] for score in table.index]
    table["averaging"] = [rule.words for rule in rules]
    table.insert(0, "score", named(pd.Series([rule.label for rule in rules]), profile).array)
    recall = _load("retrieval", seeds, profile)
    lines = ["Retrieval was not measured."]
    if len(recall):
        recall["R@1, %"] = 100.0 * (recall["rank"] == 1)
        recall["set"] = named(recall["set"], profile)
        first = recall.groupby(["set", "direction", "run"])["R@1, %"].mean().unstack("run")
        lines = ["Recall at 1 in percent:", "", markdown(first.round(1).reset_index())]
    return (["Accuracy in percent with 95 % intervals over items. Protocol: cosine of float32 "
            "features, one text or picture against the others; a tie counts as wrong; pictures "
            "resized by the preprocessing stored here.", "", markdown(table), "", *lines, "",
            f"Code `{provenance['code'][:12]}`, data `{provenance['data']}`."],
            eval_results(recorded_choices(run, profile, seed)))


def _load(table: str, seeds: dict[str, int], profile: str) -> pd.DataFrame:
    """A table of runs, one seed of each; those that are not stored are left out."""
    stored = [name for name in seeds if not results.missing(table, [name], profile)]
    frame = results.load(table, profile, stored) if stored else pd.DataFrame()
    return frame[frame["seed"] == frame["run"].map(seeds)] if stored else frame


def _training(profile: str, config: Experiment | None) -> str:
    if config is None:
        return f"The model that every run of the profile `{profile}` starts from."
    loss = "the contrastive loss alone"
    if config.method:
        loss = (f"the contrastive loss and {config.weight:g} times the attribution loss of [CAE]"
                f"({PAPER}), attribution by {config.method}")
    always = ("steps", "batch_size", "lr", "warmup", "seed")
    settings = [f"{name} {value}" for name, value in vars(config).items()
                if name in always or value != getattr(Experiment, name, None)]
    return f"Fine-tuned with {loss}. Settings, where not the default: {', '.join(settings)}."


def _loading(clip: Clip, file: str, name: str) -> list[str]:
    given, own = f', pretrained="{file}"', open_clip_name(clip.name, clip.activation)
    lines = [] if file.endswith(".pt") else [
        f"From this folder, or from the hub with `hf-hub:{name}` in place of `local-dir:.`; the "
        "activation is part of `open_clip_config.json`:", "", LOADING.format("local-dir:.", ""),
    ]
    if own is not None:
        return [*lines, "By the path of the weights:", "", LOADING.format(own, given)]
    return lines or [
        f"open_clip has no architecture of the name {clip.name}: add this folder's `model_cfg` "
        "with `open_clip.add_model_config`, then:", "", LOADING.format(clip.name, given),
    ]
