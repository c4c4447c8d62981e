"""Linear probes: what the image embeddings of the small world's pictures hold, asked or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.data.training_set import data_root, training_pairs
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.scenes import GRAPHS, read_gold
from cae_lib.evaluation.sets import is_world, retrieval_pairs
from cae_lib.world.grammar import canonical
from cae_lib.world.vocabulary import NOUNS

TRAIN_GRAPHS = "coco/annotations/scene_graphs_train2014.json"
ROUNDS = 300  # of the solver, at most


def probe_table(encoder: Encoder, profile: str) -> pd.DataFrame:
    """Answers of linear probes (multinomial logistic regression) on unit image embeddings, fitted
    on mini-COCO's training pictures and asked on its test pictures; empty without gold.

    Targets: the `relation` as it is stated, of twelve; the `subject`, which of the two nouns it is;
    and the `color of the subject`. "a right of b" and "b left of a" are one picture, so subject is
    who is it in the canonical one of the two. Columns: target, picture, truth, answer, correct, and
    `commonest`, the answer that is right most often in training (of the two nouns the one that is).
    """
    root = data_root(profile)
    if not is_world(root):
        return pd.DataFrame()
    gold = {entry["file_name"]: entry for name in (TRAIN_GRAPHS, GRAPHS)
            for entry in read_gold(root / name, "images")}
    (seen, facts), (asked, truth) = (
        _embedded(encoder, sorted(paths), gold)
        for paths in (set(training_pairs(profile).image_paths),
                      set(retrieval_pairs(profile, "coco").image_paths)))
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
            commonest = facts[target].mode()[0]
            answer = scores.idxmax(axis=1)
        tables.append(pd.DataFrame({
            "target": target, "picture": np.arange(len(truth), dtype=np.int32),
            "truth": truth[target], "answer": answer, "correct": answer == truth[target],
            "commonest": commonest,
        }))
    return pd.concat(tables, ignore_index=True)


def _better(values: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Of each row's two nouns `(n, 2)` the one of the greater value; `values (n or 1, nouns)`."""
    own = np.take_along_axis(np.broadcast_to(values, (len(pair), len(NOUNS))), pair, 1)
    return np.array(NOUNS)[np.take_along_axis(pair, own.argmax(1)[:, None], 1)[:, 0]]


def _embedded(
    encoder: Encoder, pictures: list[Path], gold: dict[str, dict]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Unit embeddings `(n, E)` of pictures, and what is asked of each."""
    rows = []
    for path in pictures:
        entry = gold[path.name]
        first, second = entry["things"][:2]
        if canonical(entry["relation"])[1]:
            first, second = second, first
        rows.append((entry["relation"], first["noun"], second["noun"], first["color"]))
    columns = ["relation", "subject", "object", "color of the subject"]
    found = encoder.images([ImageRef(path) for path in pictures])
    return found, pd.DataFrame(rows, columns=columns)
