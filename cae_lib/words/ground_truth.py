"""Taggers for captions whose roles and swaps are known by construction, without a parser.

A caption in which one of the swaps is made is false for the image of the original caption.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError
from cae_lib.words.lexicon import DETERMINERS, QUANTIFIERS, are_contradictory
from cae_lib.words.roles import ATTRIBUTE, NO_OFFSETS, OBJECT, RELATION, Offsets, Span, Swap
from cae_lib.words.versions import GROUND_TRUTH_VERSION

# An article, or "no", at the end of the text before a noun phrase.
TRAILING_ARTICLE = re.compile(r"\b(a|an|the|no) $")

PAIRED_CAPTION = re.compile(r"(.+?) (to the (left|right) of|above|below) (.+)")
# The nouns of the paired photographs that the rule "ends in s" would get wrong.
IRREGULAR_PLURALS = frozenset("children men people women".split())
SINGULARS_ENDING_IN_S = frozenset("dress".split())

# Words before the head noun that are no attributes; "thie" is a misspelling in the captions.
NOT_ADJECTIVES = DETERMINERS | frozenset("and this these thie very brightly warmly well".split())

# Words before the head noun of a paired photograph's phrase that form a compound with it. All 187
# words that occur in these phrases were reviewed; the others are attributes, except for
# `NOT_ADJECTIVES`.
NOUN_MODIFIERS = frozenset(
    "atv baby ball baseball basketball bay beagle bernard bicycle bike bmw bmx boy camera cricket "
    "dirt field football frisbee german girl grayhound greenbay greyhound hockey horse horseback "
    "ice lab man momma mother motocross motor motorcycle mountain packer pitbull player poodle pug "
    "race rally rock rugby school shepherd skateboard skater slalom smu snow soccer sooners speed "
    "sports st tag teen tennis toddler water woman".split()
)


class SyntheticSceneTagger:
    """Tagger that reads the stored scene graphs of captions of the synthetic scenes.

    `file_pairs` are JSON files of captions, each with that of their scene graphs in the same order.
    """

    def __init__(self, file_pairs: Iterable[tuple[Path, Path]]) -> None:
        self._entries: dict[str, Mapping[str, Any]] = {}
        for captions, graphs in file_pairs:
            try:
                texts = json.loads(captions.read_text(encoding="utf-8"))["annotations"]
                entries = json.loads(graphs.read_text(encoding="utf-8"))["annotations"]
                for text, entry in zip(texts, entries, strict=True):
                    # Of a caption that occurs several times, the first scene graph counts.
                    self._entries.setdefault(text["caption"], entry)
            except (OSError, ValueError, KeyError) as error:
                raise DataError(
                    f"{captions} and {graphs}: no captions with their scene graphs ({error!r}); "
                    "build the synthetic scenes anew."
                ) from error
        # With a digest, so that roles stored for other scenes are not taken for these.
        self.identity = f"scene graphs {GROUND_TRUTH_VERSION} {_digest(self._entries)}"

    def tag(self, captions: Sequence[str]) -> list[list[Span]]:
        """Return the spans of each caption, as its scene graph states them, without `arguments`."""
        return [self._spans(self._entry(caption)) for caption in captions]

    def tag_with_swaps(self, captions: Sequence[str]) -> list[tuple[list[Span], list[Swap]]]:
        """Return the spans and swaps of each caption."""
        entries = [self._entry(caption) for caption in captions]
        return [
            (self._spans(entry), _scene_swaps(caption, entry))
            for caption, entry in zip(captions, entries, strict=True)
        ]

    def _entry(self, caption: str) -> Mapping[str, Any]:
        if caption not in self._entries:
            raise DataError(
                f"no scene graph of the caption {caption!r}: tagger 'truth' knows the captions "
                "that the synthetic scenes were built with."
            )
        return self._entries[caption]

    def _spans(self, entry: Mapping[str, Any]) -> list[Span]:
        return [Span(*span) for span in entry["spans"]]


def _digest(entries: Mapping[str, Any]) -> str:
    content = json.dumps(entries, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _scene_swaps(caption: str, entry: Mapping[str, Any]) -> list[Swap]:
    """Return the swap of a stated relation's arguments, if any, then the swaps of attributes."""
    nouns: list[Offsets] = []
    phrases: list[Offsets] = []
    # Each with the number of the object that it describes.
    attributes: list[tuple[Offsets, int]] = []
    relation: list[Offsets] = []
    # The spans stand in the order of the caption, so an attribute describes the next noun.
    for start, end, role in entry["spans"]:
        if role == ATTRIBUTE:
            attributes.append(((start, end), len(nouns)))
        elif role == OBJECT:
            starts = [bounds[0] for bounds, thing in attributes if thing == len(nouns)]
            first = min([*starts, start])
            article = TRAILING_ARTICLE.search(caption[:first])
            nouns.append((start, end))
            phrases.append((article.start() if article else first, end))
        # Only between the first two objects; "right of" has two spans.
        elif len(nouns) == 1:
            relation.append((start, end))
    swaps = []
    # "with" has the role of a relation, but states none that a swap could make false.
    if entry["relations"]:
        binder = relation[0][0], relation[-1][1]
        swaps.append(Swap((nouns[0], nouns[1]), (phrases[0], phrases[1]), binder))
    return [*swaps, *_attribute_swaps(caption, attributes)]


