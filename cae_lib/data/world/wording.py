"""What a caption of the small world states, by the world's own words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cae_lib.data.world.vocabulary import (
    COLORS,
    NOUNS,
    PATTERNS,
    RELATIONS,
    SIZES,
    VAGUE_RELATIONS,
)

ADJECTIVES = frozenset({*COLORS, *SIZES, *PATTERNS})
_PLACE = re.compile(r"\b(on the (left|right)|at the (top|bottom))\b(?! of)")


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    longest = sorted(texts, key=len, reverse=True)
    return re.compile(rf"\b({'|'.join(map(re.escape, longest))})\b")


_RELATION = _any_of(
    [*VAGUE_RELATIONS, *(words for kind in RELATIONS.values() for words in kind.wordings)]
)


def stated(caption: str) -> tuple[int, int, int]:
    """Numbers of objects, attributes and relations; "near" and "with" count as relations.

    A place in the picture ("on the left") is no relation.
    """
    words = caption.split()
    return (
        sum(word in NOUNS for word in words),
        sum(word in ADJECTIVES for word in words),
        len(_RELATION.findall(_PLACE.sub("", caption))),
    )
