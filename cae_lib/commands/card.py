"""The model card of a run for the Hugging Face hub, every figure from the run's stored tables."""

from __future__ import annotations

import pandas as pd

from cae_lib import results
from cae_lib.config import Experiment
from cae_lib.evaluation.scores import TABLE, weights
from cae_lib.models.checkpoint import CheckpointMeta
from cae_lib.models.clip import Clip
from cae_lib.models.export import open_clip_name
from cae_lib.plots import intervals, label
from cae_lib.runs import BASE, TUNED
from cae_lib.statistics import levels

PAPER = "https://doi.org/10.18653/v1/2024.emnlp-main.810"
# Front matter, licence and limits: of models of the small world, and of those of real data.
OWN = ("license: mit", "MIT.", "For research: it knows nothing but the drawn pictures of a small "
       "world of some thirty nouns, and is of no use on photographs.")
INHERITED = (
    "license: other\nlicense_name: that-of-the-starting-weights\n"
    "license_link: README.md#licence-and-citation",
    "Code: MIT. These weights derive from the weights named above and from the captions and "
    "pictures of the training set: the terms of both hold for them.",
    "For research on what CLIP understands of composition. It inherits the data and the biases of "
    "the weights that it started from. Compare its numbers only under the same protocol.",
)


def card(run: str, profile: str, seed: int, clip: Clip, meta: CheckpointMeta,
         config: Experiment | None, digest: str, file: str, options: str) -> str:
    """The model card in Markdown, with the front matter that the hub reads.

    Numbers of other weights than those of `digest` are not shown. `config` is None for the base,
    and `options` is what `cae evaluate` takes to measure the run.
    """
    terms, licence, limits = INHERITED if profile == "paper" else OWN
    row, *settings = run.split("+")
    other = "gelu" if clip.activation == "quickgelu" else "quickgelu"
    return "\n".join([
        "---", terms, "library_name: open_clip", "pipeline_tag: zero-shot-image-classification",
        "language: en", "tags:", "- clip", "- compositionality", f"- {clip.activation}", "---", "",
        f"# {', '.join([label(row), *settings])}, {clip.name}, profile {profile}, seed {seed}", "",
        f"Architecture {clip.name}, activation **{clip.activation}**, {meta.step} optimiser steps, "
        f"configuration `{meta.config_key or 'unknown'}`.", _training(profile, config), "",
        "## Load it", "", *_loading(clip, file),
        f"With {other} the same weights load without an error and give other scores.", "",
        "## What was measured", "", *figures(run, profile, seed, digest, options), "",
        "## Use and limits", "", limits, "", "## Licence and citation", "", licence, "",
        f"The method is that of Li et al., EMNLP 2024 ({PAPER}); these weights are an independent "
        "reproduction, not the authors' own. Please cite the paper.", "",
    ])


def figures(run: str, profile: str, seed: int, digest: str, options: str) -> list[str]:
    """Benchmarks and retrieval of a run; beside it CLIP-FT and the base where measured."""
    path = results.file_of("benchmarks", run, profile)
    provenance = results.metadata(path).get(seed, {}).get("provenance", {})
    if provenance.get("weights") != digest[:12]:
        state = "The stored numbers belong to other weights" if provenance else "Nothing yet"
        return [f"{state}: `cae evaluate {options}`."]
    if results.missing("items", [results.DATA], profile):
        return [f"The benchmarks' items are not stored: `cae evaluate data --profile {profile}`."]
    seeds = {run: seed} | {TUNED: seed, BASE: 0} | {run: seed}
    scores = weights(results.load("items", profile, [results.DATA]))
    found = levels(_load("benchmarks", seeds, profile), weights=scores)
    found["cell"] = intervals(found)
    table = found.pivot(index="score", columns="run", values="cell")
    table = table.reindex(columns=[name for name in seeds if name in table])
    rules = [TABLE[score] for score in table.index]
    table.insert(0, "n", found.groupby("score")["n"].first())
    table = table.assign(averaging=[rule.words for rule in rules]).reset_index()
    table["score"] = [rule.label for rule in rules]
    recall = _load("retrieval", seeds, profile)
    lines = ["Retrieval was not measured."]
    if len(recall):
        recall["R@1, %"] = 100.0 * (recall["rank"] == 1)
        first = recall.groupby(["set", "direction", "run"])["R@1, %"].mean().unstack("run")
        lines = ["Recall at 1 in percent:", "", *_markdown(first.round(1).reset_index())]
    return ["Accuracy in percent with 95 % intervals over items. Protocol: cosine of float32 "
            "features, one text or picture against the others; a tie counts as wrong; pictures "
            "resized by the preprocessing stored here.", "", *_markdown(table), "", *lines, "",
            f"Code `{provenance['code'][:12]}`, data `{provenance['data']}`."]


def _load(table: str, seeds: dict[str, int], profile: str) -> pd.DataFrame:
    """A table of runs, one seed of each; those that are not stored are left out."""
    known = results.stored(table, profile)
    stored = [n for n in seeds if n in known and seeds[n] in results.metadata(known[n])]
    frame = results.load(table, profile, stored) if stored else pd.DataFrame()
    return frame[frame["seed"] == frame["run"].map(seeds)] if stored else frame


def _markdown(frame: pd.DataFrame) -> list[str]:
    rows = [list(frame.columns), ["---"] * len(frame.columns), *frame.fillna("").values.tolist()]
    return ["| " + " | ".join(map(str, row)) + " |" for row in rows]


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


def _loading(clip: Clip, file: str) -> list[str]:
    code = ('```python\nimport open_clip\n\nmodel, _, preprocess = open_clip.'
            'create_model_and_transforms("{0}"{1})\nmodel.eval()\n'
            'tokenizer = open_clip.get_tokenizer("{0}")\n```\n')
    given, own = f', pretrained="{file}"', open_clip_name(clip.name, clip.activation)
    lines = [] if file.endswith(".pt") else [
        "From this folder, or from the hub with `hf-hub:OWNER/NAME` in place of `local-dir:.`; the "
        "activation is part of `open_clip_config.json`:", "", code.format("local-dir:.", ""),
    ]
    if own is not None:
        return [*lines, "By the path of the weights:", "", code.format(own, given)]
    return lines or [
        f"open_clip has no architecture of the name {clip.name}: add this folder's `model_cfg` "
        "with `open_clip.add_model_config`, then:", "", code.format(clip.name, given),
    ]
