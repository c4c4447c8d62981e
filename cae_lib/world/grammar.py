"""Captions of the small world, in the English that a scene-graph parser meets in COCO.

A caption names the main thing always and the others less often, leaves most attributes out, and
states the relation only now and then: the properties of natural captions that let a contrastive
model do well as a bag of words. Every caption carries its gold roles and the facts it states.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION, Span
from cae_lib.world.layout import Placement
from cae_lib.world.scenes import Scene
from cae_lib.world.vocabulary import RELATIONS, VAGUE_RELATIONS, canonical

_PREFIXES = ("a photo of", "a picture of", "an image of", "there is", "this is", "we see")
Token = tuple[str, int]


@dataclass(frozen=True)
class CaptionStyle:
    """How much a caption tells. All fields are probabilities."""

    attribute: float  # each attribute of a named thing is said
    second: float  # the second thing of the main pair is named
    relation: float  # the main relation is said, given that both things are named
    vague: float = 0.4  # an unsaid relation is worded "with", "near", ... rather than "and"
    extra: float = 0.3  # each further thing is named
    position: float = 0.3  # a named further thing gets a phrase that places it ("on the left")
    prefix: float = 0.2  # the caption opens with "a photo of", "there is", ...
    copula: float = 0.3  # a relation is worded "X is on Y" rather than "X on Y"


@dataclass(frozen=True)
class Caption:
    """A caption with its gold roles and the facts it states about the scene's things.

    Attributes:
        text: The caption.
        spans: Gold roles as character spans, in order.
        objects: Indices of the things named.
        attributes: Pairs of a thing's index and an adjective said of it.
        relations: Triples of subject index, relation name, object index.
    """

    text: str
    spans: tuple[Span, ...]
    objects: tuple[int, ...] = ()
    attributes: tuple[tuple[int, str], ...] = ()
    relations: tuple[tuple[int, str, int], ...] = ()


def _tokens(text: str, role: int) -> list[Token]:
    return [(word, role) for word in text.split()]


def _phrase(noun: str, attributes: Iterable[str], article: str | None = None) -> list[Token]:
    words = [*((word, ATTRIBUTE) for word in attributes), (noun, OBJECT)]
    return [(article or ("an" if words[0][0][0] in "aeiou" else "a"), OTHER), *words]


def phrase(noun: str, attributes: Iterable[str] = (), article: str | None = None) -> str:
    """A noun phrase; without an article given, "a" or "an" as the next word asks."""
    return " ".join(word for word, _ in _phrase(noun, attributes, article))


def clause(subject: str, relation: str, obj: str) -> str:
    """`subject is relation object` in the canonical wording of the relation."""
    return f"{subject} is {canonical(relation)} {obj}"


def position_phrase(place: Placement) -> str | None:
    """Where a thing stands in the picture, when it stands clearly on one side."""
    distance, words = max(
        (0.5 - place.x, "on the left"),
        (place.x - 0.5, "on the right"),
        (0.5 - place.y, "at the top"),
        (place.y - 0.5, "at the bottom"),
        key=lambda side: side[0],
    )
    return words if distance > 0.2 else None


def describe(scene: Scene, style: CaptionStyle, rng: np.random.Generator) -> Caption:
    """One caption of a scene in a style."""
    things = scene.content.things
    tokens: list[Token] = []
    objects: list[int] = []
    attributes: list[tuple[int, str]] = []
    relations: list[tuple[int, str, int]] = []

    def mention(index: int) -> None:
        said = [word for word in things[index].attributes if rng.random() < style.attribute]
        objects.append(index)
        attributes.extend((index, word) for word in said)
        tokens.extend(_phrase(things[index].noun, said))

    if rng.random() < style.prefix:
        tokens += _tokens(str(rng.choice(_PREFIXES)), OTHER)
    mention(0)
    if rng.random() < style.second:
        if rng.random() < style.relation:
            name = scene.content.relation
            wording = str(rng.choice(RELATIONS[name].wordings))
            copula = bool(rng.random() < style.copula)
            tokens += _relation(wording, copula)
            relations.append((0, name, 1))
        elif rng.random() < style.vague:
            tokens += _tokens(str(rng.choice(VAGUE_RELATIONS)), RELATION)
        else:
            tokens.append(("and", OTHER))
        mention(1)
    for index in range(2, len(things)):
        if rng.random() < style.extra:
            tokens.append(("and", OTHER))
            mention(index)
            where = position_phrase(scene.placements[index])
            if where and rng.random() < style.position:
                tokens += _tokens(where, OTHER)
    text = " ".join(word for word, _ in tokens)
    return Caption(text, _spans(tokens), tuple(objects), tuple(attributes), tuple(relations))


def captions(scene: Scene, style: CaptionStyle, rng: np.random.Generator, n: int) -> list[Caption]:
    """`n` captions of a scene; some may be equal, as in COCO."""
    return [describe(scene, style, rng) for _ in range(n)]


def _relation(wording: str, copula: bool) -> list[Token]:
    function_words = {"to", "the", "of"} if wording.startswith("to the") else set()
    tokens = [(w, OTHER if w in function_words else RELATION) for w in wording.split()]
    return [("is", OTHER), *tokens] if copula else tokens


def _spans(tokens: Iterable[Token]) -> tuple[Span, ...]:
    """The character spans of those words that have a role."""
    spans, start = [], 0
    for word, role in tokens:
        if role != OTHER:
            spans.append(Span(start, start + len(word), role))
        start += len(word) + 1
    return tuple(spans)
