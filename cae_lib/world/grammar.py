"""Captions of the small world, in the English that a scene-graph parser meets in COCO.

A caption names the main thing always and the others less often, leaves most attributes out, and
states the relation only now and then: the properties of natural captions that let a contrastive
model do well as a bag of words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION, Span
from cae_lib.world.layout import Placement
from cae_lib.world.scenes import Scene
from cae_lib.world.statements import Mention, Statement
from cae_lib.world.vocabulary import RELATIONS, VAGUE_RELATIONS

_PREFIXES = ("a photo of", "a picture of", "an image of", "there is", "this is", "we see")


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


def position_phrase(place: Placement) -> str:
    """Where a thing stands in the picture, when it stands clearly on one side, else ""."""
    sides = {
        "on the left": 0.5 - place.x, "on the right": place.x - 0.5,
        "at the top": 0.5 - place.y, "at the bottom": place.y - 0.5,
    }
    words = max(sides, key=sides.__getitem__)
    return words if sides[words] > 0.2 else ""


def describe(scene: Scene, style: CaptionStyle, rng: np.random.Generator) -> Statement:
    """One caption of a scene in a style; `relation` is None if its wording is vague."""
    things, name = scene.content.things, scene.content.relation
    pieces = [str(rng.choice(_PREFIXES)) if rng.random() < style.prefix else ""]
    mentions: list[Mention] = []
    relation = None

    def mention(index: int) -> None:
        words = (word for word in things[index].attributes if rng.random() < style.attribute)
        mentions.append(Mention(things[index].noun, tuple(words)))

    mention(0)
    if rng.random() < style.second:
        piece = "and"
        if rng.random() < style.relation:
            relation = name
            piece = str(rng.choice(RELATIONS[name].wordings))
            piece = f"is {piece}" if rng.random() < style.copula else piece
        elif rng.random() < style.vague:
            piece = str(rng.choice(VAGUE_RELATIONS))
        pieces.append(piece)
        mention(1)
    last = ""
    for thing, place in list(zip(things, scene.placements, strict=True))[2:]:
        if rng.random() < style.extra:
            pieces.append(f"{last} and".strip())
            mention(things.index(thing))
            last = position_phrase(place)
            last = last if last and rng.random() < style.position else ""
    return Statement(tuple(mentions), (*pieces, last), relation)


def captions(
    scene: Scene, style: CaptionStyle, rng: np.random.Generator, n: int
) -> list[Statement]:
    """`n` captions of a scene; some may be equal, as in COCO."""
    return [describe(scene, style, rng) for _ in range(n)]


def gold_spans(caption: Statement) -> list[Span]:
    """The character spans of those words of a caption that have a role."""
    roles = [OTHER] * len(caption.pieces[0].split())
    for index, mention in enumerate(caption.mentions):
        roles += [OTHER, *[ATTRIBUTE] * len(mention.attributes), OBJECT]
        piece = caption.pieces[index + 1]
        link = index == 0 and piece != "and"  # the words between the main pair
        function_words = {"is"} | ({"to", "the", "of"} if "to the" in piece else set())
        roles += [RELATION if link and w not in function_words else OTHER for w in piece.split()]
    spans, start = [], 0
    for word, role in zip(caption.text.split(), roles, strict=True):
        if role != OTHER:
            spans.append(Span(start, start + len(word), role))
        start += len(word) + 1
    return spans
