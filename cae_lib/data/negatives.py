"""Hard negatives like NegCLIP's: captions with two parts exchanged, and pictures that look alike.

NegCLIP's own generator was not released; that it swaps nouns, noun phrases or adjectives found by
spaCy is known, the conditions below are ours. They leave out exchanges that are not English or that
leave the caption true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import spacy
import torch
from spacy.tokens import Doc
from torch import Tensor

from cae_lib.data.captions import Pairs
from cae_lib.data.exchange import KINDS, exchanges
from cae_lib.errors import DataError
from cae_lib.runtime import write_atomic
from cae_lib.words.pipeline import drop_entity_recogniser, model_name, parse_distinct


@dataclass(frozen=True)
class SwapNegatives:
    """False captions made by exchanges.

    Attributes:
        negatives: for each caption its false ones, in random order; none equals the caption.
        n_without: captions that no exchange was found for; their list is empty.
        n_by_kind: false captions made by each kind of exchange.
    """

    negatives: list[list[str]]
    n_without: int
    n_by_kind: dict[str, int]


def swap_negatives(captions: Sequence[str], seed: int = 0, limit: int = 5) -> SwapNegatives:
    """Exchange two nouns, two noun phrases or two adjectives of each caption (NegCLIP).

    See `exchanges` for what is left out, because it would be no English or still be true.

    Args:
        captions: n captions; equal ones get equal negatives.
        seed: of the order, and so of the choice where a caption has more than `limit` exchanges.
        limit: false captions of one caption at most.

    Raises:
        ConfigError: no English spaCy model is installed.
    """
    nlp = drop_entity_recogniser(spacy.load(model_name()))
    plain = [" ".join(caption.split()) for caption in captions]
    found = list(parse_distinct(nlp, plain, lambda doc: _chosen(doc, seed, limit)))
    kinds = [kind for made in found for kind in made.values()]
    return SwapNegatives(
        negatives=[list(made) for made in found],
        n_without=sum(not made for made in found),
        n_by_kind={kind: kinds.count(kind) for kind in KINDS},
    )


def similar_rows(pairs: Pairs, features: Tensor, count: int = 3, seed: int = 0) -> list[list[int]]:
    """For each row, rows with the `count` pictures most similar to its own (NegCLIP).

    Args:
        pairs: image-caption pairs.
        features: CLIP features `(N, E)` of `pairs.image_paths`, normalised.
        count: similar pictures of each row; fewer where there are not so many others.
        seed: of the choice among the captions of a similar picture.

    Raises:
        DataError: the features do not belong to these pictures.
    """
    if len(features) != len(pairs.image_paths):
        raise DataError(
            f"{pairs.name}: {len(pairs.image_paths)} pictures with {len(features)} rows of "
            "features; compute the features from `image_paths`, in that order."
        )
    rows_of: list[list[int]] = [[] for _ in pairs.image_paths]
    for row, picture in enumerate(pairs.image_index.tolist()):
        rows_of[picture].append(row)
    nearest = _nearest(features, min(count, len(features) - 1))
    rng = np.random.default_rng([seed, len(features)])
    return [
        [rows_of[other][rng.integers(len(rows_of[other]))] for other in nearest[picture]]
        for picture in pairs.image_index.tolist()
    ]


def write_negclip(
    path: str | Path,
    pairs: Pairs,
    root: str | Path,
    negatives: Sequence[Sequence[str]],
    similar: Sequence[Sequence[int]],
) -> Path:
    """Write a set with its hard negatives as the tab separated file that NegCLIP is trained on.

    Args:
        path: file to write; `load_negclip_tsv` reads it.
        pairs: image-caption pairs.
        root: folder that the column `filepath` is relative to.
        negatives: false captions of each row.
        similar: rows with similar pictures, of each row.

    Raises:
        DataError: the lists differ in length, or a picture does not lie under `root`.
    """
    if not len(pairs.captions) == len(negatives) == len(similar):
        raise DataError(
            f"{pairs.name}: {len(pairs.captions)} captions, {len(negatives)} lists of negatives "
            f"and {len(similar)} of similar rows; all three need one entry a row."
        )
    places = []
    for row, picture in enumerate(pairs.image_paths[index] for index in pairs.image_index):
        if not picture.is_relative_to(root):
            raise DataError(f"{picture} (row {row}) does not lie under {root}: choose its folder.")
        places.append(picture.relative_to(root).as_posix())
    table = pd.DataFrame({"title": pairs.captions, "filepath": places})
    table["neg_caption"] = [list(texts) for texts in negatives]
    table["neg_image"] = [list(rows) for rows in similar]
    write_atomic(Path(path), table.to_csv(sep="\t", lineterminator="\n"))
    return Path(path)


def _nearest(features: Tensor, count: int, chunk: int = 1024) -> list[list[int]]:
    """The `count` rows most similar to each row, itself left out."""
    nearest: list[list[int]] = []
    for start in range(0, len(features), chunk):
        similarity = features[start : start + chunk] @ features.T
        own = torch.arange(len(similarity))
        similarity[own, start + own] = -torch.inf
        nearest += similarity.topk(count).indices.tolist()
    return nearest


def _chosen(doc: Doc, seed: int, limit: int) -> dict[str, str]:
    """At most `limit` false captions, each with the kind of its exchange."""
    made: dict[str, str] = {}
    for kind, text in exchanges(doc):
        made.setdefault(text, kind)
    digest = hashlib.sha256(f"{seed} {doc.text}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    texts = list(made)
    return {texts[i]: made[texts[i]] for i in rng.permutation(len(texts))[:limit]}
