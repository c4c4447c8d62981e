"""Choosing the learning rate and lambda on the validation split, before any benchmark is read.

The learning rate is the one with the best validation score of CLIP-FT, and is kept for every CAE
run. The score is the mean of recall at 1 (both ways) and of the share of validation captions that
are preferred to each of their own hard negatives. Lambda weighs a constraint, so for each method it
is the smallest one that enforces it: that leaves at most a tenth of CLIP-FT's gap A_obj - A_comp on
the validation captions. The score is recorded beside it; choosing lambda by the score as well would
choose 0 wherever CAE does not help, and so would never test the claims.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from cae_lib.config import experiment, paths, profile
from cae_lib.data.captions import Pairs, load_negclip_tsv
from cae_lib.data.training_set import data_root, default_tagger, training_set
from cae_lib.evaluation.attribution import role_scores
from cae_lib.evaluation.embed import Encoder, ImageRef
from cae_lib.evaluation.suite import retrieve
from cae_lib.experiments import run_training
from cae_lib.jobs import Job, run_jobs
from cae_lib.models.clip import load_clip
from cae_lib.records import load_or_run
from cae_lib.runtime import pick_device
from cae_lib.words.alignment import token_roles

LEARNING_RATES = (1e-4, 3e-4, 1e-3)
WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FIRST_WEIGHT = 1.0
"""Where the walk over `WEIGHTS` starts."""

LEFT_GAP = 0.1
"""Share of CLIP-FT's gap that the chosen lambda may leave."""

TUNING_SEED = 100
"""A seed that no reported run uses."""


def tune(profile_name: str) -> dict[str, Any]:
    """Train the settings, score them on the validation split, and store the record `sweep`."""
    chosen = profile(profile_name)
    methods = [name for name, row in chosen.methods.items() if _is_plain_cae(row)]
    training_set(profile_name)  # parses the captions once, before several processes need them
    jobs = [Job(f"lr {lr:g}", _row, ("clip-ft", profile_name, {"lr": lr})) for lr in LEARNING_RATES]
    rates = [outcome.value for outcome in run_jobs(jobs).values()]
    lr = best(rates, "lr")
    base = next(row for row in rates if row["lr"] == lr)
    walks = run_jobs(Job(f"lambda of {m}", _walk, (m, profile_name, lr, base)) for m in methods)
    weights = {name: outcome.value for name, outcome in walks.items()}
    content = {
        "lr": rates,
        "weight": [row for rows in weights.values() for row in rows],
        "chosen": {"lr": lr} | {rows[0]["run"]: levelling(rows, base) for rows in weights.values()},
        "left_gap": LEFT_GAP,
    }
    key = hashlib.sha256(repr(content).encode()).hexdigest()[:12]
    load_or_run("sweep", profile_name, key, lambda: content, seed=TUNING_SEED)
    return content


def _is_plain_cae(row: Mapping[str, Any]) -> bool:
    """Whether a row's lambda is chosen here; NegCLIP with CAE takes over the lambda of CAE."""
    return bool(row.get("method")) and not row.get("negatives")


def best(rows: list[dict[str, Any]], setting: str) -> float:
    """The setting of the row with the highest score; of equal ones the smallest setting."""
    return max(sorted(rows, key=lambda row: row[setting]), key=lambda row: row["score"])[setting]


def levelling(rows: list[dict[str, Any]], fine_tuned: Mapping[str, Any]) -> float:
    """The smallest lambda that leaves at most `LEFT_GAP` of CLIP-FT's gap; if none, the largest.

    Args:
        rows: Rows of one CAE run.
        fine_tuned: The row of CLIP-FT.
    """
    weights = sorted(rows, key=lambda row: row["weight"])
    enough = [row["weight"] for row in weights if is_level(row, fine_tuned)]
    return enough[0] if enough else weights[-1]["weight"]


