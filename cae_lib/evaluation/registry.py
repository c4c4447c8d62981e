"""The suites: everything that is measured on a set of weights, by the name of its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cae_lib.config import paths
from cae_lib.data.captions import Pairs
from cae_lib.data.training_set import default_tagger
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.faithfulness import faithfulness
from cae_lib.evaluation.heatmaps import relevance_regions
from cae_lib.evaluation.phrases import phrase_similarity
from cae_lib.evaluation.sensitivity import sensitivity
from cae_lib.evaluation.suite import (
    attributions,
    choices,
    retrieval_pairs,
    retrievals,
    similarities,
)
from cae_lib.evaluation.zero_shot import zero_shot
from cae_lib.words.alignment import Alignment, token_roles

Suite = Callable[[Encoder, str], dict[str, Any]]


def _test_captions(encoder: Encoder, profile: str) -> tuple[Pairs, Alignment]:
    """COCO's test captions with their tokens and roles."""
    pairs = retrieval_pairs(profile, "coco")
    cache = paths().cache / "roles"
    return pairs, token_roles(pairs.captions, default_tagger(), encoder.clip.tokenizer, cache)


def _faithfulness(encoder: Encoder, profile: str) -> dict[str, Any]:
    return faithfulness(encoder, *_test_captions(encoder, profile))


def _sensitivity(encoder: Encoder, profile: str) -> dict[str, Any]:
    return sensitivity(encoder, *_test_captions(encoder, profile))


SUITES: Mapping[str, Suite] = {
    "benchmarks": choices,
    "retrieval": retrievals,
    "attribution": attributions,
    "similarity": similarities,
    "zero_shot": zero_shot,
    "phrases": phrase_similarity,
    "faithfulness": _faithfulness,
    "heatmaps": relevance_regions,
}
"""What is measured on every set of weights."""

BASE_SUITES: Mapping[str, Suite] = {"sensitivity": _sensitivity}
"""What is measured on the base model alone, beside `SUITES`."""
