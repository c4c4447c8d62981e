"""What may be said of a scene: a cautious reading of its geometry, to check that foils are false.

A relation that is drawn holds. One that is not drawn may still be read into the picture: a thing on
another is also above it. Every doubt counts as "may hold", so that a text is used as a foil only
when nobody could take it for true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cae_lib.data.world.layout import Placement
from cae_lib.data.world.scenes import Scene, Thing
from cae_lib.data.world.vocabulary import COLORS, PATTERNS, RELATIONS, SIZES

CLEAR = 0.02
"""Differences of position below this share of the picture's side show nothing."""

NEAR = 0.03
"""Things whose squares are closer than this may be in contact."""

DEPTH = ("in front of", "behind")


def _aligned(a: Placement, b: Placement) -> bool:
    return abs(a.x - b.x) < (a.scale + b.scale) / 2


def _in_contact(a: Placement, b: Placement) -> bool:
    reach = (a.scale + b.scale) / 2 + NEAR
    return abs(a.x - b.x) < reach and abs(a.y - b.y) < reach


def _above(a: Placement, b: Placement) -> bool:
    return b.y - a.y > CLEAR


def _supported(a: Placement, b: Placement) -> bool:
    return _above(a, b) and _aligned(a, b)


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
        if main in DEPTH and not RELATIONS[relation].action:
            return True
    places = scene.placements
    return _READINGS[relation](places[subject], places[obj])


def may_have(thing: Thing, attribute: str) -> bool:
    """Whether an adjective could be said of a thing; a thing of no notable size allows both."""
    if attribute in COLORS:
        return attribute == thing.color
    if attribute in PATTERNS:
        return attribute == thing.pattern
    return thing.size is None or attribute == thing.size


def false_attributes(thing: Thing, kind: str) -> tuple[str, ...]:
    """Adjectives of a kind ("size", "pattern" or "color") that are certainly false of a thing."""
    words = {"size": SIZES, "pattern": PATTERNS, "color": tuple(COLORS)}[kind]
    return tuple(word for word in words if not may_have(thing, word))


def kind_of(attribute: str) -> str:
    """The kind of an adjective: "size", "pattern" or "color"."""
    if attribute in COLORS:
        return "color"
    return "pattern" if attribute in PATTERNS else "size"
