"""Load the training sets of a profile: images, captions, tokens and word roles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cae_bench.datasets import skip_if_missing
from cae_bench.sources import fetch_command
from cae_lab.runs import TRAINING_SOURCES, Profile
from cae_lib.config import paths
from cae_lib.data.captions import ImageCaptionPairs, load_coco_captions, load_negclip_tsv
from cae_lib.data.images import ImagesInMemory, ImagesOnDisk, open_images
from cae_lib.errors import ConfigError, MissingDataError
from cae_lib.words.alignment import Alignment, align, named_tagger, token_roles

if TYPE_CHECKING:
    from cae_lib.words.pipeline import Tagger
    from cae_lib.words.scene_graph import SceneGraphTagger


NEGCLIP_FILE, N_TRAINING_ROWS = "coco/train_neg_clip.tsv", 109_468  # of the published file


@dataclass(frozen=True)
class TrainingSet:
    """Image-caption pairs, the images of their paths, and the alignment of their captions."""

    pairs: ImageCaptionPairs
    images: ImagesInMemory | ImagesOnDisk
    alignment: Alignment


# Cached, so that a process loads the spaCy model once.
@lru_cache(maxsize=1)
def default_tagger() -> SceneGraphTagger:
    """Return the paper's scene graph parser as a tagger."""
    from cae_lib.words.scene_graph import SceneGraphTagger

    return SceneGraphTagger()


def _find_tagger(name: str, profile: Profile) -> Tagger:
    """Return the tagger that the setting `tagger` of a run names."""
    if name == "scene-graph":
        return default_tagger()
    return ground_truth_tagger(profile) if name == "truth" else named_tagger(name)


def ground_truth_tagger(profile: Profile) -> Tagger:
    """Return a tagger that reads word roles from the ground truth of a profile's captions."""
    from cae_lib.words.ground_truth import PairedImageTagger, SyntheticSceneTagger

    if not profile.has_ground_truth:
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


# Only two, because each may hold gigabytes of decoded images.
@lru_cache(maxsize=2)
def training_set(
    profile: Profile,
    tokenizer: Any,
    image_size: int,
    name: str = "coco",
    tagger: str = "scene-graph",
) -> TrainingSet:
    """Load a training set of a profile.

    Args:
        profile: The profile.
        tokenizer: The tokenizer of the model, one object for all models of an architecture.
        image_size: Height and width in pixels of the images that the model takes.
        name: "coco" for the rows of `train_neg_clip.tsv`; "spacy" for the same rows with hard
            negatives made from the text of a caption alone; "kept" with swaps that keep the meaning
            of a caption; "pretrain" for web-like captions of the synthetic scenes.
        tagger: "scene-graph" (the paper's parser), "dependency" (spaCy's dependency tree) or
            "truth" (of captions that were generated); not used for "pretrain".
    """
    pairs = training_pairs(profile, name)
    if name == "pretrain":
        # Pretraining needs no roles: no spans give every word the role "other".
        alignment = align(pairs.captions, [[]] * len(pairs.captions), tokenizer)
    else:
        cache = paths().cache / "roles"
        alignment = token_roles(pairs.captions, tokenizer, _find_tagger(tagger, profile), cache)
    return TrainingSet(pairs, open_images(pairs.image_paths, image_size), alignment)


def training_pairs(profile: Profile, name: str = "coco") -> ImageCaptionPairs:
    """Load the pairs and hard negatives of a training set, without roles and images."""
    if name == "pretrain":
        root = profile.root / "pretrain"
        return load_coco_captions(root / "annotations" / "captions_pretrain.json", root / "images")
    if name not in ("coco", "kept", "spacy"):
        raise ConfigError(
            f"unknown training set {name!r}: expected 'coco', 'kept', 'spacy' or 'pretrain'"
        )
    file, is_published = profile.root / NEGCLIP_FILE, profile.is_real and not profile.is_rehearsal
    try:
        n_expected = N_TRAINING_ROWS if is_published else None
        pairs = _load_pairs(file, profile.root, n_expected)
    except MissingDataError as error:
        if not is_published:
            raise
        remedy = f"Training needs all of it: {fetch_command(TRAINING_SOURCES)}"
        raise MissingDataError(f"{error} {remedy}") from error
    # NegCLIP's file states its negatives; the others are made from the text of the caption alone.
    if name == "coco":
        return pairs
    from cae_lib.data.negatives import stored_swap_negatives  # imports spaCy

    # Swaps that keep the meaning of a caption: a control for hard negatives.
    is_control = name == "kept"
    negatives = stored_swap_negatives(pairs.captions, paths().cache / name, is_control)
    return replace(
        pairs, negatives=negatives, hard_images=None if is_control else pairs.hard_images
    )


# Cached, as a process trains models on these pairs and measures all of them by the same images.
@lru_cache(maxsize=1)
def _load_pairs(file: Path, root: Path, n_expected: int | None) -> ImageCaptionPairs:
    return load_negclip_tsv(file, root, n_expected=n_expected)


def available_training_pairs(profile: Profile) -> ImageCaptionPairs | None:
    """Load the training pairs of a profile; return None if real ones are missing or incomplete."""
    with skip_if_missing("blind", profile.is_real):
        return training_pairs(profile)
    return None
