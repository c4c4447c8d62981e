"""Define the roles of words in a caption, the character spans that have them, and swaps."""

from __future__ import annotations

from dataclasses import dataclass, field

OTHER, OBJECT, ATTRIBUTE, RELATION = range(4)
ROLE_NAMES = ("other", "object", "attribute", "relation")

Place = tuple[int, int]
"""The characters `start` to `end` (exclusive) of a caption; (0, 0) stands nowhere."""

NOWHERE: Place = (0, 0)


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` (exclusive) of a caption, with their role.

    Attributes:
        start: First character.
        end: End of the characters, exclusive.
        role: Role, one of `OTHER`, `OBJECT`, `ATTRIBUTE` and `RELATION`.
        of: Places of the objects that the span describes, if they are known: for a relation its
            subject and its object, for an attribute the object that has it. `NOWHERE` stands for an
            object that the caption does not name. Spans that differ in `of` alone are equal.
    """

    start: int
    end: int
    role: int
    of: tuple[Place, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Swap:
    """A swap of two parts of a caption, which makes false what a word says of them.

    Attributes:
        nouns: The two arguments of a relation as nouns alone, the earlier one first; `NOWHERE`
            twice if swapping them leaves no grammatical caption. For two attributes, their words.
        phrases: The same arguments as whole noun phrases, with articles and attributes.
        binder: The words that state the relation; `NOWHERE` for two attributes, which bind
            themselves.
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
    """Return a caption with two places swapped, the earlier one given first.

    The articles "a" and "an" stay unchanged.
    """
    (a, b), (c, d) = first, second
    return caption[:a] + caption[c:d] + caption[b:c] + caption[a:b] + caption[d:]
