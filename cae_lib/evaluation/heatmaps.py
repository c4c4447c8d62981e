"""Where the relevance of pictures and words falls: the measurement behind Fig. 6 of the paper. Each
scene of the small world is scored together with one caption, "the SUBJECT is RELATION the OBJECT",
so that every word's part in it is known without a parser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.attribution.heatmap import image_relevances, patch_grid, shares
from cae_lib.attribution.word_scores import positive_shares, split_words, word_scores
from cae_lib.data.benchmarks.base import ImageRef
from cae_lib.evaluation.datasets import SAMPLES, even_rows, retrieval_pairs
from cae_lib.evaluation.encoder import Encoder
from cae_lib.evaluation.gold import EXAMPLES, REGIONS, Example, gold_scenes, region_shares
from cae_lib.evaluation.tables import NOTHING, long_table
from cae_lib.methods import METHODS
from cae_lib.models.text_encoder import encode_text
from cae_lib.profiles import find_profile
from cae_lib.world.draw import render
from cae_lib.world.files import GRAPHS

START_LAYERS: Mapping[str, int] = {"last layer": -1, "all layers": 0}
"""First layers of the rule: the one of the CLIP notebook of Chefer et al., and the whole rule."""

BATCH = 100
ROW: Mapping[str, Any] = {
    "measure": "",
    "scene": np.int32(-1),
    "relation": "",
    "method": "",
    "part": "",
    "row": np.int16(-1),
    "column": np.int16(-1),
    "value": NOTHING,
}
"""The columns of `heatmap_table`, with what stands where a measure does not use them."""

Rows = Iterator[dict[str, Any]]


def heatmap_table(encoder: Encoder, profile: str, limit: int = SAMPLES["heatmaps"]) -> pd.DataFrame:
    """Shares of relevance by region and by word, scene by scene, and the maps of `EXAMPLES`.

    `limit` scenes are taken evenly over COCO's test pictures. A row a value, with the columns of
    `ROW`; none without a small world, for then there is no gold. Scene is the number of the test
    picture, or for examples their number. By measure:

    - "region": share of the map's sum, by start layer (method) and region (part);
    - "area": mean share of the picture, by region;
    - "word share": share of the words' positive scores, of subject, relation, object (part);
    - "word score": score of the relation's words;
    - "example map": share of a patch, by start layer, row and column;
    - "example word": share of a word's score (part is the word, row its place);
    - "example cosine": of picture and caption.
    """
    if not find_profile(profile).gold:
        return pd.DataFrame(ROW, index=[0])[:0]
    paths = retrieval_pairs(profile, "coco").image_paths
    gold = gold_scenes(find_profile(profile).root / GRAPHS)
    rows = even_rows(len(paths), limit)
    scenes = [gold[paths[row].name] for row in rows]
    relations = [scene.relation for scene in scenes]
    grid = tuple(patch_grid(encoder.clip.model.visual))
    coverage = np.stack([region_shares(scene.places, grid) for scene in scenes])
    pixels = encoder.pixels([ImageRef(paths[row]) for row in rows])
    maps, features, tokens = _maps(encoder, pixels, [scene.caption for scene in scenes])
    by_scene = [*_regions(maps, coverage), *_words(encoder, tokens, features, relations)]
    return long_table(
        ROW,
        [
            dict(measure="area", part=list(REGIONS), value=coverage.mean(axis=(0, 2, 3))),
            *(part | dict(scene=rows, relation=relations) for part in by_scene),
            *(
                part | dict(scene=number, relation=example.relation)
                for number, example in enumerate(EXAMPLES)
                for part in _example(encoder, example)
            ),
        ],
    )


def _maps(
    encoder: Encoder, pixels: Tensor, captions: list[str]
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Maps that sum to 1 `(n, rows, columns)` by start layer, picture features, and tokens."""
    model, tokens = encoder.clip.model, encoder.tokens(captions).to(pixels.device)
    maps: dict[str, list[Tensor]] = {name: [] for name in START_LAYERS}
    features = []
    for some, images in zip(tokens.split(BATCH), pixels.split(BATCH), strict=True):
        with torch.no_grad():
            texts = encode_text(model, some).features
        found = image_relevances(model, images, texts, tuple(START_LAYERS.values()))
        features.append(found.image_features)
        for name, own in zip(maps, found.maps, strict=True):
            maps[name].append(shares(own))
    return {name: torch.cat(own) for name, own in maps.items()}, torch.cat(features), tokens


def _regions(maps: Mapping[str, Tensor], coverage: np.ndarray) -> Rows:
    """Shares of each region, from those of each patch that lie in it `(n, 4, rows, columns)`."""
    for method, own in maps.items():
        by_region = np.einsum("nyx,nryx->rn", own.cpu().numpy(), coverage)
        for part, value in zip(REGIONS, by_region, strict=True):
            yield dict(measure="region", method=method, part=part, value=value)


def _words(encoder: Encoder, tokens: Tensor, features: Tensor, relations: list[str]) -> Rows:
    """Shares of subject, relation and object by method, and the score of the relation's words:
    the words of a caption are "the S is R.. the O"."""
    lengths = torch.tensor([len(relation.split()) for relation in relations])[:, None]
    for method in METHODS:
        scores = _scored(encoder, tokens, features, method)
        word, share = torch.arange(scores.shape[1]), positive_shares(scores).cpu()
        relation = (word >= 3) & (word < 3 + lengths)
        for part, own in (
            ("subject", word == 1),
            ("relation", relation),
            ("object", word == 4 + lengths),
        ):
            yield dict(measure="word share", method=method, part=part, value=(share * own).sum(1))
        score = (scores.cpu() * relation).sum(1)
        yield dict(measure="word score", method=method, part="relation", value=score)


def _scored(encoder: Encoder, tokens: Tensor, features: Tensor, method: str) -> Tensor:
    """Scores `(n, W)` of words."""
    batches = zip(tokens.split(BATCH), features.split(BATCH), strict=True)
    scores = [word_scores(encoder.clip, *batch, method) for batch in batches]
    width = max(own.shape[1] for own in scores)
    return torch.cat([F.pad(own, (0, width - own.shape[1])) for own in scores])


def _example(encoder: Encoder, example: Example) -> Rows:
    """Maps, words and cosine of one drawn scene."""
    pixels = encoder.clip.preprocess(render(example.scene))[None].to(encoder.device)
    maps, features, tokens = _maps(encoder, pixels, [example.caption])
    with torch.no_grad():
        texts = F.normalize(encode_text(encoder.clip.model, tokens).features, dim=-1)
    yield dict(measure="example cosine", value=[float((features * texts).sum())])
    for method, own in maps.items():
        row, column = np.indices(own.shape[1:])
        yield dict(
            measure="example map",
            method=method,
            row=row.ravel(),
            column=column.ravel(),
            value=own.flatten().cpu(),
        )
    words = split_words(example.caption, encoder.clip.tokenizer)
    for method in METHODS:
        share = positive_shares(_scored(encoder, tokens, features, method))[0].cpu()
        yield dict(
            measure="example word",
            method=method,
            part=words,
            row=np.arange(len(words)),
            value=share,
        )
