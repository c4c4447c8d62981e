"""Load the training sets of a profile: images, captions, tokens and word roles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from cae_bench.datasets import skip_if_missing
from cae_bench.sources import fetch_command
from cae_lab.runs import TRAINING_SOURCES, Profile
from cae_lib.config import paths
from cae_lib.data.captions import ImageCaptionPairs, load_coco_captions, load_negclip_tsv
from cae_lib.data.images import ImagesInMemory, ImagesOnDisk, open_images
from cae_lib.errors import ConfigError, MissingDataError
from cae_lib.models.clip import load_clip
from cae_lib.runtime import write_atomic
from cae_lib.words.alignment import Alignment, align, named_tagger, token_roles
from cae_lib.words.versions import NEGATIVES_VERSION

if TYPE_CHECKING:
    from cae_lib.words.pipeline import Tagger
    from cae_lib.words.scene_graph import SceneGraphTagger


N_TRAINING_ROWS = 109_468
"""Number of rows in NegCLIP's training file."""


@dataclass(frozen=True)
class TrainingSet:
    """Image-caption pairs with their images, and the tokens and word roles of their captions.

    Attributes:
        pairs: Image paths and captions, with hard negatives if the training set has them.
        images: The images; row i is the image of `pairs.image_paths[i]`.
        alignment: Tokens and roles of the captions, in the order of `pairs.captions`.
    """

    pairs: ImageCaptionPairs
    images: ImagesInMemory | ImagesOnDisk
    alignment: Alignment


@lru_cache(maxsize=1)
def default_tagger() -> SceneGraphTagger:
    """Return the paper's scene graph parser as a tagger, loaded at the first call and then reused.

    Raises:
        ConfigError: If no English spaCy model is installed.
    """
    from cae_lib.words.scene_graph import SceneGraphTagger

    return SceneGraphTagger()


def _find_tagger(name: str, profile: Profile) -> Tagger:
    """Return the tagger that the setting `tagger` of a run names; see `training_set`."""
    if name == "scene-graph":
        return default_tagger()
    return ground_truth_tagger(profile) if name == "truth" else named_tagger(name)


def has_ground_truth(profile: Profile) -> bool:
    """Return whether the word roles of a profile's captions are known without a parser.

    They are known for synthetic scenes and for paired photographs, because both have generated
    captions.
    """
    return profile.is_synthetic or "paired" in (
        profile.name,
        profile.like,
        profile.datasets_profile,
    )


def ground_truth_tagger(profile: Profile) -> Tagger:
    """Return the tagger that reads word roles from the ground truth of a profile's captions.

    Raises:
        ConfigError: If the profile has no ground truth, because people wrote its captions.
        DataError: If the scene graphs of synthetic scenes are missing or damaged.
    """
    from cae_lib.words.ground_truth import PairedImageTagger, SyntheticSceneTagger

    if not has_ground_truth(profile):
        raise ConfigError(
            f"tagger 'truth': the captions of profile {profile.name!r} were written by people, so "
            "no roles are known by construction; choose 'scene-graph' or 'dependency'."
        )
    if profile.is_synthetic:
        folder = profile.root / "coco" / "annotations"
        return SyntheticSceneTagger(
            (folder / f"captions_{split}2014.json", folder / f"scene_graphs_{split}2014.json")
            for split in ("train", "val")
        )
    return PairedImageTagger()


