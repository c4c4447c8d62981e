"""Measure a model on the validation captions of the training data, to choose settings.

Settings are chosen by these scores and not by benchmarks. The rule for λ is in
`cae_lab.selection`.
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
    """Measure a model on the validation captions of a profile.

    Returns:
        One row. Its columns are the values of `validation_scores`, and a column `gap_METHOD` for
        each of the paper's attribution methods that a run `cae-METHOD` of the profile trains with.
        This column is the object-word gap that `validation_gaps` returns for the method.

    Raises:
        ConfigError: If no English spaCy model is installed.
        DataError: If the validation captions or their images are missing or malformed, or if no
            caption has a hard negative.
    """
    pairs = load_negclip_tsv(profile.root / "coco" / "valid_neg_clip.tsv", profile.root)
    methods = [run.removeprefix("cae-") for run in profile.runs]
    gaps = validation_gaps(
        encoder, pairs, [method for method in methods if method in PAPER_METHODS]
    )
    scores = validation_scores(encoder, pairs)
    return pd.DataFrame([scores | {f"gap_{method}": gap for method, gap in gaps.items()}])


def validation_gaps(
    encoder: Encoder, pairs: ImageCaptionPairs, methods: Iterable[str]
) -> dict[str, float]:
    """Return the object-word gap A_obj - A_comp on captions, by attribution method.

    A_obj is the mean score of the tokens of object words, A_comp that of the tokens of attribute
    and relation words, over a sample of the captions (see `attribution_table`). The roles of words
    are stored in the cache folder.

    Args:
        encoder: The model.
        pairs: The validation captions and their images.
        methods: Names of attribution methods, at least one.

    Raises:
        ConfigError: If a method is unknown, or no English spaCy model is installed.
        DataError: If an image is missing or cannot be decoded.
    """
    cache = paths().cache / "roles"
    alignment = token_roles(pairs.captions, encoder.clip.tokenizer, default_tagger(), cache)
    table = attribution_table(encoder, pairs, alignment, methods)
    table["kind"] = table["role"].replace({"attribute": "composition", "relation": "composition"})
    means = table.groupby(["method", "kind"])["score"].mean().unstack()
    return (means["object"] - means["composition"]).to_dict()


def validation_scores(encoder: Encoder, pairs: ImageCaptionPairs) -> dict[str, float | int]:
    """Measure recall at 1 and how often captions score above their own hard negatives.

    Args:
        encoder: The model.
        pairs: The validation captions with their images and hard negatives.

    Returns:
        - "recall_at_1": the mean recall at 1 of image-to-text and text-to-image retrieval.
        - "against_negatives": the share of hard negatives whose cosine with the image is smaller
          than that of their caption.
        - "score": the mean of the two.
        - "n_captions", "n_negatives": the numbers of captions and of hard negatives.

    Raises:
        DataError: If no caption has a hard negative, or an image is missing or cannot be decoded.
    """
    if not any(pairs.negatives or []):
        raise DataError("the validation captions have no hard negatives: expected some")
    ranks = retrieval_ranks(encoder, pairs, "validation")
    images = encoder.encode_images([ImageRef(pairs.image_paths[i]) for i in pairs.image_index])
    captions = encoder.encode_texts(pairs.captions)
    negatives_of = pairs.negatives or []
    caption_of = [row for row, texts in enumerate(negatives_of) for _ in texts]
    negatives = encoder.encode_texts([text for texts in negatives_of for text in texts])
    caption_cosine = (images * captions).sum(1)[caption_of]
    is_preferred = caption_cosine > (images[caption_of] * negatives).sum(1)
    recall = (ranks["rank"] == 1).groupby(ranks["direction"]).mean().mean()
    return {
        "recall_at_1": float(recall),
        "against_negatives": float(is_preferred.mean()),
        "n_captions": pairs.n_used,
        "n_negatives": len(caption_of),
        "score": float((recall + is_preferred.mean()) / 2),
    }
