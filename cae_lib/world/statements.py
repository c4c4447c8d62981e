"""A text about a scene in parts, and whether anybody could take it for true.

A relation that is not drawn may still be read into the picture: a thing on another is also above
it. Every doubt counts as "may hold": a foil is a text that nobody could take for true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cae_lib.world.layout import Placement
from cae_lib.world.scenes import Content, Scene, Thing
from cae_lib.world.vocabulary import ADJECTIVES, KIND_OF, RELATIONS

CLEAR = 0.02  # differences of position below this share of the picture's side show nothing
NEAR = 0.03  # things whose squares are closer than this may be in contact
KINDS = tuple(ADJECTIVES)


@dataclass(frozen=True)
class Mention:
    """A noun phrase. `article` None means "a" or "an", as the next word asks; "no" denies it."""

    noun: str
    attributes: tuple[str, ...] = ()
    article: str | None = None

    @cached_property
    def text(self) -> str:
        """The phrase, its adjectives in their order in English."""
        ordered = sorted(self.attributes, key=lambda word: KINDS.index(KIND_OF[word]))
        words = " ".join((*ordered, self.noun))
        return f"{self.article or ('an' if words[0] in 'aeiou' else 'a')} {words}"


@dataclass(frozen=True)
class Statement:
    """Noun phrases with the words before, between and after them.

    `relation` is the name of the relation of the first mention to the second, if one is stated.
    """

    mentions: tuple[Mention, ...]
    pieces: tuple[str, ...]
    relation: str | None = None

    @cached_property
    def text(self) -> str:
        """The whole text."""
        parts = [self.pieces[0]]
        for mention, piece in zip(self.mentions, self.pieces[1:], strict=True):
            parts += [mention.text, piece]
        return " ".join(filter(None, parts))

    def changed(self, index: int, **changes: str | tuple[str, ...] | None) -> Statement:
        """The statement with fields of one noun phrase replaced."""
        mentions = list(self.mentions)
        mentions[index] = replace(mentions[index], **changes)
        return replace(self, mentions=tuple(mentions))

    def with_piece(self, index: int, words: str) -> Statement:
        """The statement with the words before noun phrase `index` replaced."""
        return replace(self, pieces=(*self.pieces[:index], words, *self.pieces[index + 1 :]))

    def may_be_true(self, scene: Scene) -> bool:
        """Whether anybody could take the statement for true of a scene.

        False for certain when a noun is not there (or is, after "no"), an adjective is wrong, or
        the relation cannot be read into the picture. Words such as "near" make nothing false.
        """
        nouns = [thing.noun for thing in scene.content.things]
        for mention in self.mentions:
            if (mention.noun in nouns) == (mention.article == "no"):
                return False
            if mention.article != "no":
                thing = scene.content.things[nouns.index(mention.noun)]
                if not all(may_have(thing, word) for word in mention.attributes):
                    return False
        if self.relation is None:
            return True
        subject, obj = (nouns.index(mention.noun) for mention in self.mentions[:2])
        return may_hold(scene, subject, self.relation, obj)


def stated(
    content: Content, attributes: Sequence[Sequence[str]] = ((), ()), article: str | None = None
) -> Statement:
    """`subject is relation object` for the main pair, with the given adjectives of each."""
    pairs = zip(content.things[:2], attributes, strict=False)
    mentions = tuple(Mention(thing.noun, tuple(words), article) for thing, words in pairs)
    return Statement(mentions, ("", f"is {content.relation}", ""), content.relation)


def _in_contact(a: Placement, b: Placement) -> bool:
    reach = (a.scale + b.scale) / 2 + NEAR
    return abs(a.x - b.x) < reach and abs(a.y - b.y) < reach


def _supported(a: Placement, b: Placement) -> bool:
    return b.y - a.y > CLEAR and abs(a.x - b.x) < (a.scale + b.scale) / 2


_READINGS: Mapping[str, Callable[[Placement, Placement], bool]] = {
    "left of": lambda a, b: b.x - a.x > CLEAR, "right of": lambda a, b: a.x - b.x > CLEAR,
    "above": lambda a, b: b.y - a.y > CLEAR, "below": lambda a, b: a.y - b.y > CLEAR,
    "on": _supported, "under": lambda a, b: _supported(b, a), "riding": _supported,
    "in front of": lambda a, b: True, "behind": lambda a, b: True,
    "holding": _in_contact, "touching": _in_contact, "chasing": lambda a, b: a.motion != 0,
}


def may_hold(scene: Scene, subject: int, relation: str, obj: int) -> bool:
    """Whether things `subject` and `obj` of a scene could be said to stand in a relation.

    The main relation holds, and does not hold with its arguments exchanged; its inverse holds
    just then. "in front of" and "behind" are otherwise never certain to be false, and a pair that
    shows one of them shows no other position for certain.
    """
    main = scene.content.relation
    if {subject, obj} == {0, 1}:
        if relation in (main, RELATIONS[main].inverse):
            return (relation == main) == (subject == 0)
        if main in ("in front of", "behind") and not RELATIONS[relation].action:
            return True
    return _READINGS[relation](scene.placements[subject], scene.placements[obj])


def may_have(thing: Thing, attribute: str) -> bool:
    """Whether an adjective could be said of a thing; a thing of no notable size allows both."""
    own = getattr(thing, KIND_OF[attribute])
    return attribute == own or (own is None and KIND_OF[attribute] == "size")


def false_attributes(thing: Thing, kind: str) -> list[str]:
    """Adjectives of a kind ("size", "pattern" or "color") that are certainly false of a thing."""
    return [word for word in ADJECTIVES[kind] if not may_have(thing, word)]
