"""Pair photographs of Flickr8k in one image, with phrases that each describe one of them alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from spacy.tokens import Doc, Span

from cae_lib.data.images import read_image
from cae_lib.words.lexicon import NON_DESCRIPTIVE_ADJECTIVES
from cae_lib.words.pipeline import load_pipeline, parse_captions
from cae_lib.words.roles import OBJECT
from data.recipes.layouts import Captioned
from data.recipes.photographs import negatives

# Of an image in pixels, of its JPEG.
SIZE, QUALITY = 224, 90
# The commonest nouns that captions start with, and those of `coloured` phrases.
NOUNS, THINGS = 40, 16
# What the parser makes of "a dog leaps".
NO_THINGS = ("bunch", "leap", "race")
# Words of a noun phrase.
LENGTH = (2, 4)
# Adjectives of one scale in different groups cannot both be true of one thing.
SCALES = (
    (
        ("black",),
        ("white",),
        ("grey", "gray"),
        ("brown", "tan", "yellow", "golden", "orange"),
        ("red", "pink"),
        ("blue", "purple"),
        ("green",),
    ),
    (("young", "little", "small"), ("old", "older", "elderly")),
    (("small", "little"), ("large", "big")),
)
ADJECTIVES = frozenset(word for scale in SCALES for group in scale for word in group)


class Phrase(NamedTuple):
    """A noun phrase in lower case, with the lemma of its head noun.

    `adjective` is its only adjective, if that is one of `ADJECTIVES`; else "".
    """

    text: str
    noun: str
    adjective: str = ""

    def with_adjective(self, other: str) -> str:
        """Return the text with another adjective."""
        start = self.text.index(self.adjective)
        word = negatives.Word(start, start + len(self.adjective), self.adjective, 0, "")
        return negatives.replaced(self.text, word, other)


@dataclass(frozen=True)
class Photograph:
    """A photograph.

    Attributes:
        leading_noun_phrases: Phrases that its captions start with.
        coloured: Phrases that consist of "a", an adjective of `SCALES` and a noun.
        lemmas: Lemmas of all words of its captions.
    """

    number: int
    path: Path
    leading_noun_phrases: tuple[Phrase, ...]
    coloured: tuple[Phrase, ...]
    lemmas: frozenset[str]


class Pair(NamedTuple):
    """Two phrases, and the photographs that they describe."""

    a: Phrase
    p: Photograph
    b: Phrase
    q: Photograph

    @property
    def texts(self) -> tuple[str, str]:
        """The texts of the phrases."""
        return self.a.text, self.b.text

    @property
    def reversed(self) -> Pair:
        """The pair with the second photograph first."""
        return Pair(self.b, self.q, self.a, self.p)

    def swapped(self) -> tuple[str, str] | None:
        """Return the phrases with their adjectives swapped, if both are then false; else None."""
        if not contradict(self.a.adjective, self.b.adjective):
            return None
        # Another person may have used the other adjective of this photograph.
        if self.b.adjective in self.p.lemmas or self.a.adjective in self.q.lemmas:
            return None
        return (self.a.with_adjective(self.b.adjective), self.b.with_adjective(self.a.adjective))


class Composite(NamedTuple):
    """An image of a pair: the first photograph left of the second, or above it if `upright`."""

    pair: Pair
    upright: bool

    @property
    def name(self) -> str:
        """Name of the file."""
        relation = "above" if self.upright else "left"
        return f"{self.pair.p.number}_{relation}_{self.pair.q.number}.jpg"

    @property
    def relations(self) -> tuple[str, str]:
        """The two relations that hold: of the first photograph, and of the second one."""
        return ("above", "below") if self.upright else ("left", "right")

    def write(self, path: Path) -> None:
        """Write the image."""
        width, height = half = (SIZE, SIZE // 2) if self.upright else (SIZE // 2, SIZE)
        whole = Image.new("RGB", (SIZE, SIZE))
        corners = {(0, 0): self.pair.p, (SIZE - width, SIZE - height): self.pair.q}
        for corner, photograph in corners.items():
            image = read_image(photograph.path)
            whole.paste(image.resize(half, Image.Resampling.BICUBIC), corner)
        whole.save(path, quality=QUALITY)


def contradict(a: str, b: str) -> bool:
    """Return whether two adjectives cannot both be true of one thing."""
    for scale in SCALES:
        first, second = ([n for n, group in enumerate(scale) if word in group] for word in (a, b))
        if first and second and first != second:
            return True
    return False


def photographs(images: Sequence[Captioned], folder: Path) -> list[Photograph]:
    """Return the photographs of a split, in `folder`, by spaCy's parse of their captions."""
    nlp = load_pipeline()
    parsed = iter(parse_captions(nlp, [text for p in images for text in p.captions], _read))
    parsed_images = []
    for image in images:
        leading, coloured, lemmas = zip(*(next(parsed) for _ in image.captions), strict=True)
        phrases = [
            tuple(dict.fromkeys(p for some in lists for p in some)) for lists in (leading, coloured)
        ]
        path = folder / image.path
        parsed_images.append(Photograph(image.number, path, *phrases, frozenset().union(*lemmas)))
    return parsed_images


