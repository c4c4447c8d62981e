"""Scores on the validation captions of the training data, by which settings are chosen.

No benchmark enters. The rules are those of `cae_lib.evaluation.selection`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from cae_lib.config import paths
from cae_lib.data.captions import Pairs, load_negclip_tsv
from cae_lib.data.sources import may_be_incomplete
from cae_lib.data.training_set import TRAINING_SOURCE, default_tagger
from cae_lib.evaluation.attribution import attribution_table
from cae_lib.evaluation.encoder import Encoder, ImageRef
from cae_lib.evaluation.retrieval import retrieval_ranks
from cae_lib.methods import METHODS
from cae_lib.profiles import find_profile
from cae_lib.words.alignment import token_roles


def validation_row(encoder: Encoder, profile_name: str) -> dict[str, float | int]:
    """Measure a model on the validation captions of a profile: `validation_scores`, and as
    `gap_METHOD` the gap by each of the paper's methods that a run of the profile is trained on."""
    profile = find_profile(profile_name)
    missing = "drop" if profile.real and may_be_incomplete(TRAINING_SOURCE) else "raise"
    file = profile.root / "coco" / "valid_neg_clip.tsv"
    pairs = load_negclip_tsv(file, profile.root, missing)
    methods = [run.removeprefix("cae-") for run in profile.runs]
    gaps = validation_gaps(encoder, pairs, [method for method in methods if method in METHODS])
    scores = validation_scores(encoder, pairs)
    return scores | {f"gap_{method}": gap for method, gap in gaps.items()}


def validation_table(encoder: Encoder, profile_name: str) -> pd.DataFrame:
    """Return `validation_row` as a table of one row."""
    return pd.DataFrame([validation_row(encoder, profile_name)])


def validation_gaps(encoder: Encoder, pairs: Pairs, methods: Iterable[str]) -> dict[str, float]:
    """A_obj - A_comp on validation captions, by attribution method."""
    cache = paths().cache / "roles"
    alignment = token_roles(pairs.captions, encoder.clip.tokenizer, default_tagger(), cache)
    table = attribution_table(encoder, pairs, alignment, methods)
    table["kind"] = table["role"].replace({"attribute": "composition", "relation": "composition"})
    means = table.groupby(["method", "kind"])["score"].mean().unstack()
    return (means["object"] - means["composition"]).to_dict()


def validation_scores(encoder: Encoder, pairs: Pairs) -> dict[str, float | int]:
    """Recall at 1 (both ways) and the share of captions that are preferred to each of their own
    hard negatives, of a NegCLIP file, and their mean."""
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
