"""A text about a scene in parts: the things it names, the relation it states, the words between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cae_lib.data.world.grammar import Caption, phrase
from cae_lib.data.world.scenes import Content, Scene
from cae_lib.data.world.truth import kind_of, may_have, may_hold
from cae_lib.data.world.vocabulary import canonical
from cae_lib.words.roles import ATTRIBUTE, OBJECT

_ORDER = ("size", "pattern", "color")


@dataclass(frozen=True)
class Mention:
    """A noun phrase. `article` None means "a" or "an", as the next word asks."""

    noun: str
    attributes: tuple[str, ...] = ()
    article: str | None = None

    @cached_property
    def text(self) -> str:
        """The phrase, its adjectives in their order in English."""
        ordered = sorted(self.attributes, key=lambda word: _ORDER.index(kind_of(word)))
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

    def with_mention(self, index: int, mention: Mention) -> Statement:
        """The statement with one noun phrase replaced."""
        mentions = (*self.mentions[:index], mention, *self.mentions[index + 1 :])
        return Statement(mentions, self.pieces, self.relation)

    def with_relation(self, name: str) -> Statement:
        """The statement with its relation replaced, in canonical words.

        Only for a statement whose relation stands between its subject and its object.
        """
        subject, _, obj = self.relation
        pieces = list(self.pieces)
        copula = "is " if pieces[obj].startswith("is ") else ""
        pieces[obj] = copula + canonical(name)
        return replace(self, pieces=tuple(pieces), relation=(subject, name, obj))

    def may_be_true(self, scene: Scene) -> bool:
        """Whether anybody could take the statement for true of a scene.

        False for certain when a noun is not there, an adjective is wrong, or the relation cannot
        be read into the picture. Words such as "near" or "at the top" make nothing false.
        """
        places = {thing.noun: index for index, thing in enumerate(scene.content.things)}
        for mention in self.mentions:
            if mention.noun not in places:
                return False
            thing = scene.content.things[places[mention.noun]]
            if not all(may_have(thing, word) for word in mention.attributes):
                return False
        if self.relation is None:
            return True
        subject, name, obj = self.relation
        nouns = self.mentions[subject].noun, self.mentions[obj].noun
        return may_hold(scene, places[nouns[0]], name, places[nouns[1]])


def stated(content: Content, attributes: Sequence[Sequence[str]] = ((), ()), *,
           article: str | None = None, copula: bool = True) -> Statement:  # fmt: skip
    """`subject (is) relation object` for the main pair, with the given adjectives of each."""
    mentions = tuple(
        Mention(thing.noun, tuple(words), article)
        for thing, words in zip(content.things, attributes, strict=False)
    )[:2]
    link = f"{'is ' if copula else ''}{canonical(content.relation)}"
    return Statement(mentions, ("", link, ""), (0, content.relation, 1))


def read(caption: Caption, content: Content) -> Statement:
    """The parts of a caption, by its gold roles."""
    words = caption.text.split()
    roles = _word_roles(caption)
    mentions, pieces, start = [], [], 0
    for end, noun in enumerate(words):
        if roles[end] != OBJECT:
            continue
        first = end
        while roles[first - 1] == ATTRIBUTE:
            first -= 1
        pieces.append(" ".join(words[start : first - 1]))
        mentions.append(Mention(noun, tuple(words[first:end])))
        start = end + 1
    pieces.append(" ".join(words[start:]))
    relation = None
    for subject, name, obj in caption.relations:
        nouns = [mention.noun for mention in mentions]
        things = content.things
        relation = nouns.index(things[subject].noun), name, nouns.index(things[obj].noun)
    return Statement(tuple(mentions), tuple(pieces), relation)


def _word_roles(caption: Caption) -> list[int]:
    """The role of each word of a caption; 0 for words without one."""
    by_start = {span.start: span.role for span in caption.spans}
    return [by_start.get(start, 0) for start in _word_starts(caption.text)]


def _word_starts(text: str) -> Iterator[int]:
    start = 0
    for word in text.split(" "):
        yield start
        start += len(word) + 1