def _read(doc: Doc) -> tuple[list[Phrase], list[Phrase], set[str]]:
    """Return the phrase that a caption starts with, its `coloured` phrases, and all its lemmas."""
    # None for phrases that do not fit, so that the first one stays the one at the start.
    phrases = list(map(_phrase, doc.noun_chunks))
    coloured = [
        p
        for p in phrases
        if p
        and p.adjective
        and p.text in (f"a {p.adjective} {p.noun}", f"an {p.adjective} {p.noun}")
        # People also write "a orange ball", which a swap would correct and so give away.
        and p.text == p.with_adjective(p.adjective)
    ]
    return [p for p in phrases[:1] if p], coloured, {token.lemma_.lower() for token in doc}


def _phrase(chunk: Span) -> Phrase | None:
    """Return a noun phrase of a fitting length without an owner ("his dog"), else None."""
    adjectives = [
        t.lower_ for t in chunk if t.pos_ == "ADJ" and t.lower_ not in NON_DESCRIPTIVE_ADJECTIVES
    ]
    only = adjectives[0] if len(adjectives) == 1 and adjectives[0] in ADJECTIVES else ""
    phrase = Phrase(chunk.text.lower(), chunk.root.lemma_.lower(), only)
    owned = any(token.tag_ in ("PRP$", "POS") for token in chunk)
    fits = LENGTH[0] <= len(chunk) <= LENGTH[1] and phrase.noun not in NO_THINGS
    return phrase if fits and not owned else None


class Nouns:
    """The commonest nouns of photographs: their counts, and which may be said of one thing."""

    def __init__(self, photographs: Sequence[Photograph]) -> None:
        phrases = [
            (p.number, phrase.noun) for p in photographs for phrase in p.leading_noun_phrases
        ]
        self.counts = dict(Counter(noun for _, noun in phrases).most_common(NOUNS))
        coloured = Counter(phrase.noun for p in photographs for phrase in p.coloured)
        self.described = {noun for noun, _ in coloured.most_common(THINGS)}
        # Each phrase counts as a caption: `may_cooccur` then compares what people call one thing.
        words = [[negatives.Word(0, 0, noun, OBJECT, "")] for _, noun in phrases]
        self._vocabulary = negatives.Vocabulary(words, [number for number, _ in phrases])

    def are_disjoint(self, pair: Pair) -> bool:
        """Return whether each phrase describes its own photograph alone."""
        a, p, b, q = pair
        word = negatives.Word(0, 0, a.noun, OBJECT, "")
        return not (
            a.noun == b.noun
            or a.noun in q.lemmas
            or b.noun in p.lemmas
            or self._vocabulary.may_cooccur(word, b.noun)
        )

    def draw(
        self, photographs: Sequence[Photograph], n: int, rng: np.random.Generator
    ) -> list[Pair]:
        """Draw `n` pairs of phrases that `are_disjoint`, or fewer if the draws yield no more."""
        phrases = [
            (phrase, p)
            for p in photographs
            for phrase in p.leading_noun_phrases
            if phrase.noun in self.counts
        ]
        # Otherwise most pairs would have the few commonest nouns.
        shares = np.array([self.counts[phrase.noun] ** -0.5 for phrase, _ in phrases])
        pairs: dict[tuple[int, int], Pair] = {}
        for first, second in rng.choice(len(phrases), (20 * n, 2), p=shares / shares.sum()):
            pair = Pair(*phrases[first], *phrases[second])
            if self.are_disjoint(pair):
                # Two photographs make one image at most.
                pairs.setdefault((pair.p.number, pair.q.number), pair)
            if len(pairs) == n:
                break
        return list(pairs.values())


def quadruples(
    photographs: Sequence[Photograph], nouns: Iterable[str], n: int, rng: np.random.Generator
) -> list[tuple[Pair, Pair]]:
    """Return at most `n` pairs with their mirrors.

    They have two nouns, two adjectives that contradict each other, and four photographs, one of
    each noun with each adjective.
    """
    of: dict[tuple[str, str], list[tuple[Phrase, Photograph]]] = defaultdict(list)
    for photograph in photographs:
        for phrase in photograph.coloured:
            of[phrase.noun, phrase.adjective].append((phrase, photograph))
    adjectives = sorted({adjective for _, adjective in of})
    fitting: list[tuple[Pair, Pair]] = []
    for noun, other in combinations(sorted(nouns), 2):
        for a, b in combinations(adjectives, 2):
            four = [of[noun, a], of[other, b], of[noun, b], of[other, a]]
            if not (contradict(a, b) and all(four)):
                continue
            drawn = zip(*(negatives.shuffled(some, rng) for some in four), strict=False)
            fitting += [
                pairs
                for pairs in ((Pair(*p, *q), Pair(*r, *s)) for p, q, r, s in drawn)
                if all(pair.swapped() for pair in pairs)
                and len({x.number for pair in pairs for x in (pair.p, pair.q)}) == 4
            ]
    return negatives.shuffled(fitting, rng)[:n]
