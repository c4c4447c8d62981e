"""A text about a scene in parts, and whether anybody could take it for true.

A relation that is drawn holds. One that is not drawn may still be read into the picture: a thing on
another is also above it. Every doubt counts as "may hold", so that a text is used as a foil only
when nobody could take it for true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cae_lib.words.roles import ATTRIBUTE, OBJECT
from cae_lib.world.grammar import Caption, phrase
from cae_lib.world.layout import Placement
from cae_lib.world.scenes import Content, Scene, Thing
from cae_lib.world.vocabulary import ADJECTIVES, KIND_OF, RELATIONS, canonical

CLEAR = 0.02
"""Differences of position below this share of the picture's side show nothing."""

NEAR = 0.03
"""Things whose squares are closer than this may be in contact."""

_KINDS = tuple(ADJECTIVES)


@dataclass(frozen=True)
class Mention:
    """A noun phrase. `article` None means "a" or "an", as the next word asks; "no" denies it."""

    noun: str
    attributes: tuple[str, ...] = ()
    article: str | None = None

    @cached_property
    def text(self) -> str:
        """The phrase, its adjectives in their order in English."""
        ordered = sorted(self.attributes, key=lambda word: _KINDS.index(KIND_OF[word]))
        return phrase(self.noun, ordered, self.article)


@dataclass(frozen=True)
class Statement:
    """Noun phrases with the words around them.

    Attributes:
        mentions: The noun phrases, in order.
        pieces: The words before, between and after them, one more than there are mentions.
        relation: `(subject, name, object)` as positions in `mentions`, or None.
    """

    mentions: tuple[Mention, ...]
    pieces: tuple[str, ...]
    relation: tuple[int, str, int] | None = None

    @cached_property
    def text(self) -> str:
        """The whole text."""
        parts = [self.pieces[0]]
        for mention, piece in zip(self.mentions, self.pieces[1:], strict=True):
            parts += [mention.text, piece]
        return " ".join(filter(None, parts))

    @property
    def n_atoms(self) -> int:
        """Number of objects, attributes and relations that it states."""
        attributes = sum(len(mention.attributes) for mention in self.mentions)
        return len(self.mentions) + attributes + (self.relation is not None)

    def changed(self, index: int, **changes: str | tuple[str, ...]) -> Statement:
        """The statement with fields of one noun phrase replaced."""
        return self.with_mention(index, replace(self.mentions[index], **changes))

    def with_mention(self, index: int, mention: Mention) -> Statement:
        """The statement with one noun phrase replaced."""
        mentions = (*self.mentions[:index], mention, *self.mentions[index + 1 :])
        return replace(self, mentions=mentions)

    def with_piece(self, index: int, words: str) -> Statement:
        """The statement with the words before noun phrase `index` replaced."""
        return replace(self, pieces=(*self.pieces[:index], words, *self.pieces[index + 1 :]))

    def with_relation(self, name: str) -> Statement:
        """The statement with its relation replaced, in canonical words.

        Only for a statement whose relation stands between its subject and its object.
        """
        subject, _, obj = self.relation
        copula = "is " if self.pieces[obj].startswith("is ") else ""
        changed = self.with_piece(obj, copula + canonical(name))
        return replace(changed, relation=(subject, name, obj))

    def may_be_true(self, scene: Scene) -> bool:
        """Whether anybody could take the statement for true of a scene.

        False for certain when a noun is not there (or is, after "no"), an adjective is wrong, or
        the relation cannot be read into the picture. Words such as "near" or "at the top" make
        nothing false.
        """
        places = {thing.noun: index for index, thing in enumerate(scene.content.things)}
        for mention in self.mentions:
            denied = mention.article == "no"
            if denied == (mention.noun in places):
                return False
            if denied:
                continue
            thing = scene.content.things[places[mention.noun]]
            if not all(may_have(thing, word) for word in mention.attributes):
                return False
        if self.relation is None:
            return True
        subject, name, obj = self.relation
        nouns = self.mentions[subject].noun, self.mentions[obj].noun
        return may_hold(scene, places[nouns[0]], name, places[nouns[1]])


