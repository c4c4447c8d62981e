"""What a model knows of objects, relations and attributes, zero-shot, in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cae_lib.evaluation.attribution import attribution_table
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.embed import Encoder
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


def curve_point(clip: Clip, profile_name: str) -> dict[str, float]:
    """Zero-shot accuracy by kind of choice, recall at 1, and attention by role."""
    encoder = Encoder(clip)
    choices = _choices(encoder, profile_name)
    words = _attention(encoder, profile_name)
    point = {
        kind: float(choices[kind].groupby("subset")["correct"].mean().mean()) for kind in KINDS
    }
    point |= {
        f"attention_{kind}": float(words[words["role"] == kind]["score"].mean()) for kind in KINDS
    }
    return point | _recall(encoder, profile_name)


def summary(clip: Clip, profile_name: str) -> dict[str, Any]:
    """The numbers of `curve_point`, those of choices and of attention with intervals and n."""
    encoder = Encoder(clip)
    words = _attention(encoder, profile_name)
    final: dict[str, Any] = {}
    for kind, found in _choices(encoder, profile_name).items():
        sizes = found.groupby("subset")["subset"].transform("size")
        weights = found[[*ANSWERS]].assign(
            score=kind, stratum=found["subset"], weight=1 / sizes / found["subset"].nunique()
        )
        final[kind] = _interval(found, "correct", ANSWERS, weights)
        means = words[words["role"] == kind].groupby(["caption", "picture"])["score"].mean()
        final[f"attention_{kind}"] = _interval(means.reset_index(), "score", ("caption",))
    pairs = retrieval_pairs(profile_name, "coco")
    sizes = {"n_pictures": len(pairs.image_paths), "n_captions": pairs.n_used}
    return final | _recall(encoder, profile_name) | sizes


def _interval(
    frame: pd.DataFrame, value: str, items: Sequence[str], weights: pd.DataFrame | None = None
) -> dict[str, float]:
    found = levels(frame.assign(run="base", seed=0), value, items, weights=weights).iloc[0]
    return {name: float(found[name]) for name in ("estimate", "low", "high")} | {
        "n_items": int(found["n"])
    }


def _choices(encoder: Encoder, profile_name: str) -> dict[str, pd.DataFrame]:
    """Answers by kind of choice."""
    named = {name for names in KINDS.values() for name in names}
    found = answers([part for part in benchmarks(profile_name) if part.key in named], encoder)
    keys = found["family"] + "/" + found["subset"]
    return {kind: found[keys.isin(names)] for kind, names in KINDS.items()}


def _attention(encoder: Encoder, profile_name: str) -> pd.DataFrame:
    pairs, alignment = annotated_captions(encoder, profile_name)
    return attribution_table(encoder, pairs, alignment, methods=("attention",))


def _recall(encoder: Encoder, profile_name: str) -> dict[str, float]:
    ranks = retrieval_ranks(encoder, retrieval_pairs(profile_name, "coco"), "coco")
    first = (ranks["rank"] == 1).groupby(ranks["direction"]).mean()
    return {
        "retrieval_i2t_r1": float(first["image to text"]),
        "retrieval_t2i_r1": float(first["text to image"]),
    }
