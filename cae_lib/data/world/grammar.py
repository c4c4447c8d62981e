"""Captions of the small world, in the English that a scene-graph parser meets in COCO.

A caption names the main thing always and the others less often, leaves most attributes out, and
states the relation only now and then: the properties of natural captions that let a contrastive
model do well as a bag of words. Every caption carries its gold roles and the facts it states.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from cae_lib.data.world.layout import Placement
from cae_lib.data.world.scenes import Scene, Thing
from cae_lib.data.world.vocabulary import RELATIONS, VAGUE_RELATIONS, canonical
from cae_lib.words.roles import ATTRIBUTE, OBJECT, OTHER, RELATION, Span

_PREFIXES = ("a photo of", "a picture of", "an image of", "there is", "this is", "we see")
Token = tuple[str, int]


@dataclass(frozen=True)
class CaptionStyle:
    """How much a caption tells. All fields are probabilities.

    Attributes:
        attribute: Each attribute of a named thing is said.
        second: The second thing of the main pair is named.
        relation: The main relation is said, given that both things are named.
        vague: An unsaid relation is worded "with", "near", ... rather than "and".
        extra: Each further thing is named.
        position: A named further thing gets a phrase that places it ("on the left").
        prefix: The caption opens with "a photo of", "there is", ...
        copula: A relation is worded "X is on Y" rather than "X on Y".
    """

    attribute: float
    second: float
    relation: float
    vague: float = 0.4
    extra: float = 0.3
    position: float = 0.3
    prefix: float = 0.2
    copula: float = 0.3


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


@dataclass
class _Facts:
    objects: list[int] = field(default_factory=list)
    attributes: list[tuple[int, str]] = field(default_factory=list)
    relations: list[tuple[int, str, int]] = field(default_factory=list)


def _tokens(text: str, role: int) -> list[Token]:
    return [(word, role) for word in text.split()]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _phrase(noun: str, attributes: Iterable[str], article: str | None) -> list[Token]:
    words = [(word, ATTRIBUTE) for word in attributes] + [(noun, OBJECT)]
    return [(article or _article(words[0][0]), OTHER), *words]


def _relation(wording: str, copula: bool) -> list[Token]:
    function_words = {"to", "the", "of"} if wording.startswith("to the") else set()
    tokens = [(w, OTHER if w in function_words else RELATION) for w in wording.split()]
    return [("is", OTHER), *tokens] if copula else tokens


def phrase(noun: str, attributes: Iterable[str] = (), article: str | None = None) -> str:
    """A noun phrase; without an article given, "a" or "an" as the next word asks."""
    return " ".join(word for word, _ in _phrase(noun, attributes, article))


def clause(subject: str, relation: str, obj: str, copula: bool = True) -> str:
    """`subject (is) relation object` in the canonical wording of the relation."""
    verb = "is " if copula else ""
    return f"{subject} {verb}{canonical(relation)} {obj}"


def join(tokens: Iterable[Token]) -> tuple[str, tuple[Span, ...]]:
    """The text of some words and the character spans of those that have a role."""
    text, spans = "", []
    for word, role in tokens:
        start = len(text) + bool(text)
        text = f"{text} {word}" if text else word
        if role != OTHER:
            spans.append(Span(start, start + len(word), role))
    return text, tuple(spans)


def _mention(thing: Thing, index: int, style: CaptionStyle, facts: _Facts,
             rng: np.random.Generator) -> list[Token]:  # fmt: skip
    said = [word for word in thing.attributes if rng.random() < style.attribute]
    facts.objects.append(index)
    facts.attributes.extend((index, word) for word in said)
    return _phrase(thing.noun, said, None)


def position_phrase(place: Placement) -> str | None:
    """Where a thing stands in the picture, when it stands clearly on one side."""
    candidates = {
        "on the left": 0.5 - place.x, "on the right": place.x - 0.5,
        "at the top": 0.5 - place.y, "at the bottom": place.y - 0.5,
    }  # fmt: skip
    words, distance = max(candidates.items(), key=lambda item: item[1])
    return words if distance > 0.2 else None


def _main_pair(scene: Scene, style: CaptionStyle, facts: _Facts,
               rng: np.random.Generator) -> list[Token]:  # fmt: skip
    things, relation = scene.content.things, RELATIONS[scene.content.relation]
    tokens = _mention(things[0], 0, style, facts, rng)
    if rng.random() >= style.second:
        return tokens
    if rng.random() < style.relation:
        wording = str(rng.choice(relation.wordings))
        tokens += _relation(wording, copula=bool(rng.random() < style.copula))
        facts.relations.append((0, relation.name, 1))
    elif rng.random() < style.vague:
        tokens += _tokens(str(rng.choice(VAGUE_RELATIONS)), RELATION)
    else:
        tokens += [("and", OTHER)]
    return tokens + _mention(things[1], 1, style, facts, rng)


def describe(scene: Scene, style: CaptionStyle, rng: np.random.Generator) -> Caption:
    """One caption of a scene in a style."""
    facts = _Facts()
    tokens: list[Token] = []
    if rng.random() < style.prefix:
        tokens += _tokens(str(rng.choice(_PREFIXES)), OTHER)
    tokens += _main_pair(scene, style, facts, rng)
    for index in range(2, len(scene.content.things)):
        if rng.random() >= style.extra:
            continue
        tokens += [("and", OTHER)]
        tokens += _mention(scene.content.things[index], index, style, facts, rng)
        where = position_phrase(scene.placements[index])
        if where and rng.random() < style.position:
            tokens += _tokens(where, OTHER)
    text, spans = join(tokens)
    return Caption(text, spans, tuple(facts.objects), tuple(facts.attributes),
                   tuple(facts.relations))  # fmt: skip


def captions(scene: Scene, style: CaptionStyle, rng: np.random.Generator, n: int) -> list[Caption]:
    """`n` captions of a scene; some may be equal, as in COCO."""
    return [describe(scene, style, rng) for _ in range(n)]
