"""ARO's COCO-Order and Flickr30k-Order: a caption against four shuffles of its own words
(Yuksekgonul et al. 2023, after O'Connor and Andreas 2021). The reference shuffles with two global
generators; here one generator, seeded, makes all shuffles of a file in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import spacy
from spacy.language import Language

from cae_lib.data import rows
from cae_lib.data.benchmarks.base import Choice
from cae_lib.data.benchmarks.read import MALFORMED, Collector
from cae_lib.words.pipeline import model_name

NOUNS = frozenset(("NN", "NNS", "NNP", "NNPS"))
ADJECTIVES = frozenset(("JJ", "JJR", "JJS"))
MAX_WORDS = 30


class TaggedWords(NamedTuple):
    """Words of a caption and their Penn Treebank tags, in order."""

    words: Sequence[str]
    tags: Sequence[str]


def tag_words(captions: Sequence[str]) -> list[TaggedWords]:
    """Words and tags of captions by spaCy's small English model, the official build if installed;
    ConfigError if no build is."""
    documents = _tagger().pipe(captions, batch_size=256)
    return [TaggedWords([t.text for t in doc], [t.tag_ for t in doc]) for doc in documents]


@cache
def _tagger() -> Language:
    unused = ["parser", "ner", "lemmatizer", "attribute_ruler", "senter"]
    return spacy.load(model_name(), exclude=unused)


def read(
    collector: Collector,
    seed: int = 1,
    tagger: Callable[[Sequence[str]], list[TaggedWords]] = tag_words,
) -> Mapping[str, Any]:
    """Take the Karpathy test captions and make four shuffles of each.

    Texts are (caption, nouns and adjectives shuffled, all other words shuffled, words shuffled
    within trigrams, trigrams shuffled); the headline is the mean over items of the caption being
    first. `counts` tells how many items have a shuffle that equals the caption (`identical`; wrong
    under the strict rule, right under the reference argmax) and how many captions change when their
    words are joined again without any shuffle (`respaced`), a cue that is no order.

    Numbers are those of captions. `seed` is that of the shuffles; `tagger` turns captions into
    words with Penn tags, spaCy's by default. The reference splits the trigrams with NLTK instead;
    here all four shuffles share spaCy's words.
    """
    pictures, captions = [], []
    for key, where, entry in collector.entries():
        try:
            image = collector.picture(rows.text(entry, "image"))
            found = rows.texts(entry, "caption")
        except rows.RowError as error:
            collector.n_rows += 1
            collector.leave_out(MALFORMED, where, str(error))
            continue
        captions += found
        pictures += [(f"{key}/{place}", image) for place in range(len(found))]
    generator = np.random.default_rng(seed)
    usable = [not collector.trouble(image) for _, image in pictures]
    last = max((row for row, used in enumerate(usable) if used), default=-1)
    tagged = tagger(captions[: last + 1])  # also of unused ones: the generator goes on from them
    collector.counts["respaced"] = 0
    for row, ((place, image), caption) in enumerate(zip(pictures, captions, strict=True)):
        texts: tuple[str, ...] = (clean_caption(caption),)
        if row <= last:
            texts += tuple(clean_caption(text) for text in shuffles(tagged[row], generator))
            respaced = clean_caption(" ".join(tagged[row].words)) != texts[0]
            collector.counts["respaced"] += usable[row] and respaced
        collector.add(Choice((image,), texts, 0, collector.subset, place), f"row {place}")
    return {}


def clean_caption(caption: str) -> str:
    """Lower-case, blank the marks `.!"()*#:;~`, collapse spaces, keep the first `MAX_WORDS` words:
    the cleaning that ARO takes from BLIP's retrieval code; other marks, such as commas, stay."""
    return " ".join(re.sub(r"[.!\"()*#:;~]", " ", caption.lower()).split()[:MAX_WORDS])


def shuffles(tagged: TaggedWords, generator: np.random.Generator) -> tuple[str, str, str, str]:
    """Four shuffles of a caption, in the order of the reference; words are joined by spaces. Nouns
    change places with nouns and adjectives with adjectives; all other words change places; words
    change places within each run of three; runs of three change places."""
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
