"""Measure what a base model knows of objects, relations and attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from cae_bench.answers import answer_benchmarks
from cae_bench.benchmarks.base import ImageRef
from cae_bench.datasets import load_benchmarks, retrieval_pairs
from cae_bench.encoder import Encoder
from cae_bench.retrieval import retrieval_ranks
from cae_bench.statistics import ITEM_KEY, mean_ci
from cae_lab.attribution import coco_attribution_table
from cae_lab.runs import Profile
from cae_lab.scene_graphs import GRAPHS_FILE, read_scene_entries
from cae_lab.training_set import training_pairs
from cae_lib.models.clip import Clip
from data.recipes.synthetic_scenes.grammar import canonical
from data.recipes.synthetic_scenes.vocabulary import NOUNS

SUBSETS: Mapping[str, tuple[str, ...]] = {
    "object": ("sugarcrepe/replace_obj", "sugarcrepe/add_obj"),
    "relation": ("aro/relation", "sugarcrepe/replace_rel"),
    "attribute": ("aro/attribution", "sugarcrepe/replace_att", "sugarcrepe/swap_att"),
}
"""Subsets whose mean accuracy stands for what a model knows of objects, relations, attributes."""

TRAIN_GRAPHS_FILE = "coco/annotations/scene_graphs_train2014.json"
# Of the probes' solver.
MAX_ITERATIONS = 300


def zero_shot_numbers(clip: Clip, profile: Profile) -> dict[str, float]:
    """Return the accuracy by kind of subset, mean attention by role, and recall at 1."""
    answers_by_kind, words, recall = _measure(Encoder(clip), profile)
    numbers = {
        kind: rows.groupby("subset")["correct"].mean().mean()
        for kind, rows in answers_by_kind.items()
        if len(rows)
    }
    for kind in SUBSETS:
        numbers[f"attention_{kind}"] = words[words["role"] == kind]["score"].mean()
    return {name: float(value) for name, value in numbers.items()} | recall


def describe_base(clip: Clip, profile: Profile) -> dict[str, Any]:
    """Return the numbers of `zero_shot_numbers` and of the probes, with intervals and n.

    `commonest_TARGET` is the accuracy of a probe that always gives the commonest answer.
    """
    encoder = Encoder(clip)
    answers_by_kind, words, recall = _measure(encoder, profile)
    numbers: dict[str, Any] = {}
    probes = probe_table(encoder, profile)
    for target, rows in probes.groupby("target", sort=False) if len(probes) else ():
        numbers[f"probe_{target}"] = _interval(rows, "correct", ("picture",))
        numbers[f"commonest_{target}"] = float((rows["truth"] == rows["commonest"]).mean())
    for kind, rows in answers_by_kind.items():
        # A profile need not have every kind.
        if len(rows):
            # Subsets weigh alike, whatever their numbers of items.
            sizes = rows.groupby("subset")["subset"].transform("size")
            weights = rows[[*ITEM_KEY]].assign(
                score=kind, stratum=rows["subset"], weight=1 / sizes / rows["subset"].nunique()
            )
            numbers[kind] = _interval(rows, "correct", ITEM_KEY, weights)
        # the caption is the unit: its words are not independent
        means = words[words["role"] == kind].groupby(["caption", "picture"])["score"].mean()
        numbers[f"attention_{kind}"] = _interval(means.reset_index(), "score", ("caption",))
    pairs = retrieval_pairs(profile.datasets, "coco")
    return numbers | recall | {"n_pictures": len(pairs.image_paths), "n_captions": pairs.n_used}


def _measure(
    encoder: Encoder, profile: Profile
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, dict[str, float]]:
    """Return answers by kind of subset, attention of words, and recall at 1."""
    keys = {key for names in SUBSETS.values() for key in names}
    table = answer_benchmarks(
        [subset for subset in load_benchmarks(profile.datasets) if subset.key in keys], encoder
    )
    key = table["family"] + "/" + table["subset"]
    answers_by_kind = {kind: table[key.isin(names)] for kind, names in SUBSETS.items()}
    words = coco_attribution_table(encoder, profile, ["attention"])
    ranks = retrieval_ranks(encoder, retrieval_pairs(profile.datasets, "coco"), "coco")
    recall = (ranks["rank"] == 1).groupby(ranks["direction"]).mean()
    i2t, t2i = float(recall["image to text"]), float(recall["text to image"])
    return answers_by_kind, words, {"retrieval_i2t_r1": i2t, "retrieval_t2i_r1": t2i}


def _interval(
    frame: pd.DataFrame, value: str, items: Sequence[str], weights: pd.DataFrame | None = None
) -> dict[str, float]:
    row = mean_ci(frame.assign(run="base", seed=0), value, items, weights=weights).iloc[0]
    return {name: float(row[name]) for name in ("estimate", "low", "high")} | {
        "n_items": int(row["n"])
    }


def probe_table(encoder: Encoder, profile: Profile) -> pd.DataFrame:
    """Answer by linear probes on unit image embeddings, fitted on mini-COCO's training images.

    `commonest` is the answer that is right most often in training, of the two nouns for "subject".
    The table is empty without ground truth.
    """
    if not profile.is_synthetic:
        return pd.DataFrame()
    root = profile.root
    ground_truth = {
        entry["file_name"]: entry
        for name in (TRAIN_GRAPHS_FILE, GRAPHS_FILE)
        for entry in read_scene_entries(root / name, "images")
    }
    train_paths = sorted(set(training_pairs(profile).image_paths))
    test_paths = sorted(set(retrieval_pairs(profile.datasets, "coco").image_paths))
    train, facts = _embed(encoder, train_paths, ground_truth)
    test, truth = _embed(encoder, test_paths, ground_truth)
    tables = []
    for target in ("relation", "subject", "color of the subject"):
        probe = LogisticRegression(max_iter=MAX_ITERATIONS).fit(train, facts[target])
        scores = pd.DataFrame(probe.decision_function(test), columns=probe.classes_)
        if target == "subject":
            # The probe says which of the image's two nouns is the subject. A noun that is never the
            # subject in training has no score.
            scores = scores.reindex(columns=NOUNS, fill_value=-np.inf).to_numpy()
            pair = np.stack([truth[name].map(NOUNS.index) for name in ("subject", "object")], 1)
            # Sorted, so that a tie does not favour the truth, which comes first.
            pair.sort(axis=1)
            counts = facts["subject"].value_counts().reindex(NOUNS, fill_value=0).to_numpy()
            answer, commonest = _better_noun(scores, pair), _better_noun(counts[None], pair)
        else:
            answer, commonest = scores.idxmax(axis=1), facts[target].mode()[0]
        columns = {
            "target": target,
            "picture": np.arange(len(truth), dtype=np.int32),
            "truth": truth[target],
            "answer": answer,
            "correct": answer == truth[target],
            "commonest": commonest,
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _better_noun(values: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Return the noun of each pair of numbers `(n, 2)` with the greater value `(n or 1, nouns)`."""
    all_values = np.broadcast_to(values, (len(pair), len(NOUNS)))
    better = np.take_along_axis(all_values, pair, 1).argmax(1)
    return np.array(NOUNS)[np.take_along_axis(pair, better[:, None], 1)[:, 0]]


def _embed(
    encoder: Encoder, paths: list[Path], ground_truth: Mapping[str, dict[str, Any]]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return unit embeddings of images `(n, E)`, and the true answers for each."""
    rows = []
    for entry in (ground_truth[path.name] for path in paths):
        first, second = entry["things"][:2]
        # "a right of b" and "b left of a" are one image; the subject is that of the canonical one.
        if canonical(entry["relation"])[1]:
            first, second = second, first
        rows.append((entry["relation"], first["noun"], second["noun"], first["color"]))
    columns = ["relation", "subject", "object", "color of the subject"]
    vectors = encoder.encode_images([ImageRef(path) for path in paths])
    return vectors, pd.DataFrame(rows, columns=columns)
