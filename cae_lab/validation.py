"""Measure a model on validation captions of the training data, by which settings are chosen.

No setting is chosen by a benchmark. The rule for λ is in `cae_lab.selection`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from cae_bench.encoder import Encoder, ImageRef
from cae_bench.retrieval import retrieval_ranks
from cae_lab.attribution import attribution_table
from cae_lab.runs import Profile
from cae_lab.training_set import default_tagger
from cae_lib.config import paths
from cae_lib.data.captions import ImageCaptionPairs, load_negclip_tsv
from cae_lib.errors import DataError
from cae_lib.methods import PAPER_METHODS
from cae_lib.words.alignment import token_roles


def validation_table(encoder: Encoder, profile: Profile) -> pd.DataFrame:
    """Return one row: the `validation_scores`, and the object-word gaps as `gap_METHOD`."""
    pairs = load_negclip_tsv(profile.root / "coco" / "valid_neg_clip.tsv", profile.root)
    # Those methods of the paper with which a run `cae-METHOD` of the profile trains.
    methods = [run.removeprefix("cae-") for run in profile.runs]
    gaps = validation_gaps(
        encoder, pairs, [method for method in methods if method in PAPER_METHODS]
    )
    scores = validation_scores(encoder, pairs)
    return pd.DataFrame([scores | {f"gap_{method}": gap for method, gap in gaps.items()}])


def validation_gaps(
    encoder: Encoder, pairs: ImageCaptionPairs, methods: Iterable[str]
) -> dict[str, float]:
    """Return the object-word gap A_obj - A_comp on a sample of the captions, by method."""
    cache = paths().cache / "roles"
    alignment = token_roles(pairs.captions, encoder.clip.tokenizer, default_tagger(), cache)
    table = attribution_table(encoder, pairs, alignment, methods)
    table["kind"] = table["role"].replace({"attribute": "composition", "relation": "composition"})
    # Means over the tokens of all captions, as the loss takes them with its default scope "batch".
    means = table.groupby(["method", "kind"])["score"].mean().unstack()
    return (means["object"] - means["composition"]).to_dict()


def validation_scores(encoder: Encoder, pairs: ImageCaptionPairs) -> dict[str, float | int]:
    """Return recall at 1, how often captions win against their hard negatives, and the mean."""
    if not any(pairs.negatives or []):
        raise DataError("the validation captions have no hard negatives: expected some")
    ranks = retrieval_ranks(encoder, pairs, "validation")
    images = encoder.encode_images([ImageRef(pairs.image_paths[i]) for i in pairs.image_index])
    captions = encoder.encode_texts(pairs.captions)
    negatives_of = pairs.negatives or []
    # The caption of each hard negative; a caption may have several or none.
    caption_of = [row for row, texts in enumerate(negatives_of) for _ in texts]
    negatives = encoder.encode_texts([text for texts in negatives_of for text in texts])
    # Vectors are normalised, so products are cosines: (hard negatives,)
    caption_cosine = (images * captions).sum(1)[caption_of]
    # Strictly greater: a model that cannot tell two texts apart does not prefer the caption.
    is_preferred = caption_cosine > (images[caption_of] * negatives).sum(1)
    # The mean of both directions, whatever their numbers of queries.
    recall = (ranks["rank"] == 1).groupby(ranks["direction"]).mean().mean()
    return {
        "recall_at_1": float(recall),
        "against_negatives": float(is_preferred.mean()),
        "n_captions": pairs.n_used,
        "n_negatives": len(caption_of),
        "score": float((recall + is_preferred.mean()) / 2),
    }
