"""ARO, COCO-Order and Flickr30k-Order: a caption against four shuffles of its own words.

Yuksekgonul et al. (2023), after O'Connor and Andreas (2021). The reference shuffles with two global
generators; here one generator, seeded, makes all shuffles of a file in order. The reference splits
trigrams with NLTK; here all four shuffles share spaCy's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cae_lib.data.benchmarks.base import Family, Item, find_image
from cae_lib.data.rows import json_rows

if TYPE_CHECKING:
    from spacy.language import Language

NOUN_TAGS = frozenset(("NN", "NNS", "NNP", "NNPS"))
ADJECTIVE_TAGS = frozenset(("JJ", "JJR", "JJS"))
"""Tags of the Penn Treebank."""

MAX_WORDS = 30
FILES = {"coco": "coco/coco_karpathy_test.json", "flickr30k": "flickr30k/flickr30k_test.json"}
IMAGE_FOLDERS = {"coco": ("coco",), "flickr30k": ("flickr30k", "flickr30k/flickr30k-images")}


class TaggedWords(NamedTuple):
    """Words of a caption and their Penn Treebank tags, in order."""

    words: Sequence[str]
    tags: Sequence[str]


def tag_words(captions: Sequence[str]) -> list[TaggedWords]:
    """Split captions into words and tag their parts of speech with spaCy's small English model.

    Raises:
        ConfigError: If the model is not installed.
    """
    documents = _tagger().pipe(captions, batch_size=256)
    return [TaggedWords([t.text for t in doc], [t.tag_ for t in doc]) for doc in documents]


@cache
def _tagger() -> Language:
    import spacy

    from cae_lib.words.pipeline import model_name

    unused = ["parser", "ner", "lemmatizer", "attribute_ruler", "senter"]
    return spacy.load(model_name(), exclude=unused)


def read(
    root: Path,
    subset: str,
    seed: int = 1,
    tagger: Callable[[Sequence[str]], list[TaggedWords]] = tag_words,
) -> Iterator[Item]:
    """Yield an item for each Karpathy test caption.

    Texts are the caption and four shuffles of it, see `shuffles`. About a fifth of the real items
    have a shuffle that equals the caption: such an item is wrong under the strict rule, and right
    under the reference argmax.

    Args:
        root: Folder of all datasets.
        subset: "coco" or "flickr30k".
        seed: Seed of the shuffles.
        tagger: Turns captions into words with Penn tags.
    """
    images, captions, keys = [], [], []
    for row in json_rows(root / FILES[subset], list):
        name = row.text("image").strip()
        image = find_image(*(root / folder / name for folder in IMAGE_FOLDERS[subset]))
        for number, caption in enumerate(row.texts("caption")):
            images.append(image)
            captions.append(caption)
            keys.append(f"{row.key}/{number}")
    if not any(image.path.is_file() for image in images):
        tagger = _untagged  # nothing will be scored, and tagging takes minutes
    generator = np.random.default_rng(seed)
    for key, image, caption, words in zip(keys, images, captions, tagger(captions), strict=True):
        texts = [clean_caption(text) for text in (caption, *shuffles(words, generator))]
        yield Item(key, (image,), tuple(texts), group=subset)


def _untagged(captions: Sequence[str]) -> list[TaggedWords]:
    return [TaggedWords((), ())] * len(captions)


def clean_caption(caption: str) -> str:
    """Return a caption as ARO cleans it, by a function from BLIP's retrieval code.

    Lower case, the marks `.!"()*#:;~` blanked, spaces collapsed, the first `MAX_WORDS` words; other
    marks, such as commas, stay.
    """
    return " ".join(re.sub(r"[.!\"()*#:;~]", " ", caption.lower()).split()[:MAX_WORDS])


def shuffles(tagged: TaggedWords, generator: np.random.Generator) -> tuple[str, str, str, str]:
    """Return four shuffles of a caption, in the order of the reference.

    The first shuffles the nouns among themselves and the adjectives among themselves. The second
    shuffles all other words, the third the words within each run of three, and the fourth the runs
    of three.
    """
    words, tags = np.array(tagged.words, dtype=object), tagged.tags
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
    read,
    published={"coco": 25_010, "flickr30k": 5000},
    files=tuple(FILES.values()),
    images="COCO's val2014, in coco/, and Flickr30k's flickr30k-images, in flickr30k/",
    in_paper=True,
    sources=("coco-retrieval", "flickr30k"),
)
