"""Load the training and validation sets of a profile: images, captions, tokens and roles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from cae_lib.config import paths
from cae_lib.data.captions import Pairs, load_coco_captions, load_negclip_tsv
from cae_lib.data.images import ImagesOnDisk, ImageStore, open_images
from cae_lib.data.sources import fetch_command
from cae_lib.errors import ConfigError, MissingDataError
from cae_lib.models.clip import load_clip
from cae_lib.profiles import find_profile
from cae_lib.runtime import write_atomic
from cae_lib.words.alignment import Alignment, align, named_tagger, token_roles

if TYPE_CHECKING:
    from cae_lib.words.pipeline import Tagger
    from cae_lib.words.scene_graph import SceneGraphTagger


TRAINING_SOURCE = "negclip-captions"
NEGATIVES_VERSION = 1
"""Version of the results of `swap_negatives`: raise it when they change."""

TRAINING_ROWS = 109_468
"""Rows of NegCLIP's training file."""


@dataclass(frozen=True)
class TrainingSet:
    """Pairs with their images, and the tokens and roles of their captions."""

    pairs: Pairs
    images: ImageStore | ImagesOnDisk
    alignment: Alignment


@lru_cache(maxsize=1)
def default_tagger() -> SceneGraphTagger:
    """Return the paper's parser with the installed spaCy model, loaded once and when needed."""
    from cae_lib.words.scene_graph import SceneGraphTagger

    return SceneGraphTagger()


def _find_tagger(name: str, profile_name: str) -> Tagger:
    """Return the tagger that the setting `tagger` of a run names."""
    if name == "scene-graph":
        return default_tagger()
    return ground_truth_tagger(profile_name) if name == "truth" else named_tagger(name)


def has_ground_truth(profile_name: str) -> bool:
    """Whether the roles of a profile's captions are known by construction."""
    profile = find_profile(profile_name)
    return profile.synthetic or (profile.sets or profile.name) == "paired"


def ground_truth_tagger(profile_name: str) -> Tagger:
    """Return the tagger that knows by construction what the captions of a profile say.

    Raises:
        ConfigError: If people wrote the captions.
    """
    from cae_lib.words.ground_truth import PairedPhrases, SceneGraphFile

    if not has_ground_truth(profile_name):
        raise ConfigError(
            f"tagger 'truth': the captions of profile {profile_name!r} were written by people, so "
            "no roles are known by construction; choose 'scene-graph' or 'dependency'."
        )
    profile = find_profile(profile_name)
    if profile.synthetic:
        folder = profile.root / "coco" / "annotations"
        return SceneGraphFile(
            (folder / f"captions_{split}2014.json", folder / f"scene_graphs_{split}2014.json")
            for split in ("train", "val")
        )
    return PairedPhrases()


@lru_cache(maxsize=2)
def training_set(
    profile_name: str, name: str = "coco", model: str = "clip-mini", tagger: str = "scene-graph"
) -> TrainingSet:
    """Load a dataset; the last two are kept in memory.

    Args:
        profile_name: Name of the profile that the data belong to.
        name: "coco" (rows of `train_neg_clip.tsv`, with roles); "kept", the same with swaps that
            keep a caption's meaning as its negatives and without similar images; "spacy", the same
            as "coco" with hard negatives that our generator makes from the captions' text alone
            (`swap_negatives`); or "pretrain" (web-like captions of the synthetic scenes, for the
            base model; no roles are needed and none are computed).
        model: Name of the model whose tokenizer and image size are used.
        tagger: Name of the tagger that finds the roles of words: "scene-graph", the paper's;
            "dependency"; or "truth", what the captions say by construction, where they were not
            written by people.

    Raises:
        ConfigError: If the name or the tagger is unknown.
        DataError: If files are missing or malformed; the message says how to get them.
    """
    clip = load_clip(model)
    if name in ("coco", "kept", "spacy"):
        pairs = training_pairs(profile_name)
        if name == "kept":
            negatives = _parsed_negatives(pairs.captions, "kept")
            pairs = replace(pairs, negatives=negatives, hard_images=None)
        elif name == "spacy":
            pairs = replace(pairs, negatives=_parsed_negatives(pairs.captions, "spacy"))
        cache = paths().cache / "roles"
        alignment = token_roles(
            pairs.captions, clip.tokenizer, _find_tagger(tagger, profile_name), cache
        )
    elif name == "pretrain":
        root = find_profile(profile_name).root / "pretrain"
        annotations = root / "annotations" / "captions_pretrain.json"
        pairs = load_coco_captions(annotations, root / "images")
        alignment = align(pairs.captions, [[]] * len(pairs.captions), clip.tokenizer)
    else:
        raise ConfigError(
            f"unknown training set {name!r}: expected 'coco', 'kept', 'spacy' or 'pretrain'"
        )
    return TrainingSet(pairs, open_images(pairs.image_paths, clip.image_size), alignment)


def _parsed_negatives(captions: Sequence[str], name: str) -> list[list[str]]:
    """Return the swaps of each caption, from a stored file if there is one.

    The file is named by the captions and by what they are parsed with, so another spaCy model makes
    a new file.

    Args:
        captions: The captions.
        name: "kept" for swaps that keep the caption's meaning, or "spacy" for hard negatives.
    """
    from cae_lib.data.negatives import parser_identity, swap_negatives

    inputs = [NEGATIVES_VERSION, parser_identity(), *captions]
    key = hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]
    path = paths().cache / name / f"{key}.json"
    if not path.is_file():
        write_atomic(path, json.dumps(swap_negatives(captions, keep_meaning=name == "kept")))
    return json.loads(path.read_text(encoding="utf-8"))


def training_pairs(profile_name: str) -> Pairs:
    """Return images and captions of the dataset "coco" without tokens or roles.

    Roles would need a parser.

    Raises:
        DataError: If the file is missing, malformed or incomplete, or an image is missing.
    """
    profile = find_profile(profile_name)
    path = profile.root / "coco" / "train_neg_clip.tsv"
    if not profile.real or profile.drawn:
        return load_negclip_tsv(path, profile.root)
    try:
        return load_negclip_tsv(path, profile.root, expected=TRAINING_ROWS)
    except MissingDataError as error:
        remedy = f"Training needs all of it: {fetch_command([TRAINING_SOURCE])}"
        raise MissingDataError(f"{error} {remedy}") from error
