"""Heat maps: where the relevance of images and words falls (Figure 6 of the paper).

Each synthetic scene is scored together with one caption, "the SUBJECT is RELATION the OBJECT", so
that the role of every word is known without a parser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from book.studies.regions import EXAMPLES, REGIONS, Example, labelled_scenes, region_shares
from book.studies.tables import NOTHING, long_table
from cae_bench.benchmarks.base import ImageRef
from cae_bench.datasets import retrieval_pairs
from cae_bench.encoder import Encoder
from cae_lab.runs import Profile
from cae_lab.samples import SAMPLE_SIZES, evenly_spaced_indices
from cae_lab.scene_graphs import GRAPHS_FILE
from cae_lib.attribution.heatmap import image_relevances, patch_grid, relevance_shares
from cae_lib.attribution.word_scores import positive_shares, split_words, word_scores
from cae_lib.methods import PAPER_METHODS
from cae_lib.models.text_encoder import encode_text
from data.recipes.synthetic_scenes.draw import render

START_LAYERS: Mapping[str, int] = {"last layer": -1, "all layers": 0}
"""First layers of the rule: the one of the CLIP notebook of Chefer et al., and the whole rule."""

BATCH_SIZE = 100
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
"""The columns of `heatmap_table` with their defaults: a value a row.

`method` is a method or a start layer; `part` a region, a role or a word, and `row` then the number
of the word; `scene` the number of the test image or, of measures "example ...", of the example.
"""

Rows = Iterator[dict[str, Any]]


def heatmap_table(
    encoder: Encoder, profile: Profile, limit: int = SAMPLE_SIZES["heatmaps"]
) -> pd.DataFrame:
    """Measure relevance by region and word in COCO's test images, and the maps of `EXAMPLES`."""
    # Only synthetic scenes have ground truth of their regions.
    if not profile.is_synthetic:
        return pd.DataFrame(ROW, index=[0])[:0]
    paths = retrieval_pairs(profile.datasets, "coco").image_paths
    ground_truth = labelled_scenes(profile.root / GRAPHS_FILE)
    rows = evenly_spaced_indices(len(paths), limit)
    scenes = [ground_truth[paths[row].name] for row in rows]
    relations = [scene.relation for scene in scenes]
    grid = tuple(patch_grid(encoder.clip.model.visual))
    # (scenes, regions, rows, columns)
    coverage = np.stack([region_shares(scene.places, grid) for scene in scenes])
    pixels = encoder.pixel_values([ImageRef(paths[row]) for row in rows])
    maps, features, tokens = _maps(encoder, pixels, [scene.caption for scene in scenes])
    # The share of a map that a region would have by its size alone.
    parts = [{"measure": "area", "part": list(REGIONS), "value": coverage.mean(axis=(0, 2, 3))}]
    for part in (*_regions(maps, coverage), *_words(encoder, tokens, features, relations)):
        parts.append(part | {"scene": rows, "relation": relations})
    for number, example in enumerate(EXAMPLES):
        for part in _example(encoder, example):
            parts.append(part | {"scene": number, "relation": example.relation})
    return long_table(ROW, parts)


def _maps(
    encoder: Encoder, pixels: Tensor, captions: list[str]
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return maps `(n, rows, columns)` that sum to 1 by start layer, image features, and tokens."""
    model, tokens = encoder.clip.model, encoder.clip.tokenizer(captions).to(pixels.device)
    maps: dict[str, list[Tensor]] = {name: [] for name in START_LAYERS}
    features = []
    batches = zip(tokens.split(BATCH_SIZE), pixels.split(BATCH_SIZE), strict=True)
    for batch_tokens, batch_pixels in batches:
        with torch.no_grad():
            texts = encode_text(model, batch_tokens).features
        output = image_relevances(model, batch_pixels, texts, tuple(START_LAYERS.values()))
        features.append(output.image_features)
        for name, batch_maps in zip(maps, output.maps, strict=True):
            maps[name].append(relevance_shares(batch_maps))
    return {name: torch.cat(parts) for name, parts in maps.items()}, torch.cat(features), tokens


def _regions(maps: Mapping[str, Tensor], coverage: np.ndarray) -> Rows:
    """Yield the share of each region; `coverage` `(n, 4, rows, columns)` is its part of a patch."""
    for method, patches in maps.items():
        by_region = np.einsum("nyx,nryx->rn", patches.cpu().numpy(), coverage)
        for region, value in zip(REGIONS, by_region, strict=True):
            yield {"measure": "region", "method": method, "part": region, "value": value}


def _words(encoder: Encoder, tokens: Tensor, features: Tensor, relations: list[str]) -> Rows:
    """Yield the shares of subject, relation and object, and the score of the relation's words."""
    # A caption is "the SUBJECT is RELATION the OBJECT"; only the relation has several words.
    lengths = torch.tensor([len(relation.split()) for relation in relations])[:, None]
    for method in PAPER_METHODS:
        # (n, W)
        scores = _scores(encoder, tokens, features, method)
        word, share = torch.arange(scores.shape[1]), positive_shares(scores).cpu()
        masks = {
            "subject": word == 1,
            "relation": (word >= 3) & (word < 3 + lengths),
            "object": word == 4 + lengths,
        }
        for part, mask in masks.items():
            columns = {"method": method, "part": part, "value": (share * mask).sum(1)}
            yield {"measure": "word share", **columns}
        score = (scores.cpu() * masks["relation"]).sum(1)
        yield {"measure": "word score", "method": method, "part": "relation", "value": score}


def _scores(encoder: Encoder, tokens: Tensor, features: Tensor, method: str) -> Tensor:
    """Return the scores of the words `(n, W)`, padded with 0."""
    batches = zip(tokens.split(BATCH_SIZE), features.split(BATCH_SIZE), strict=True)
    scores = [word_scores(encoder.clip, *batch, method) for batch in batches]
    # W of a batch is the number of words of its longest caption.
    width = max(part.shape[1] for part in scores)
    return torch.cat([F.pad(part, (0, width - part.shape[1])) for part in scores])


def _example(encoder: Encoder, example: Example) -> Rows:
    """Yield maps, words and cosine of one drawn scene."""
    pixels = encoder.clip.preprocess(render(example.scene))[None].to(encoder.device)
    maps, features, tokens = _maps(encoder, pixels, [example.caption])
    with torch.no_grad():
        texts = F.normalize(encode_text(encoder.clip.model, tokens).features, dim=-1)
    yield {"measure": "example cosine", "value": [float((features * texts).sum())]}
    for method, patches in maps.items():
        row, column = np.indices(patches.shape[1:])
        columns = {"row": row.ravel(), "column": column.ravel(), "value": patches.flatten().cpu()}
        yield {"measure": "example map", "method": method, **columns}
    words = split_words(example.caption, encoder.clip.tokenizer)
    for method in PAPER_METHODS:
        share = positive_shares(_scores(encoder, tokens, features, method))[0].cpu()
        columns = {"part": words, "row": np.arange(len(words)), "value": share}
        yield {"measure": "example word", "method": method, **columns}
