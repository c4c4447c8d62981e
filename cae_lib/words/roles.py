"""Roles of words in a caption, the character spans that carry them, and what can be swapped."""

from __future__ import annotations

from dataclasses import dataclass, field

OTHER, OBJECT, ATTRIBUTE, RELATION = range(4)
ROLE_NAMES = ("other", "object", "attribute", "relation")

Place = tuple[int, int]
"""The characters `start` to `end` (exclusive) of a caption; (0, 0) stands nowhere."""

NOWHERE: Place = (0, 0)


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a caption, with their role. `of` are the places of
    the objects that they are said of, if they are known: of a relation its subject and its object,
    of an attribute what bears it; the place (0, 0) stands nowhere."""

    start: int
    end: int
    role: int
    of: tuple[Place, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Swap:
    """Two parts of a caption that change places, which makes false what a word says of them.

    Attributes:
        nouns: The two arguments of a relation as nouns alone, the earlier one first; `NOWHERE`
            twice if swapping them leaves no grammatical caption. Of two attributes their words.
        phrases: The same arguments as whole noun phrases, with articles and attributes.
        binder: The words that say the relation; `NOWHERE` for two attributes, which are what binds.
    """

    nouns: tuple[Place, Place]
    phrases: tuple[Place, Place]
    binder: Place = NOWHERE

    @property
    def moves(self) -> tuple[tuple[Place, Place], ...]:
        """The pairs of places that may be swapped: nouns, phrases, or both."""
        return tuple(
            pair for pair in dict.fromkeys((self.nouns, self.phrases)) if NOWHERE not in pair
        )


def swap_places(caption: str, first: Place, second: Place) -> str:
    """Return a caption with two places swapped, the earlier one first; "a" and "an" as they are."""
    (a, b), (c, d) = first, second
    return caption[:a] + caption[c:d] + caption[b:c] + caption[a:b] + caption[d:]
