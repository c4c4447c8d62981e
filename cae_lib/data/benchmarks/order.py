"""ARO's COCO-Order and Flickr30k-Order: a caption against four shuffles of its own words.

Yuksekgonul et al. 2023. The reference shuffles with two global generators; here one generator,
seeded by an argument, makes all shuffles of a file in order, so that they can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cae_lib.data.benchmarks import files
from cae_lib.data.benchmarks.base import Benchmark, Choice, ImageRef
from cae_lib.data.benchmarks.collect import Collector, Policy, first_existing
from cae_lib.data.benchmarks.shuffles import TaggedWords, clean_caption, shuffles, tag_words
from cae_lib.errors import DataError

NAME = "order"
OFFICIAL = {"coco": 25_010, "flickr30k": 5000}
ANNOTATIONS = {
    "coco": Path("coco", "coco_karpathy_test.json"),
    "flickr30k": Path("flickr30k", "flickr30k_test.json"),
}
IMAGE_FOLDERS = {"coco": ("",), "flickr30k": ("", "flickr30k-images")}
IMAGES_FROM = "COCO's val2014, under coco/, and Flickr30k's flickr30k-images, under flickr30k/"
Tagger = Callable[[Sequence[str]], list[TaggedWords]]


def load(
    root: str | Path,
    *,
    corpora: Sequence[str] | None = None,
    seed: int = 1,
    tagger: Tagger = tag_words,
    expected: Mapping[str, int] | None = None,
    official: bool = False,
    allow_missing: bool = False,
) -> list[Benchmark]:
    """Read the Karpathy test captions and make four shuffles of each, one benchmark a corpus.

    Texts are (caption, nouns and adjectives shuffled, all other words shuffled, words shuffled
    within trigrams, trigrams shuffled); the headline is the mean over items of the caption being
    first. `counts` tells how many items have a shuffle that equals the caption (`identical`;
    wrong under the strict rule, right under the reference argmax) and how many captions change
    when their words are joined again without any shuffle (`respaced`), a cue that is no order.

    Args:
        root: Folder that holds `coco/` and `flickr30k/`, each with its annotation file and
            pictures.
        corpora: `"coco"`, `"flickr30k"`; by default those whose annotation file is there.
        seed: Of the shuffles.
        tagger: Turns captions into words with Penn tags; spaCy's by default. The reference splits
            the trigrams with NLTK instead; here all four shuffles share spaCy's words.
        expected: Number of captions by corpus.
        official: Expect the published numbers of captions.
        allow_missing: Leave out and count what cannot be used instead of raising an error.

    Raises:
        DataError: If a file or picture is missing, or a row is malformed.
    """
    root = Path(root)
    policy = Policy.of(expected, official, OFFICIAL, allow_missing)
    names = corpora or [name for name, path in ANNOTATIONS.items() if (root / path).is_file()]
    if not names:
        places = ", ".join(str(path) for path in ANNOTATIONS.values())
        raise DataError(f"{root}: neither of {places} is there.")
    return [_corpus(root, name, seed, tagger, policy) for name in names]


def _corpus(root: Path, corpus: str, seed: int, tagger: Tagger, policy: Policy) -> Benchmark:
    path = root / ANNOTATIONS[corpus]
    collector = Collector(NAME, corpus, path, policy, IMAGES_FROM)
    captions: list[str] = []
    places: list[tuple[str, Path]] = []
    for number, entry in enumerate(files.read_json(path, list)):
        for position, caption in enumerate(_captions(collector, number, entry)):
            captions.append(caption)
            places.append((f"{number}/{position}", _image(path.parent, corpus, entry)))
    generator = np.random.default_rng(seed)
    for (place, image), caption, words in zip(places, captions, tagger(captions), strict=True):
        true = clean_caption(caption)
        false = tuple(clean_caption(text) for text in shuffles(words, generator))
        collector.counts["identical"] += true in false
        collector.counts["respaced"] += clean_caption(" ".join(words.words)) != true
        collector.add(Choice((ImageRef(image),), (true, *false), 0, corpus, place))
    return collector.finish()


def _captions(collector: Collector, number: int, entry: object) -> list[str]:
    """Captions of one picture; each counts as a row, a malformed picture as one."""
    with collector.row(number):
        files.text(entry, "image")
        captions = files.value(entry, "caption")
        if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            raise files.RowError("field 'caption' is no list of texts")
        collector.n_rows += len(captions) - 1
        return captions
    return []


def _image(folder: Path, corpus: str, entry: object) -> Path:
    name = files.text(entry, "image")
    return first_existing([folder / between / name for between in IMAGE_FOLDERS[corpus]])
