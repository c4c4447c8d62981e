"""Model cards: of a base model beside its weights, and of an exported run with its figures. Their
texts are the templates `base.md` and `run.md` of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from huggingface_hub import ModelCardData

from cae_lib import results
from cae_lib.commands.scores import HUB_TASK, choice_scores, eval_results, named, stored_items
from cae_lib.config import Experiment
from cae_lib.evaluation.averages import TABLE, weights
from cae_lib.models.checkpoint import CheckpointMeta
from cae_lib.models.clip import Clip, open_clip_name
from cae_lib.plots import intervals, label
from cae_lib.profiles import find_profile
from cae_lib.statistics import mean_ci
from cae_lib.variants import BASE, TUNED

PAPER = "https://doi.org/10.18653/v1/2024.emnlp-main.810"
OWN_LICENCE = {"license": "mit"}
INHERITED = {
    "license": "other",
    "license_name": "that-of-the-starting-weights",
    "license_link": "README.md#licence-and-citation",
}


def base_card(
    config: Experiment, table: pd.DataFrame, parameters: int, digest: str, tower_batch: int
) -> str:
    """The card of a base model; `table` is that of `base.training_table`, `digest` of the weights,
    `tower_batch` the number of pictures that its image tower learned from at a time."""
    final = table[table["stored"]][["measure", "value", "low", "high", "n"]].astype({"n": "Int64"})
    return _rendered(
        "base.md",
        config=config,
        parameters=parameters,
        digest=digest,
        tower_batch=tower_batch,
        numbers=markdown(final.round(3)),
        earlier_bases=find_profile(config.profile).earlier_bases,
    )


def run_card(
    run: str,
    clip: Clip,
    meta: CheckpointMeta,
    config: Experiment | None,
    file: str,
    hub: str,
    figures: dict[str, Any],
    profile_name: str,
    seed: int,
) -> str:
    """The card of a run by its name in tables, or of a base without `config`, whose weights are the
    `file` beside it; `hub` is the name of its repository, `figures` those of `figures_of`."""
    row, *settings = run.split("+")
    title = ", ".join([label(row), *settings, clip.name, f"profile {profile_name}", f"seed {seed}"])
    known = find_profile(profile_name)
    inherited = known.real or known.photographs
    results_of_hub = figures.pop("eval_results", None)
    data = ModelCardData(
        **INHERITED if inherited else OWN_LICENCE,
        library_name="open_clip",
        pipeline_tag=HUB_TASK,
        language="en",
        tags=["clip", "compositionality", clip.activation],
        **({"model_name": title, "eval_results": results_of_hub} if results_of_hub else {}),
    )
    return _rendered(
        "run.md",
        data=data,
        title=title,
        clip=clip,
        meta=meta,
        config=config,
        file=file,
        hub=hub,
        own=open_clip_name(clip.name, clip.activation),
        profile=profile_name,
        paper=PAPER,
        settings=_settings(config),
        inherited=inherited,
        photographs=known.photographs,
        **figures,
    )


def figures_of(run: str, profile_name: str, seed: int, digest: str, options: str) -> dict[str, Any]:
    """Benchmarks and retrieval of a run, if of the weights `digest`, beside CLIP-FT and base, and
    what of it is a result for the card's metadata, as values of the template; else why there are
    none. `options` is what `cae evaluate` takes to measure the run."""
    index = results.index_of("benchmarks", profile_name)
    provenance = index[run, seed].provenance if (run, seed) in index else {}
    if provenance.get("weights") != digest[:12]:
        state = "The stored numbers belong to other weights" if provenance else "Nothing yet"
        return {"why_not": f"{state}: `cae evaluate {options}`."}
    if results.missing("items", [results.DATA], profile_name):
        advice = f"`cae evaluate data --profile {profile_name}`"
        return {"why_not": f"The benchmarks' items are not stored: {advice}."}
    seeds = {run: seed} | {TUNED: seed, BASE: 0} | {run: seed}
    answers = _load("benchmarks", seeds, profile_name)
    own = choice_scores(answers[answers["run"] == run], stored_items(profile_name))
    own["dataset"] = named(own["dataset"], profile_name)
    return {
        "accuracy": markdown(_accuracy(answers, list(seeds), profile_name)),
        "recall": _recall(_load("retrieval", seeds, profile_name), profile_name),
        "provenance": provenance,
        "eval_results": eval_results(own),
    }


def _accuracy(answers: pd.DataFrame, runs: list[str], profile_name: str) -> pd.DataFrame:
    """The paper's numbers by row, runs by column."""
    items = results.load("items", profile_name, [results.DATA])
    found = mean_ci(answers, weights=weights(items))
    found["cell"] = intervals(found)
    table = found.pivot(index="score", columns="run", values="cell")
    table = table.reindex(columns=[name for name in runs if name in table])
    table.insert(0, "n", found.groupby("score")["n"].first())
    rules = [TABLE[score] for score in table.index]
    table["averaging"] = [rule.words for rule in rules]
    table.insert(0, "score", named(pd.Series([r.label for r in rules]), profile_name).array)
    return table


def _recall(ranks: pd.DataFrame, profile_name: str) -> str:
    """Recall at 1 as a table; nothing where there are no ranks."""
    if ranks.empty:
        return ""
    ranks["R@1, %"] = 100.0 * (ranks["rank"] == 1)
    ranks["set"] = named(ranks["set"], profile_name)
    first = ranks.groupby(["set", "direction", "run"])["R@1, %"].mean().unstack("run")
    return markdown(first.round(1).reset_index())


def _load(table: str, seeds: dict[str, int], profile_name: str) -> pd.DataFrame:
    """A table of runs, one seed of each; those that are not stored are left out."""
    stored = [name for name in seeds if not results.missing(table, [name], profile_name)]
    frame = results.load(table, profile_name, stored) if stored else pd.DataFrame()
    return frame[frame["seed"] == frame["run"].map(seeds)] if stored else frame


def _settings(config: Experiment | None) -> str:
    always = ("steps", "batch_size", "lr", "warmup", "seed")
    return (
        ", ".join(
            f"{name} {value}"
            for name, value in vars(config).items()
            if name in always or value != getattr(Experiment, name, None)
        )
        if config
        else ""
    )


def _rendered(name: str, **values: Any) -> str:
    template = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return jinja2.Template(template, trim_blocks=True, keep_trailing_newline=True).render(values)


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table, without the index; empty cells for what is missing."""
    cells = frame.astype(object).where(frame.notna(), "").values.tolist()
    rows = [list(frame.columns), ["---"] * len(frame.columns), *cells]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
