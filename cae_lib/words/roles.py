"""Define the roles of words, the spans of a caption that have a role, and swaps of its parts."""

from __future__ import annotations

from dataclasses import dataclass, field

OTHER, OBJECT, ATTRIBUTE, RELATION = range(4)
ROLE_NAMES = ("other", "object", "attribute", "relation")

Offsets = tuple[int, int]  # (start, end) of characters in a caption, end exclusive
NO_OFFSETS: Offsets = (0, 0)  # no characters


@dataclass(frozen=True)
class Span:
    """A range of characters in a caption, with its role.

    Attributes:
        start: Offset of the first character.
        end: Offset after the last character.
        role: One of `OTHER`, `OBJECT`, `ATTRIBUTE` and `RELATION`.
        arguments: Character offsets of the words that the span relates or describes. For a
            relation, these are its two arguments (subject and object); for an attribute, the object
            that it describes. Empty if they are not known; `NO_OFFSETS` stands for an argument that
            the tagger does not find in the caption. Two spans that differ only in `arguments` are
            equal (`==`).
    """

    start: int
    end: int
    role: int
    # Not compared, so that a word that `SceneGraphTagger` finds twice at one place stays one span.
    arguments: tuple[Offsets, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Swap:
    """Two parts of a caption; swapping them makes a relation or two attributes false.

    All parts are given by their character offsets, the earlier of two parts first.

    Attributes:
        nouns: The two arguments of a relation as nouns alone, or two attributes; `NO_OFFSETS` twice
            if swapping them would be ungrammatical or change nothing.
        phrases: The two arguments of a relation as whole noun phrases, with articles and
            attributes; `NO_OFFSETS` twice if swapping them would be ungrammatical or change
            nothing. For two attributes, `phrases` equals `nouns`.
        binder: The words that state the relation; `NO_OFFSETS` if two attributes are swapped.
    """

    nouns: tuple[Offsets, Offsets]
    phrases: tuple[Offsets, Offsets]
    binder: Offsets = NO_OFFSETS

    @property
    def allowed_pairs(self) -> tuple[tuple[Offsets, Offsets], ...]:
        """The distinct pairs of parts that may be swapped: nouns, phrases, both or none."""
        # Distinct, because nouns and phrases are equal for attributes and for bare nouns.
        return tuple(
            pair for pair in dict.fromkeys((self.nouns, self.phrases)) if NO_OFFSETS not in pair
        )


def swap_substrings(caption: str, first: Offsets, second: Offsets) -> str:
    """Return a caption in which two substrings are swapped, the earlier one given first.

    Articles are not adapted ("a" to "an" or the reverse).
    """
    (a, b), (c, d) = first, second
    return caption[:a] + caption[c:d] + caption[b:c] + caption[a:b] + caption[d:]
