"""What a model knows of objects, relations and attributes, zero-shot, in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.results import ChoiceResult
from cae_lib.evaluation.statistics import mean_interval, weighted_interval
from cae_lib.evaluation.suite import attributions, choices, retrieval_pairs, retrieve
from cae_lib.models.clip import Clip

KINDS: Mapping[str, tuple[str, ...]] = {
    "object": ("sugarcrepe/replace_obj", "sugarcrepe/add_obj"),
    "relation": ("aro/relation", "sugarcrepe/replace_rel"),
    "attribute": ("aro/attribution", "sugarcrepe/replace_att", "sugarcrepe/swap_att"),
}
"""Choices whose mean accuracy stands for what the base knows of objects, relations, attributes."""


def curve_point(clip: Clip, profile_name: str) -> dict[str, float]:
    """Zero-shot accuracy by kind of choice, recall at 1, and attention by role."""
    encoder = Encoder(clip)
    results = choices(encoder, profile_name)
    attention = attributions(encoder, profile_name, ["attention"])["attention"]
    recall = retrieve(encoder, retrieval_pairs(profile_name, "coco"))
    point = {kind: _accuracy(results, names) for kind, names in KINDS.items()}
    point |= {f"attention_{role}": attention[role]["mean"] for role in KINDS}
    return point | {
        "retrieval_i2t_r1": recall["text"]["recall"]["1"],
        "retrieval_t2i_r1": recall["image"]["recall"]["1"],
    }


def summary(clip: Clip, profile_name: str) -> dict[str, Any]:
    """The numbers of `curve_point` with 95 % bootstrap intervals and their n."""
    encoder = Encoder(clip)
    results = choices(encoder, profile_name)
    attention = attributions(encoder, profile_name, ["attention"])["attention"]
    final: dict[str, Any] = {}
    for kind, names in KINDS.items():
        parts = [ChoiceResult.from_record(results[name]) for name in names]
        final[kind] = weighted_interval(
            [part.correct for part in parts], clusters=[part.pictures for part in parts]
        ).to_record()
        means = np.array([v for v in attention[kind]["captions"] if v is not None])
        final[f"attention_{kind}"] = mean_interval(means).to_record()
    pairs = retrieval_pairs(profile_name, "coco")
    recall = retrieve(encoder, pairs)
    final["retrieval_i2t_r1"] = recall["text"]["recall"]["1"]
    final["retrieval_t2i_r1"] = recall["image"]["recall"]["1"]
    final["n_pictures"], final["n_captions"] = len(pairs.image_paths), pairs.n_used
    return final


def _accuracy(results: Mapping[str, Any], names: tuple[str, ...]) -> float:
    return float(np.mean([results[name]["micro"] for name in names]))
