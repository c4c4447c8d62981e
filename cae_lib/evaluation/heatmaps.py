"""Where the relevance of pictures and words falls: the measurement behind Fig. 6 of the paper.

Each scene of the small world is scored together with one caption, "the SUBJECT is RELATION the
OBJECT", so that every word's part in it is known without a parser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cae_lib.attribution import METHODS
from cae_lib.attribution.heatmap import image_relevances, shares
from cae_lib.attribution.word_scores import WordScores, split_words, word_scores
from cae_lib.data.captions import load_caption_list
from cae_lib.data.training_set import data_root
from cae_lib.data.world.config import WORLDS
from cae_lib.data.world.draw import render
from cae_lib.data.world.vocabulary import canonical
from cae_lib.evaluation.embed import Encoder, ImageRef
from cae_lib.evaluation.example_scenes import EXAMPLES, Example, statement
from cae_lib.evaluation.regions import REGIONS, GoldScene, gold_scenes, region_shares
from cae_lib.evaluation.tokens import tokenize
from cae_lib.models.text_encoder import encode_text

START_LAYERS: Mapping[str, int] = {"last layer": -1, "all layers": 0}
"""First layers of the rule: the one of the CLIP notebook of Chefer et al., and the whole rule."""

TEMPLATE = "the SUBJECT is RELATION the OBJECT"
PARTS = ("subject", "relation", "object")
BATCH = 100
DIGITS = 4


def relevance_regions(encoder: Encoder, profile: str, limit: int = 300) -> dict[str, Any]:
    """Shares of relevance by region and by word, scene by scene, and the maps of `EXAMPLES`.

    Args:
        encoder: Holds the model.
        profile: Whose COCO test pictures to take.
        limit: Number of scenes, taken evenly over the test split.

    Returns:
        `regions[start layer][region]`: the share of a map's sum, one a scene;
        `words[method][part]`: the share of the words' positive scores; `scores[method]`: the score
        of the relation's words; `area[region]`: the mean share of the picture. Without a small
        world there is no gold, `n_used` is 0 and `reason` says so.
    """
    if profile not in WORLDS:
        reason = f"profile {profile} has no gold boxes: only the small world does"
        return {"n_used": 0, "n_expected": 0, "reason": reason}
    scenes, refs, n_expected = _test_scenes(profile, limit)
    grid = tuple(encoder.clip.model.visual.grid_size)
    coverage = np.stack([region_shares(scene.places, grid) for scene in scenes])
    captions = [statement(scene.subject, scene.relation, scene.obj) for scene in scenes]
    maps, features, tokens = _maps(encoder, encoder.pixels(refs), captions)
    words, scores = _words(encoder, tokens, features, [scene.relation for scene in scenes])
    return {
        "n_used": len(scenes),
        "n_expected": n_expected,
        "template": TEMPLATE,
        "start_layers": dict(START_LAYERS),
        "relations": [scene.relation for scene in scenes],
        "area": dict(zip(REGIONS, coverage.mean(axis=(0, 2, 3)).round(DIGITS), strict=True)),
        "regions": {
            name: _by_region(np.einsum("nyx,nryx->rn", found.cpu().numpy(), coverage))
            for name, found in maps.items()
        },
        "words": words,
        "scores": scores,
        "examples": [_example(encoder, example) for example in EXAMPLES],
    }


def _by_region(found: np.ndarray) -> dict[str, Any]:
    """Shares of the regions; that of the rest of the picture is what they leave of 1."""
    return {name: row.round(DIGITS) for name, row in zip(REGIONS, found, strict=True)
            if name != "rest"}  # fmt: skip


@lru_cache(maxsize=2)
def _test_scenes(profile: str, limit: int) -> tuple[list[GoldScene], list[ImageRef], int]:
    """Gold and picture of the chosen scenes, and their number before the choice."""
    root = data_root(profile)
    pairs = load_caption_list(root / "coco" / "coco_karpathy_test.json", root / "coco")
    gold = gold_scenes(root / "coco" / "annotations" / "scene_graphs_val2014.json")
    total = len(pairs.image_paths)
    rows = np.unique(np.linspace(0, total - 1, min(limit, total)).astype(int))
    chosen = [pairs.image_paths[row] for row in rows]
    refs = [ImageRef(path) for path in chosen]
    return [gold[path.name] for path in chosen], refs, min(limit, total)


def _maps(
    encoder: Encoder, pixels: Tensor, captions: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Maps that sum to 1 `(n, rows, columns)` by start layer, picture features, and tokens."""
    clip = encoder.clip
    tokens = tokenize(clip.tokenizer, captions).to(pixels.device)
    found: dict[str, list[Tensor]] = {name: [] for name in START_LAYERS}
    features = []
    for rows in torch.arange(len(tokens)).split(BATCH):
        with torch.no_grad():
            texts = encode_text(clip.model, tokens[rows]).features
        part = image_relevances(clip.model, pixels[rows], texts, tuple(START_LAYERS.values()))
        features.append(part.image_features)
        for name, maps in zip(found, part.maps, strict=True):
            found[name].append(shares(maps))
    return {name: torch.cat(parts) for name, parts in found.items()}, torch.cat(features), tokens


def _words(
    encoder: Encoder, tokens: Tensor, features: Tensor, relations: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shares of subject, relation and object by method, and the score of the relation's words."""
    lengths = torch.tensor([len(canonical(relation).split()) for relation in relations])
    shared: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for method in METHODS:
        found = _scored(encoder, tokens, features, method)
        parts = _parts(lengths, found.scores.shape[1])
        both = {"words": found.shares().cpu(), "scores": found.scores.cpu()}
        shared[method] = {
            name: _rounded((both["words"] * part).sum(dim=1)) for name, part in parts.items()
        }
        scores[method] = _rounded((both["scores"] * parts["relation"]).sum(dim=1))
    return shared, scores


def _scored(encoder: Encoder, tokens: Tensor, features: Tensor, method: str) -> WordScores:
    found = [
        word_scores(encoder.clip, tokens[rows], features[rows], method)
        for rows in torch.arange(len(tokens)).split(BATCH)
    ]
    width = max(part.scores.shape[1] for part in found)
    return WordScores(*(
        torch.cat([F.pad(values, (0, width - values.shape[1])) for values in column])
        for column in zip(*((part.scores, part.present) for part in found), strict=True)
    ))  # fmt: skip


def _parts(lengths: Tensor, width: int) -> dict[str, Tensor]:
    """Which words `(n, W)` of "the S is R.. the O" are subject, relation and object."""
    word = torch.arange(width)
    first, last = 3, 3 + lengths[:, None]
    return {
        "subject": (word == 1).expand(len(lengths), width),
        "relation": (word >= first) & (word < last),
        "object": word == last + 1,
    }


def _example(encoder: Encoder, example: Example) -> dict[str, Any]:
    """Maps, words and cosine of one drawn scene."""
    device = next(encoder.clip.model.parameters()).device
    pixels = encoder.clip.preprocess(render(example.scene))[None].to(device)
    maps, features, tokens = _maps(encoder, pixels, [example.caption])
    with torch.no_grad():
        texts = F.normalize(encode_text(encoder.clip.model, tokens).features, dim=-1)
    return {
        "caption": example.caption,
        "words": split_words(example.caption, encoder.clip.tokenizer),
        "cosine": round(float((features * texts).sum()), DIGITS),
        "maps": {name: found[0].cpu().numpy().round(DIGITS) for name, found in maps.items()},
        "shares": {
            method: _rounded(_scored(encoder, tokens, features, method).shares()[0])
            for method in METHODS
        },
    }


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), DIGITS) for value in values]