def is_level(row: Mapping[str, Any], fine_tuned: Mapping[str, Any]) -> bool:
    """Whether a CAE run leaves at most `LEFT_GAP` of CLIP-FT's gap by its own method."""
    method = experiment(row["run"], "mini").method
    return row["gaps"][method] <= LEFT_GAP * fine_tuned["gaps"][method]


def walk(
    measure: Callable[[float], dict[str, Any]], fine_tuned: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Measure lambdas from `FIRST_WEIGHT` down while they level the gap, else up until one does.

    So the neighbours of the smallest lambda that is enough are measured, and no others; this takes
    for granted that a larger lambda leaves a smaller gap.
    """
    place = WEIGHTS.index(FIRST_WEIGHT)
    rows = [measure(WEIGHTS[place])]
    down = is_level(rows[0], fine_tuned)
    rest = WEIGHTS[:place][::-1] if down else WEIGHTS[place + 1 :]
    for weight in rest:
        rows.append(measure(weight))
        if is_level(rows[-1], fine_tuned) != down:
            break
    return sorted(rows, key=lambda row: row["weight"])


def validation_gaps(encoder: Encoder, pairs: Pairs, methods: Iterable[str]) -> dict[str, float]:
    """A_obj - A_comp on validation captions, by attribution method."""
    cache = paths().cache / "roles"
    alignment = token_roles(pairs.captions, default_tagger(), encoder.clip.tokenizer, cache)
    gaps = {}
    for method in methods:
        tokens = role_scores(encoder, pairs, alignment, method).tokens
        composition = np.concatenate([tokens["attribute"], tokens["relation"]])
        gaps[method] = float(tokens["object"].mean() - composition.mean())
    return gaps


def validation_scores(encoder: Encoder, pairs: Pairs) -> dict[str, float | int]:
    """Recall at 1 and accuracy against hard negatives on validation pairs, and their mean.

    Args:
        encoder: The model.
        pairs: Rows of a NegCLIP file, with `negatives`.
    """
    recall = retrieve(encoder, pairs)
    pictures = encoder.images([ImageRef(pairs.image_paths[i]) for i in pairs.image_index])
    right = encoder.texts(pairs.captions)
    negatives = pairs.negatives or []
    owners = [row for row, wrong in enumerate(negatives) for _ in wrong]
    wrong = encoder.texts([text for texts in negatives for text in texts])
    ahead = (pictures * right).sum(1)[owners] > (pictures[owners] * wrong).sum(1)
    r1 = np.mean([recall[way]["recall"]["1"] for way in ("text", "image")])
    return {
        "recall_at_1": float(r1),
        "against_negatives": float(ahead.mean()),
        "n_captions": pairs.n_used,
        "n_negatives": len(owners),
        "score": float((r1 + ahead.mean()) / 2),
    }


def _walk(
    name: str, profile_name: str, lr: float, fine_tuned: Mapping[str, Any]
) -> list[dict[str, Any]]:
    return walk(lambda weight: _row(name, profile_name, {"lr": lr, "weight": weight}), fine_tuned)


def _row(name: str, profile_name: str, settings: Mapping[str, float]) -> dict[str, Any]:
    """Train one setting and score it; the run is kept, so an interrupted sweep goes on."""
    config = experiment(name, profile_name, seed=TUNING_SEED, **settings)
    checkpoint = run_training(name, profile_name, TUNING_SEED, **settings)
    clip = load_clip(config.model, checkpoint, device=pick_device())
    root = data_root(profile_name)
    pairs = load_negclip_tsv(root / "coco" / "valid_neg_clip.tsv", root)
    encoder = Encoder(clip)
    row = {"run": name, **settings, **validation_scores(encoder, pairs)}
    methods = [m["method"] for m in profile(profile_name).methods.values() if _is_plain_cae(m)]
    row["gaps"] = validation_gaps(encoder, pairs, methods)
    place = checkpoint.relative_to(paths().root)
    print(f"{name} {settings}: score {row['score']:.4f}, gaps {row['gaps']} ({place})", flush=True)
    return row
