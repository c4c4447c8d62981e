"""The four word shuffles of ARO's order sets, and the caption cleaning that goes with them.

Yuksekgonul et al. 2023, after O'Connor and Andreas 2021.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import spacy
from spacy.language import Language

from cae_lib.words.pipeline import model_name

NOUNS = frozenset(("NN", "NNS", "NNP", "NNPS"))
ADJECTIVES = frozenset(("JJ", "JJR", "JJS"))
MAX_WORDS = 30


@dataclass(frozen=True)
class TaggedWords:
    """Words of a caption and their Penn Treebank tags, in order."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


def clean_caption(caption: str, max_words: int = MAX_WORDS) -> str:
    """Lower-case, blank the marks `.!"()*#:;~`, collapse spaces, keep the first `max_words` words.

    The cleaning that ARO takes from BLIP's retrieval code; other marks, such as commas, stay.
    """
    words = re.sub(r"[.!\"()*#:;~]", " ", caption.lower()).split()
    return " ".join(words[:max_words])


def tag_words(captions: Sequence[str]) -> list[TaggedWords]:
    """Words and tags of captions by spaCy's small English model, the official build if installed.

    Raises:
        ConfigError: If no build of the model is installed.
    """
    documents = _tagger().pipe(captions, batch_size=256)
    return [
        TaggedWords(tuple(token.text for token in doc), tuple(token.tag_ for token in doc))
        for doc in documents
    ]


@cache
def _tagger() -> Language:
    unused = ["parser", "ner", "lemmatizer", "attribute_ruler", "senter"]
    return spacy.load(model_name(), exclude=unused)


def shuffles(tagged: TaggedWords, generator: np.random.Generator) -> tuple[str, str, str, str]:
    """Four shuffles of a caption, in the order of the reference.

    Nouns change places with nouns and adjectives with adjectives; all other words change places;
    words change places within each run of three; runs of three change places.

    Args:
        tagged: The caption's words and tags.
        generator: Source of all randomness; called in this order.

    Returns:
        The shuffled words, each time joined by spaces.
    """
    words, tags = np.array(tagged.words, dtype=object), tagged.tags
    nouns = np.array([tag in NOUNS for tag in tags], dtype=bool)
    adjectives = np.array([tag in ADJECTIVES for tag in tags], dtype=bool)
    content = _permute(_permute(words, nouns, generator), adjectives, generator)
    rest = _permute(words, ~(nouns | adjectives), generator)
    trigrams = [words[start : start + 3] for start in range(0, len(words), 3)]
    within = [generator.permutation(trigram) for trigram in trigrams]
    across = [trigrams[place] for place in generator.permutation(len(trigrams))]
    return _join([content]), _join([rest]), _join(within), _join(across)


def _permute(words: np.ndarray, chosen: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    result = words.copy()
    result[chosen] = generator.permutation(words[chosen])
    return result


def _join(runs: Sequence[np.ndarray]) -> str:
    return " ".join(word for run in runs for word in run)