def stated(
    content: Content,
    attributes: Sequence[Sequence[str]] = ((), ()),
    article: str | None = None,
) -> Statement:
    """`subject is relation object` for the main pair, with the given adjectives of each."""
    pairs = zip(content.things[:2], attributes, strict=False)
    mentions = tuple(Mention(thing.noun, tuple(words), article) for thing, words in pairs)
    return Statement(
        mentions, ("", f"is {canonical(content.relation)}", ""), (0, content.relation, 1)
    )


def read(caption: Caption, content: Content) -> Statement:
    """The parts of a caption, by its gold roles."""
    by_start = {span.start: span.role for span in caption.spans}
    mentions: list[Mention] = []
    pieces: list[str] = []
    before: list[str] = []
    attributes: list[str] = []
    position = 0
    for word in caption.text.split(" "):
        role = by_start.get(position)
        position += len(word) + 1
        if role == ATTRIBUTE:
            attributes.append(word)
        elif role == OBJECT:  # the word before its adjectives is the article
            pieces.append(" ".join(before[:-1]))
            mentions.append(Mention(word, tuple(attributes)))
            before, attributes = [], []
        else:
            before.append(word)
    pieces.append(" ".join(before))
    relation = None
    nouns = [mention.noun for mention in mentions]
    for subject, name, obj in caption.relations:
        first, second = (nouns.index(content.things[i].noun) for i in (subject, obj))
        relation = first, name, second
    return Statement(tuple(mentions), tuple(pieces), relation)


def _in_contact(a: Placement, b: Placement) -> bool:
    reach = (a.scale + b.scale) / 2 + NEAR
    return abs(a.x - b.x) < reach and abs(a.y - b.y) < reach


def _above(a: Placement, b: Placement) -> bool:
    return b.y - a.y > CLEAR


def _supported(a: Placement, b: Placement) -> bool:
    return _above(a, b) and abs(a.x - b.x) < (a.scale + b.scale) / 2


_READINGS: Mapping[str, Callable[[Placement, Placement], bool]] = {
    "left of": lambda a, b: b.x - a.x > CLEAR,
    "right of": lambda a, b: a.x - b.x > CLEAR,
    "above": _above,
    "below": lambda a, b: _above(b, a),
    "on": _supported,
    "under": lambda a, b: _supported(b, a),
    "in front of": lambda a, b: True,
    "behind": lambda a, b: True,
    "riding": _supported,
    "holding": _in_contact,
    "chasing": lambda a, b: a.motion != 0,
    "touching": _in_contact,
}


def may_hold(scene: Scene, subject: int, relation: str, obj: int) -> bool:
    """Whether things `subject` and `obj` of a scene could be said to stand in a relation.

    The main relation holds, and does not hold with its arguments exchanged; its inverse holds
    just then. "in front of" and "behind" are otherwise never certain to be false, and a pair that
    shows one of them shows no other position for certain.
    """
    main = scene.content.relation
    if {subject, obj} == {0, 1}:
        in_order = subject == 0
        if relation == main:
            return in_order
        if relation == RELATIONS[main].inverse:
            return not in_order
        if main in ("in front of", "behind") and not RELATIONS[relation].action:
            return True
    return _READINGS[relation](scene.placements[subject], scene.placements[obj])


def may_have(thing: Thing, attribute: str) -> bool:
    """Whether an adjective could be said of a thing; a thing of no notable size allows both."""
    kind = KIND_OF[attribute]
    own = getattr(thing, kind)
    return attribute == own or (kind == "size" and own is None)


def false_attributes(thing: Thing, kind: str) -> list[str]:
    """Adjectives of a kind ("size", "pattern" or "color") that are certainly false of a thing."""
    return [word for word in ADJECTIVES[kind] if not may_have(thing, word)]
