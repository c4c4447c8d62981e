"""Make hard negatives of photographs: replace a word by one of its role, or swap two parts.

A hard negative has to be English and false, and text alone must not tell it from the truth. So a
word is replaced by one of its role and form that people do not use of such an image (`Vocabulary`),
and negatives are chosen so that a language model ranks the truth at random among them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np
from spacy.tokens import Doc

from cae_lib.data.negatives import meaning_changing_swaps
from cae_lib.words.articles import indefinite_article
from cae_lib.words.dependency import DependencyTagger
from cae_lib.words.pipeline import load_pipeline, parse_captions
from cae_lib.words.roles import ATTRIBUTE, OBJECT, RELATION

# Words that are tried in a word's place.
DRAWS = 60
# Two words that describe one image so much more often than by chance may be true of one thing.
TOGETHER = 1.5
# As SugarCrepe's files name roles.
ROLES = {"obj": OBJECT, "att": ATTRIBUTE, "rel": RELATION}
T = TypeVar("T")


@dataclass(frozen=True)
class Word:
    """A word with a role, in lower case; `form` is spaCy's tag, and `end` is exclusive."""

    start: int
    end: int
    text: str
    role: int
    form: str


def words_of(captions: Sequence[str]) -> list[list[Word]]:
    """Return the words of captions that have a role, by the dependency parser."""
    nlp = load_pipeline()
    # A span of several words, such as "runs across", has the form of its last word.
    forms = parse_captions(nlp, captions, lambda doc: {t.idx + len(t): t.tag_ for t in doc})
    spans = DependencyTagger().tag(captions)
    return [
        [
            Word(s.start, s.end, text[s.start : s.end].lower(), s.role, form.get(s.end, ""))
            for s in caption_spans
        ]
        for text, caption_spans, form in zip(captions, spans, forms, strict=True)
    ]


@dataclass(frozen=True)
class ParsedCaption:
    """A caption with its words; `others` are the words of all captions of its image."""

    text: str
    words: Sequence[Word]
    others: Sequence[Sequence[Word]]


class Vocabulary:
    """The words of captions by role and form, and which of them are said of the same image.

    `words` are those of each caption, from `words_of`, and `images` the image of each caption.
    """

    def __init__(self, words: Sequence[Sequence[Word]], images: Sequence[int]) -> None:
        forms: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
        by_image: dict[int, list[set[tuple[int, str]]]] = defaultdict(list)
        for caption, image in zip(words, images, strict=True):
            for word in caption:
                forms[word.role, word.form][word.text] += 1
            by_image[image].append({(word.role, word.text) for word in caption})
        self._single: Counter[tuple[int, str]] = Counter()
        self._both: Counter[tuple[int, str, str]] = Counter()
        for captions in by_image.values():
            # One caption can name two things; in two captions, people may name the same one.
            for first, second in permutations(captions, 2):
                self._single.update(second)
                self._both.update(
                    (role, a, b)
                    for role, a in first
                    for other, b in second
                    if role == other and a != b
                )
        self._pairs = sum(len(c) * (len(c) - 1) for c in by_image.values())
        self._shares = {
            form: (list(counts), np.array(list(counts.values())) / counts.total())
            for form, counts in forms.items()
        }

    def draw(self, word: Word, rng: np.random.Generator, n: int) -> list[str]:
        """Draw up to `n` different words of the role and form of `word`, by their frequency."""
        texts, shares = self._shares.get((word.role, word.form), ([], np.array([])))
        n = min(n, len(texts))
        return [texts[i] for i in rng.choice(len(texts), n, replace=False, p=shares)] if n else []

    def may_cooccur(self, word: Word, other: str) -> bool:
        """Return whether people call a thing both `word` and `other` more often than by chance."""
        # `both` counts both orders, hence the 2. Products stand for quotients, as counts can be 0.
        both = self._both[word.role, word.text, other] + self._both[word.role, other, word.text]
        alone = self._single[word.role, word.text] * self._single[word.role, other]
        return both * self._pairs > 2 * TOGETHER * alone

    def replacements(
        self, caption: ParsedCaption, rng: np.random.Generator, role: int | None = None
    ) -> list[str]:
        """Return a caption with one of its words (of a role) replaced, in random order."""
        # Parts count, too: where a rowing boat is named, a boat may be true.
        present = {word.text for words in caption.others for word in words}
        stems = set(map(_stem, present.union(*map(str.split, present))))
        return shuffled(
            [
                replaced(caption.text, word, text)
                for word in caption.words
                if role in (None, word.role)
                for text in self.draw(word, rng, DRAWS)
                if _stem(text) not in stems and not self.may_cooccur(word, text)
            ],
            rng,
        )

    def additions(self, caption: ParsedCaption, rng: np.random.Generator) -> dict[str, list[str]]:
        """Return a caption with an attribute ("att") or a thing ("obj") added, in random order."""
        present = [word for words in caption.others for word in words]
        stems = {_stem(part) for word in present for part in word.text.split()}
        # Attributes directly before their thing, in any caption of the image: an attribute is only
        # added where people gave the thing another one, so that it is false.
        described = {
            (a, thing.text)
            for words in caption.others
            for a in words
            for thing in words
            if (a.role, thing.role) == (ATTRIBUTE, OBJECT) and a.end + 1 == thing.start
        }
        things = [word for word in present if word.role == OBJECT]

        def different(word: Word, against: Sequence[Word]) -> list[str]:
            return [
                text
                for text in self.draw(word, rng, DRAWS)
                if _stem(text) not in stems
                and not any(self.may_cooccur(other, text) for other in against)
            ]

        attributes = [
            replaced(caption.text, word, f"{text} {word.text}")
            for word in caption.words
            if word.role == OBJECT and re.search(r"\b([Aa]|[Tt]he) $", caption.text[: word.start])
            for attribute, thing in sorted(described, key=str)
            if thing == word.text and attribute.form == "JJ"
            for text in different(attribute, [attribute])
        ]
        # The thing is added at the end, before the full stop, and none of the captions names it.
        stop = "." if caption.text.endswith(".") else ""
        single = next((word for word in things if word.form == "NN"), None)
        objects = [
            f"{caption.text.removesuffix('.')} with {indefinite_article(text)} {text}{stop}"
            for text in (different(single, things) if single else ())
        ]
        return {"att": shuffled(attributes, rng), "obj": shuffled(objects, rng)}


def shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    """Return the items in random order."""
    return [items[i] for i in rng.permutation(len(items))]


def replaced(caption: str, word: Word, text: str) -> str:
    """Replace a word of a caption, and correct "a" or "an" before it, and its capital."""
    before, after = caption[: word.start], caption[word.end :]
    article = re.search(r"\b(a|an)(\s+)$", before, re.IGNORECASE)
    if article:
        right = indefinite_article(text)
        right = right.capitalize() if article[1][0].isupper() else right
        before = before[: article.start(1)] + right + article[2]
    if not before.strip() and caption[word.start].isupper():
        text = text.capitalize()
    return before + text + after


def swaps(captions: Sequence[str]) -> list[dict[str, list[str]]]:
    """Return each caption with two adjectives ("att"), or two nouns or phrases ("obj"), swapped."""

    def read(doc: Doc) -> dict[str, list[str]]:
        swapped: dict[str, list[str]] = {"att": [], "obj": []}
        for kind, text in meaning_changing_swaps(doc):
            swapped["att" if kind == "adjective" else "obj"].append(text)
        return swapped

    return list(parse_captions(load_pipeline(), captions, read))


def choose_negatives(
    truth: str,
    negatives: Iterable[str],
    language: Callable[[str], float],
    rng: np.random.Generator,
    n: int = 1,
) -> list[str]:
    """Return `n` hard negatives, or none, among which `language` ranks the truth at random.

    `language` gives the log likelihood of a text; `negatives` are tried in order.
    """
    # The rank of the truth is drawn first: so many negatives have to be likelier than it.
    likelier = int(rng.integers(n + 1))
    threshold = language(truth)
    above: list[str] = []
    below: list[str] = []
    for negative in dict.fromkeys(negatives):
        is_likelier = language(negative) > threshold
        group, needed = (above, likelier) if is_likelier else (below, n - likelier)
        if len(group) < needed:
            group.append(negative)
        if len(above) == likelier and len(below) == n - likelier:
            return above + below
    return []


def _stem(word: str) -> str:
    """Return a crude stem, so that "dogs" does not count as a new word beside "dog"."""
    return re.sub(r"(ing|ed|es|s)$", "", word)
