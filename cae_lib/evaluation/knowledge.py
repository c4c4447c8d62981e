"""What a model knows of objects, relations and attributes, zero-shot, in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cae_lib.evaluation.attribution import attribution_table
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.probe import probe_table
from cae_lib.evaluation.retrieval import retrieval_ranks
from cae_lib.evaluation.sets import benchmarks, retrieval_pairs
from cae_lib.evaluation.suites import annotated_captions
from cae_lib.models.clip import Clip
from cae_lib.statistics import ANSWERS, levels

KINDS: Mapping[str, tuple[str, ...]] = {
    "object": ("sugarcrepe/replace_obj", "sugarcrepe/add_obj"),
    "relation": ("aro/relation", "sugarcrepe/replace_rel"),
    "attribute": ("aro/attribution", "sugarcrepe/replace_att", "sugarcrepe/swap_att"),
}
"""Choices whose mean accuracy stands for what the base knows of objects, relations, attributes."""


def curve_point(clip: Clip, profile: str) -> dict[str, float]:
    """Zero-shot accuracy by kind of choice, attention by role, and recall at 1."""
    choices, words, recall = _measured(Encoder(clip), profile)
    point = {kind: found.groupby("subset")["correct"].mean().mean()
             for kind, found in choices.items() if len(found)}
    point |= {f"attention_{kind}": words[words["role"] == kind]["score"].mean() for kind in KINDS}
    return {name: float(value) for name, value in point.items()} | recall


def summary(clip: Clip, profile: str) -> dict[str, Any]:
    """The numbers of `curve_point`, those of choices and of attention with intervals and n; and in
    a small world `probe_TARGET`, see `probe_table`, beside the share of the `commonest` answer."""
    encoder = Encoder(clip)
    choices, words, recall = _measured(encoder, profile)
    final: dict[str, Any] = {}
    probes = probe_table(encoder, profile)
    for target, found in probes.groupby("target", sort=False) if len(probes) else ():
        final[f"probe_{target}"] = _interval(found, "correct", ("picture",))
        final[f"commonest_{target}"] = float((found["truth"] == found["commonest"]).mean())
    for kind, found in choices.items():
        if len(found):  # a profile need not have every kind
            sizes = found.groupby("subset")["subset"].transform("size")
            weights = found[[*ANSWERS]].assign(
                score=kind, stratum=found["subset"], weight=1 / sizes / found["subset"].nunique()
            )
            final[kind] = _interval(found, "correct", ANSWERS, weights)
        means = words[words["role"] == kind].groupby(["caption", "picture"])["score"].mean()
        final[f"attention_{kind}"] = _interval(means.reset_index(), "score", ("caption",))
    pairs = retrieval_pairs(profile, "coco")
    return final | recall | {"n_pictures": len(pairs.image_paths), "n_captions": pairs.n_used}


def _measured(
    encoder: Encoder, profile: str
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, dict[str, float]]:
    """Answers by kind of choice, attention of words, and recall at 1."""
    named = {name for names in KINDS.values() for name in names}
    found = answers([part for part in benchmarks(profile) if part.key in named], encoder)
    keys = found["family"] + "/" + found["subset"]
    choices = {kind: found[keys.isin(names)] for kind, names in KINDS.items()}
    words = attribution_table(encoder, *annotated_captions(encoder, profile), ("attention",))
    ranks = retrieval_ranks(encoder, retrieval_pairs(profile, "coco"), "coco")
    first = (ranks["rank"] == 1).groupby(ranks["direction"]).mean()
    i2t, t2i = float(first["image to text"]), float(first["text to image"])
    return choices, words, {"retrieval_i2t_r1": i2t, "retrieval_t2i_r1": t2i}


def _interval(frame: pd.DataFrame, value: str, items: Sequence[str],
              weights: pd.DataFrame | None = None) -> dict[str, float]:
    found = levels(frame.assign(run="base", seed=0), value, items, weights=weights).iloc[0]
    interval = {name: float(found[name]) for name in ("estimate", "low", "high")}
    return interval | {"n_items": int(found["n"])}
