"""ARO's COCO-Order and Flickr30k-Order: a caption against four shuffles of its own words.

The benchmark is by Yuksekgonul et al. (2023), the shuffles are after O'Connor and Andreas (2021).
The shuffles differ from those of the official code in two ways. That code draws from two global
random generators; here one seeded generator makes all shuffles of a file, in file order. That code
splits captions into words with NLTK for the shuffles of trigrams; here all four shuffles use the
words of spaCy. Ties are counted differently, too, see `read_items`.
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

IMAGE_FOLDERS = {"coco": ("coco",), "flickr30k": ("flickr30k", "flickr30k/flickr30k-images")}
"""Folders in which the images of each subset are looked for, in this order.

They are relative to the folder of all datasets.
"""


class TaggedWords(NamedTuple):
    """The words of a caption and their Penn Treebank tags, in the order of the caption."""

    words: Sequence[str]
    tags: Sequence[str]


def tag_words(captions: Sequence[str]) -> list[TaggedWords]:
    """Split captions into words and tag their parts of speech with spaCy's small English model.

    Words are the tokens of spaCy, so punctuation marks are words, too. The model is loaded once.

    Raises:
        ConfigError: If no English spaCy model is installed.
    """
    documents = _tagger().pipe(captions, batch_size=256)
    return [TaggedWords([t.text for t in doc], [t.tag_ for t in doc]) for doc in documents]


@cache
def _tagger() -> Language:
    import spacy

    from cae_lib.words.pipeline import spacy_model_name

    unused = ["parser", "ner", "lemmatizer", "attribute_ruler", "senter"]
    return spacy.load(spacy_model_name(), exclude=unused)


def read_items(
    root: Path,
    subset: str,
    seed: int = 1,
    tagger: Callable[[Sequence[str]], list[TaggedWords]] = tag_words,
) -> Iterator[Item]:
    """Yield an item for each caption of the Karpathy test split.

    The texts of an item are the caption and its four `shuffled_captions`, all cleaned by
    `clean_caption`. In about a fifth of the items of the published datasets, a shuffle equals the
    caption. Such an item is never right here, because a tie is wrong. The official code counts such
    a tie as right, because it takes the first of equal scores, which is that of the caption.

    If no image file of the subset exists, no item can be scored. Because tagging would take
    minutes, the captions are then not tagged, and all shuffles are empty texts.

    Args:
        root: Folder of all datasets.
        subset: "coco" or "flickr30k".
        seed: Seed of the shuffles.
        tagger: Function that returns the words and Penn Treebank tags of each caption.

    Raises:
        ConfigError: If no English spaCy model is installed; only with the default tagger.
        MissingFileError: If the annotation file does not exist.
        DataError: If the file or a row is malformed.
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
        tagger = _untagged  # nothing will be scored, and tagging takes minutes
    generator = np.random.default_rng(seed)
    for key, image, caption, words in zip(keys, images, captions, tagger(captions), strict=True):
        texts = [clean_caption(text) for text in (caption, *shuffled_captions(words, generator))]
        yield Item(key, (image,), tuple(texts), group=subset)


def _untagged(captions: Sequence[str]) -> list[TaggedWords]:
    return [TaggedWords((), ())] * len(captions)


def clean_caption(caption: str) -> str:
    """Clean a caption as ARO does before encoding it, with the rules of BLIP's `pre_caption`.

    The caption is put in lower case, each of the characters `.!"()*#:;~` is replaced by a space,
    white space at the ends is removed, other runs of it become one space, and only the first
    `MAX_WORDS` words are kept. Other punctuation, such as a comma, stays.
    """
    return " ".join(re.sub(r"[.!\"()*#:;~]", " ", caption.lower()).split()[:MAX_WORDS])


def shuffled_captions(
    tagged_words: TaggedWords, generator: np.random.Generator
) -> tuple[str, str, str, str]:
    """Return four shuffles of a caption, in the order of the official code.

    The first permutes the nouns among themselves and the adjectives among themselves. The second
    permutes all other words among themselves. The third and the fourth cut the caption into
    trigrams, which are consecutive and do not overlap (the last may have fewer words): the third
    permutes the words within each trigram, the fourth permutes the trigrams. Words are joined by
    spaces.

    Args:
        tagged_words: The words of the caption and their tags.
        generator: Random generator, which is called for the shuffles in this order.
    """
    words, tags = np.array(tagged_words.words, dtype=object), tagged_words.tags
    nouns = np.array([tag in NOUN_TAGS for tag in tags], dtype=bool)
    adjectives = np.array([tag in ADJECTIVE_TAGS for tag in tags], dtype=bool)
    content = _permute(_permute(words, nouns, generator), adjectives, generator)
    rest = _permute(words, ~(nouns | adjectives), generator)
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
