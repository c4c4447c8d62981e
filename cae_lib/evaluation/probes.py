"""What a model knows of objects, relations and attributes, zero-shot, in a few numbers; and linear
probes: what the image embeddings of the small world's pictures hold, asked or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.training_set import training_pairs
from cae_lib.evaluation.attribution import attribution_suite
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.datasets import benchmarks, retrieval_pairs
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.retrieval import retrieval_ranks
from cae_lib.models.clip import Clip
from cae_lib.profiles import find_profile
from cae_lib.statistics import ANSWERS, levels
from cae_lib.world.files import GRAPHS, read_gold
from cae_lib.world.grammar import canonical
from cae_lib.world.vocabulary import NOUNS

KINDS: Mapping[str, tuple[str, ...]] = {
    "object": ("sugarcrepe/replace_obj", "sugarcrepe/add_obj"),
    "relation": ("aro/relation", "sugarcrepe/replace_rel"),
    "attribute": ("aro/attribution", "sugarcrepe/replace_att", "sugarcrepe/swap_att"),
}
"""Choices whose mean accuracy stands for what the base knows of objects, relations, attributes."""

TRAIN_GRAPHS = "coco/annotations/scene_graphs_train2014.json"
ROUNDS = 300  # of the solver, at most


def curve_point(clip: Clip, profile: str) -> dict[str, float]:
    """Zero-shot accuracy by kind of choice, attention by role, and recall at 1."""
    choices, words, recall = _measured(Encoder(clip), profile)
    point = {
        kind: asked.groupby("subset")["correct"].mean().mean()
        for kind, asked in choices.items()
        if len(asked)
    }
    point |= {f"attention_{kind}": words[words["role"] == kind]["score"].mean() for kind in KINDS}
    return {name: float(value) for name, value in point.items()} | recall


def summary(clip: Clip, profile: str) -> dict[str, Any]:
    """The numbers of `curve_point`, those of choices and of attention with intervals and n; and in
    a small world `probe_TARGET`, see `probe_table`, beside the share of the `commonest` answer."""
    encoder = Encoder(clip)
    choices, words, recall = _measured(encoder, profile)
    final: dict[str, Any] = {}
    probes = probe_table(encoder, profile)
    for target, rows in probes.groupby("target", sort=False) if len(probes) else ():
        final[f"probe_{target}"] = _interval(rows, "correct", ("picture",))
        final[f"commonest_{target}"] = float((rows["truth"] == rows["commonest"]).mean())
    for kind, asked in choices.items():
        if len(asked):  # a profile need not have every kind
            sizes = asked.groupby("subset")["subset"].transform("size")
            weights = asked[[*ANSWERS]].assign(
                score=kind, stratum=asked["subset"], weight=1 / sizes / asked["subset"].nunique()
            )
            final[kind] = _interval(asked, "correct", ANSWERS, weights)
        means = words[words["role"] == kind].groupby(["caption", "picture"])["score"].mean()
        final[f"attention_{kind}"] = _interval(means.reset_index(), "score", ("caption",))
    pairs = retrieval_pairs(profile, "coco")
    return final | recall | {"n_pictures": len(pairs.image_paths), "n_captions": pairs.n_used}


def _measured(
    encoder: Encoder, profile: str
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame, dict[str, float]]:
    """Answers by kind of choice, attention of words, and recall at 1."""
    named = {key for keys in KINDS.values() for key in keys}
    asked = answers([part for part in benchmarks(profile) if part.key in named], encoder)
    keys = asked["family"] + "/" + asked["subset"]
    choices = {kind: asked[keys.isin(names)] for kind, names in KINDS.items()}
    words = attribution_suite(encoder, profile, ["attention"])
    ranks = retrieval_ranks(encoder, retrieval_pairs(profile, "coco"), "coco")
    first = (ranks["rank"] == 1).groupby(ranks["direction"]).mean()
    i2t, t2i = float(first["image to text"]), float(first["text to image"])
    return choices, words, {"retrieval_i2t_r1": i2t, "retrieval_t2i_r1": t2i}


def _interval(
    frame: pd.DataFrame, value: str, items: Sequence[str], weights: pd.DataFrame | None = None
) -> dict[str, float]:
    row = levels(frame.assign(run="base", seed=0), value, items, weights=weights).iloc[0]
    return {name: float(row[name]) for name in ("estimate", "low", "high")} | {
        "n_items": int(row["n"])
    }


def probe_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """Answers of linear probes (multinomial logistic regression) on unit image embeddings, fitted
    on mini-COCO's training pictures and asked on its test pictures; empty without gold.

    Targets: the `relation` as it is stated, of twelve; the `subject`, which of the two nouns it is;
    and the `color of the subject`. "a right of b" and "b left of a" are one picture, so subject is
    who is it in the canonical one of the two. Columns: target, picture, truth, answer, correct, and
    `commonest`, the answer that is right most often in training (of the two nouns the one that is).
    """
    if not find_profile(profile).gold:
        return pd.DataFrame()
    root = find_profile(profile).root
    gold = {
        entry["file_name"]: entry
        for name in (TRAIN_GRAPHS, GRAPHS)
        for entry in read_gold(root / name, "images")
    }
    (seen, facts), (asked, truth) = (
        _embedded(encoder, sorted(paths), gold)
        for paths in (
            set(training_pairs(profile).image_paths),
            set(retrieval_pairs(profile, "coco").image_paths),
        )
    )
    tables = []
    for target in ("relation", "subject", "color of the subject"):
        probe = LogisticRegression(max_iter=ROUNDS).fit(seen, facts[target])
        scores = pd.DataFrame(probe.decision_function(asked), columns=probe.classes_)
        if target == "subject":  # of the two
            scores = scores.reindex(columns=NOUNS, fill_value=-np.inf).to_numpy()
            pair = np.stack([truth[name].map(NOUNS.index) for name in ("subject", "object")], 1)
            pair.sort(axis=1)  # so that a tie does not favour the truth
            often = facts["subject"].value_counts().reindex(NOUNS, fill_value=0).to_numpy()
            answer, commonest = _better(scores, pair), _better(often[None], pair)
        else:
            answer, commonest = scores.idxmax(axis=1), facts[target].mode()[0]
        tables.append(
            pd.DataFrame(
                {
                    "target": target,
                    "picture": np.arange(len(truth), dtype=np.int32),
                    "truth": truth[target],
                    "answer": answer,
                    "correct": answer == truth[target],
                    "commonest": commonest,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _better(values: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Of each row's two nouns `(n, 2)` the one of the greater value; `values (n or 1, nouns)`."""
    own = np.take_along_axis(np.broadcast_to(values, (len(pair), len(NOUNS))), pair, 1)
    return np.array(NOUNS)[np.take_along_axis(pair, own.argmax(1)[:, None], 1)[:, 0]]


def _embedded(
    encoder: Encoder, pictures: list[Path], gold: Mapping[str, dict[str, Any]]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Unit embeddings `(n, E)` of pictures, and what is asked of each."""
    rows = []
    for entry in (gold[path.name] for path in pictures):
        first, second = entry["things"][:2]
        if canonical(entry["relation"])[1]:
            first, second = second, first
        rows.append((entry["relation"], first["noun"], second["noun"], first["color"]))
    columns = ["relation", "subject", "object", "color of the subject"]
    return (
        encoder.images([ImageRef(path) for path in pictures]),
        pd.DataFrame(rows, columns=columns),
    )