@lru_cache(maxsize=2)
def training_set(
    profile: Profile, name: str = "coco", model: str = "clip-mini", tagger: str = "scene-graph"
) -> TrainingSet:
    """Load a training set of a profile; the two results used last are cached.

    Word roles and the results of `swap_negatives` are also stored as files in the cache folder.

    Args:
        profile: The profile that the data belong to.
        name: Name of the training set.

            - "coco": the rows of `train_neg_clip.tsv`.
            - "kept": the rows of "coco", but each caption's negatives are swaps that keep its
              meaning, and no similar images are listed.
            - "spacy": the rows of "coco", but each caption's hard negatives are made by
              `swap_negatives`, from the text of the caption alone.
            - "pretrain": web-like captions of the synthetic scenes, for the base model. All their
              words have role 0 (other), because pretraining needs no roles.
        model: Name of the model whose tokenizer and image size are used.
        tagger: Name of the tagger that finds the roles of words: "scene-graph" (the paper's
            parser), "dependency" (rules on spaCy's dependency tree), or "truth" (the ground truth
            of captions that were generated, not written by people). It is not used for the
            training set "pretrain".

    Raises:
        ConfigError: If the profile, the training set, the model or the tagger is unknown, the
            tagger is "truth" and the profile has no ground truth, or an English spaCy model is
            needed and none is installed.
        DataError: If files are missing or malformed; the message says how to get them.
    """
    clip = load_clip(model)
    if name in ("coco", "kept", "spacy"):
        pairs = training_pairs(profile)
        if name == "kept":
            negatives = _parsed_negatives(pairs.captions, "kept")
            pairs = replace(pairs, negatives=negatives, hard_images=None)
        elif name == "spacy":
            pairs = replace(pairs, negatives=_parsed_negatives(pairs.captions, "spacy"))
        cache = paths().cache / "roles"
        alignment = token_roles(
            pairs.captions, clip.tokenizer, _find_tagger(tagger, profile), cache
        )
    elif name == "pretrain":
        root = profile.root / "pretrain"
        annotations = root / "annotations" / "captions_pretrain.json"
        pairs = load_coco_captions(annotations, root / "images")
        alignment = align(pairs.captions, [[]] * len(pairs.captions), clip.tokenizer)
    else:
        raise ConfigError(
            f"unknown training set {name!r}: expected 'coco', 'kept', 'spacy' or 'pretrain'"
        )
    return TrainingSet(pairs, open_images(pairs.image_paths, clip.image_size), alignment)


def _parsed_negatives(captions: Sequence[str], name: str) -> list[list[str]]:
    """Return the swaps of each caption, from the cached file if there is one.

    The name of the file depends on the captions, the versions of spaCy and its model, and
    `NEGATIVES_VERSION`. If one of them changes, a new file is written.

    Args:
        captions: The captions.
        name: "kept" for swaps that keep the caption's meaning, or "spacy" for hard negatives.
    """
    from cae_lib.data.negatives import parser_identity, swap_negatives

    inputs = [NEGATIVES_VERSION, parser_identity(), *captions]
    key = hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]
    path = paths().cache / name / f"{key}.json"
    if not path.is_file():
        write_atomic(path, json.dumps(swap_negatives(captions, preserve_meaning=name == "kept")))
    return json.loads(path.read_text(encoding="utf-8"))


def training_pairs(profile: Profile) -> ImageCaptionPairs:
    """Load the image-caption pairs of a profile's `train_neg_clip.tsv`, with their hard negatives.

    This is the training set "coco" without tokens and word roles, so no parser is needed. Images
    are not decoded.

    Raises:
        DataError: If `train_neg_clip.tsv` is missing, malformed or incomplete, or an image file is
            missing.
    """
    path = profile.root / "coco" / "train_neg_clip.tsv"
    if not profile.is_real or profile.is_rehearsal:
        return load_negclip_tsv(path, profile.root)
    try:
        return load_negclip_tsv(path, profile.root, n_expected=N_TRAINING_ROWS)
    except MissingDataError as error:
        remedy = f"Training needs all of it: {fetch_command(TRAINING_SOURCES)}"
        raise MissingDataError(f"{error} {remedy}") from error


def available_training_pairs(profile: Profile) -> ImageCaptionPairs | None:
    """Load the training pairs of a profile; return None if real ones are missing or incomplete.

    Raises:
        DataError: If data are malformed, or generated data are missing or incomplete.
    """
    with skip_if_missing("blind", profile.is_real):
        return training_pairs(profile)
    return None