def _attribute_swaps(caption: str, attributes: Sequence[tuple[Offsets, int]]) -> list[Swap]:
    return [
        Swap((first, second), (first, second))
        for (first, thing), (second, other) in combinations(attributes, 2)
        if thing != other and are_contradictory(caption[slice(*first)], caption[slice(*second)])
    ]


class PairedImageTagger:
    """Tagger for captions of the paired photographs, which have the form "PHRASE RELATION PHRASE".

    Each phrase is a noun phrase that is true of one of the two photographs and false of the other.
    """

    identity = f"paired phrases {GROUND_TRUTH_VERSION}"

    def tag(self, captions: Sequence[str]) -> list[list[Span]]:
        """Return the spans of each caption, with their `arguments`."""
        return [spans for spans, _ in self.tag_with_swaps(captions)]

    def tag_with_swaps(self, captions: Sequence[str]) -> list[tuple[list[Span], list[Swap]]]:
        """Return the spans and swaps of each caption; attributes and relations have `arguments`."""
        return [_read_paired(caption) for caption in captions]


def _read_paired(caption: str) -> tuple[list[Span], list[Swap]]:
    match = PAIRED_CAPTION.fullmatch(caption)
    if match is None:
        raise DataError(
            f"the caption {caption!r} is none of the paired photographs, which tagger 'truth' "
            "reads: expected 'PHRASE to the left of PHRASE', or right, above or below."
        )
    phrases = match.span(1), match.span(4)
    words = [_words(caption, *phrase) for phrase in phrases]
    nouns = _noun(caption, words[0]), _noun(caption, words[1])
    # Of "to the left of", the relation's span covers "left" alone, as in the synthetic scenes; the
    # binder of the swap covers all four words.
    side = match.span(3) if match[3] else match.span(2)
    # Each with the number of its noun.
    attributes = [
        (word, number)
        for number, phrase_words in enumerate(words)
        for word in phrase_words
        if word[1] <= nouns[number][0] and caption[slice(*word)].lower() not in NOT_ADJECTIVES
    ]
    spans = [
        *(Span(*noun, OBJECT) for noun in nouns),
        *(Span(*word, ATTRIBUTE, (nouns[number],)) for word, number in attributes),
        Span(*side, RELATION, nouns),
    ]
    texts = [caption[slice(*phrase)] for phrase in phrases]
    swap = Swap(
        nouns if _can_swap_nouns(*texts) else (NO_OFFSETS, NO_OFFSETS), phrases, match.span(2)
    )
    return spans, [swap, *_attribute_swaps(caption, attributes)]


def _words(caption: str, start: int, end: int) -> list[Offsets]:
    return [
        (start + match.start(), start + match.end())
        for match in re.finditer(r"\S+", caption[start:end])
    ]


def _noun(caption: str, words: Sequence[Offsets]) -> Offsets:
    """Return the offsets of the head noun, which is the last word, with its compound modifiers."""
    first = len(words) - 1
    while first > 0 and caption[slice(*words[first - 1])].lower() in NOUN_MODIFIERS:
        first -= 1
    return words[first][0], words[-1][1]


def _can_swap_nouns(first: str, second: str) -> bool:
    """Return whether the nouns of two phrases can be swapped without an error of grammar."""
    plurals = [_is_plural(text.split()[-1].lower()) for text in (first, second)]
    determined = [text.split()[0].lower() in DETERMINERS | QUANTIFIERS for text in (first, second)]
    # Plurals do without a determiner, so only singulars have to agree in it.
    return plurals[0] == plurals[1] and (plurals[0] or determined[0] == determined[1])


def _is_plural(noun: str) -> bool:
    return noun in IRREGULAR_PLURALS or noun.endswith("s") and noun not in SINGULARS_ENDING_IN_S
