"""`cae tune`: choosing the learning rate and lambda, before any benchmark is read.

All is measured on the validation split. The learning rate is the one with the best score of
CLIP-FT, and is kept for every CAE run. The score is the mean of recall at 1 (both ways) and of the
share of captions that are preferred to each of their own hard negatives. Lambda weighs a
constraint, so for each method it is the smallest one that enforces it: that leaves at most a tenth
of CLIP-FT's gap A_obj - A_comp. The score is stored beside it; choosing lambda by the score as well
would choose 0 wherever CAE does not help, and so would never test the claims.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from cae_lib import results
from cae_lib.commands.jobs import Job, run_jobs
from cae_lib.config import experiment, paths, profile
from cae_lib.data.captions import Pairs, load_negclip_tsv
from cae_lib.data.training_set import data_root, default_tagger, training_set
from cae_lib.evaluation.attribution import attribution_table
from cae_lib.evaluation.embed import Encoder, ImageRef
from cae_lib.evaluation.retrieval import retrieval_ranks
from cae_lib.models.clip import load_clip
from cae_lib.runs import TUNED, train_run
from cae_lib.runtime import pick_device, stamp
from cae_lib.words.alignment import token_roles

LEARNING_RATES = (1e-4, 3e-4, 1e-3)
WEIGHTS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FIRST_WEIGHT = 1.0
"""Where the walk over `WEIGHTS` starts."""

LEFT_GAP = 0.1
"""Share of CLIP-FT's gap that the chosen lambda may leave."""

TUNING_SEED = 100
"""A seed that no reported run uses."""


TABLE, RUN = "sweep", "tuning"


def run(parsed: argparse.Namespace) -> None:
    """Choose, and print what was chosen."""
    table = tune(parsed.profile)
    for row in table[table["chosen"]].itertuples():
        lr = row.experiment == TUNED
        print(f"Chosen: {'lr' if lr else row.experiment} {row.lr if lr else row.weight:g}")


def tune(profile_name: str) -> pd.DataFrame:
    """Train the settings, score them on the validation split, and store the table `sweep`.

    Returns:
        A row for each setting: `experiment`, `lr`, `weight` (NaN for CLIP-FT), `score` and its
        parts, `gap_METHOD`, and whether it was `chosen`.
    """
    methods = [name for name, row in profile(profile_name).methods.items() if _is_plain_cae(row)]
    training_set(profile_name)  # parses the captions once, before several processes need them
    jobs = [Job(f"lr {lr:g}", _row, (TUNED, profile_name, {"lr": lr})) for lr in LEARNING_RATES]
    rates = [outcome.value for outcome in run_jobs(jobs).values()]
    lr = best(rates, "lr")
    base = next(row for row in rates if row["lr"] == lr)
    walks = run_jobs(Job(name, _walk, (name, profile_name, lr, base)) for name in methods)
    weights = {name: outcome.value for name, outcome in walks.items()}
    chosen = {TUNED: lr} | {name: levelling(weights[name], base) for name in weights}
    table = sweep_table([*rates, *(row for rows in weights.values() for row in rows)], chosen)
    key = hashlib.sha256(table.to_csv().encode()).hexdigest()[:12]
    provenance = stamp(profile_name, TUNING_SEED, left_gap=LEFT_GAP)
    results.save(TABLE, RUN, TUNING_SEED, table, profile_name, key=key, provenance=provenance)
    return table


def sweep_table(rows: Iterable[Mapping[str, Any]], chosen: Mapping[str, float]) -> pd.DataFrame:
    """The rows of a sweep as a table.

    Args:
        rows: What `_row` returns.
        chosen: The learning rate of CLIP-FT, and the lambda of each CAE run.
    """
    flat = []
    for row in rows:
        gaps = {f"gap_{method}": gap for method, gap in row["gaps"].items()}
        name = row["run"]
        setting = row["lr"] if name == TUNED else row["weight"]
        flat.append({"experiment": name, "lr": row["lr"], "weight": row.get("weight"),
                     "chosen": setting == chosen[name]}
                    | {k: v for k, v in row.items() if k not in ("run", "lr", "weight", "gaps")}
                    | gaps)
    return pd.DataFrame(flat).astype({"weight": "float64"})


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
    table = attribution_table(encoder, pairs, alignment, methods)
    table["kind"] = table["role"].replace({"attribute": "composition", "relation": "composition"})
    means = table.groupby(["method", "kind"])["score"].mean().unstack()
    return (means["object"] - means["composition"]).to_dict()


def validation_scores(encoder: Encoder, pairs: Pairs) -> dict[str, float | int]:
    """Recall at 1 and accuracy against hard negatives on validation pairs, and their mean.

    Args:
        encoder: The model.
        pairs: Rows of a NegCLIP file, with `negatives`.
    """
    ranks = retrieval_ranks(encoder, pairs, "validation")
    pictures = encoder.images([ImageRef(pairs.image_paths[i]) for i in pairs.image_index])
    right = encoder.texts(pairs.captions)
    negatives = pairs.negatives or []
    owners = [row for row, wrong in enumerate(negatives) for _ in wrong]
    wrong = encoder.texts([text for texts in negatives for text in texts])
    ahead = (pictures * right).sum(1)[owners] > (pictures[owners] * wrong).sum(1)
    r1 = (ranks["rank"] == 1).groupby(ranks["direction"]).mean().mean()
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
    checkpoint = train_run(name, profile_name, TUNING_SEED, **settings)
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
