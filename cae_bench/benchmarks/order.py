"""ARO's COCO-Order and Flickr30k-Order: a caption against four shuffles of its own words.

The benchmark is by Yuksekgonul et al. (2023), the shuffles are after O'Connor and Andreas (2021).
They differ from the official ones in their random generator and in the words of two of the four.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cae_bench.benchmarks.base import Family, Item, find_image
from cae_lib.data.rows import json_rows

if TYPE_CHECKING:
    from spacy.language import Language

NOUN_TAGS = frozenset(("NN", "NNS", "NNP", "NNPS"))
"""Part-of-speech tags of nouns in the Penn Treebank."""

ADJECTIVE_TAGS = frozenset(("JJ", "JJR", "JJS"))
"""Part-of-speech tags of adjectives in the Penn Treebank."""

MAX_WORDS = 30
"""Number of words after which `clean_caption` cuts a caption off."""

ANNOTATION_FILES = {
    "coco": "coco/coco_karpathy_test.json",
    "flickr30k": "flickr30k/flickr30k_test.json",
}
"""Annotation file of each subset, relative to the folder of all datasets."""

# Flickr30k's images are in the first folder for ARO's code, in the second for CAE's authors.
IMAGE_FOLDERS = {"coco": ("coco",), "flickr30k": ("flickr30k", "flickr30k/flickr30k-images")}
"""Folders below that of all datasets in which images are looked for, in this order."""


class TaggedWords(NamedTuple):
    """The words of a caption and their Penn Treebank tags, in the order of the caption."""

    words: Sequence[str]
    tags: Sequence[str]


def tag_words(captions: Sequence[str]) -> list[TaggedWords]:
    """Split captions into spaCy's tokens, which include punctuation marks, and tag them."""
    documents = _tagger().pipe(captions, batch_size=256)
    return [TaggedWords([t.text for t in doc], [t.tag_ for t in doc]) for doc in documents]


@cache
def _tagger() -> Language:
    import spacy

    from cae_lib.words.pipeline import spacy_model_name

    # The tagger needs none of these, and they take time.
    unused = ["parser", "ner", "lemmatizer", "attribute_ruler", "senter"]
    return spacy.load(spacy_model_name(), exclude=unused)


def read_items(
    root: Path,
    subset: str,
    seed: int = 1,
    tagger: Callable[[Sequence[str]], list[TaggedWords]] = tag_words,
) -> Iterator[Item]:
    """Yield an item for each caption of the Karpathy test split: the caption and its four shuffles.

    The default of `tagger`, which returns the words and Penn Treebank tags of captions, raises a
    ConfigError if no English spaCy model is installed.
    """
    images, captions, keys = [], [], []
    for row in json_rows(root / ANNOTATION_FILES[subset], list):
        name = row.text("image").strip()
        image = find_image(*(root / folder / name for folder in IMAGE_FOLDERS[subset]))
        for number, caption in enumerate(row.texts("caption")):
            images.append(image)
            captions.append(caption)
            keys.append(f"{row.key}/{number}")
    if not any(os.path.isfile(image.path) for image in images):
        # Nothing will be scored, and tagging takes minutes. All shuffles are empty texts then.
        tagger = _untagged
    # One generator for all captions of a file, in file order, so that shuffles can be repeated. The
    # official code draws from two global generators.
    generator = np.random.default_rng(seed)
    for key, image, caption, words in zip(keys, images, captions, tagger(captions), strict=True):
        # In a fifth of the items a shuffle equals the caption: a tie, right for the official code,
        # wrong here. Items without their image draw shuffles, too, so those of the others stay.
        texts = [clean_caption(text) for text in (caption, *shuffled_captions(words, generator))]
        yield Item(key, (image,), tuple(texts), group=subset)


def _untagged(captions: Sequence[str]) -> list[TaggedWords]:
    return [TaggedWords((), ())] * len(captions)


def clean_caption(caption: str) -> str:
    """Clean a caption as ARO does before encoding it, with the rules of BLIP's `pre_caption`."""
    return " ".join(re.sub(r"[.!\"()*#:;~]", " ", caption.lower()).split()[:MAX_WORDS])


def shuffled_captions(
    tagged_words: TaggedWords, generator: np.random.Generator
) -> tuple[str, str, str, str]:
    """Return four shuffles of a caption, in the order of the official code.

    Permuted are: nouns among themselves and adjectives among themselves; all other words; the words
    within each trigram; and the trigrams. Trigrams do not overlap; the last may be shorter.
    """
    words, tags = np.array(tagged_words.words, dtype=object), tagged_words.tags
    nouns = np.array([tag in NOUN_TAGS for tag in tags], dtype=bool)
    adjectives = np.array([tag in ADJECTIVE_TAGS for tag in tags], dtype=bool)
    # The order of these calls decides what each draws from the generator.
    content = _permute(_permute(words, nouns, generator), adjectives, generator)
    rest = _permute(words, ~(nouns | adjectives), generator)
    # The official code splits captions anew here, with NLTK; we keep spaCy's words.
    trigrams = [words[start : start + 3] for start in range(0, len(words), 3)]
    within = [generator.permutation(trigram) for trigram in trigrams]
    across = [trigrams[position] for position in generator.permutation(len(trigrams))]
    return _join([content]), _join([rest]), _join(within), _join(across)


def _permute(words: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    permuted = words.copy()
    permuted[mask] = generator.permutation(words[mask])
    return permuted


def _join(runs: Sequence[np.ndarray]) -> str:
    return " ".join(word for run in runs for word in run)


FAMILY = Family(
    "order",
    "",
    read_items,
    published_counts={"coco": 25_010, "flickr30k": 5000},
    files=tuple(ANNOTATION_FILES.values()),
    images_advice="COCO's val2014, in coco/, and Flickr30k's flickr30k-images, in flickr30k/",
    in_paper=True,
    sources=("coco-retrieval", "flickr30k"),
)
