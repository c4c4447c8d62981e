"""Place things so that each relation is visible.

Coordinates are fractions of the image's side; y points downwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Rng = np.random.Generator
BASE_SCALE = 0.42
SIZE_FACTOR: dict[str | None, float] = {None: 1.0, "small": 0.72, "large": 1.3}


@dataclass(frozen=True)
class Placement:
    """The position of one thing, and how it is drawn there."""

    x: float  # centre
    y: float
    scale: float  # side of its square
    tilt: float = 0.0  # rotation in degrees, counter-clockwise
    flip: bool = False  # mirrored left to right; glyphs of animals look to the left unless flipped
    depth: int = 0  # things of greater depth are drawn first
    motion: int = 0  # -1 or 1 for lines of motion behind a thing moving left or right, else 0
    contact: int = 0  # marks of contact on its left (-1) or right (1) side, else 0

    def overlap(self, other: Placement) -> float:
        """Return the overlap of the two squares as a share of the smaller one."""
        reach, smaller = (self.scale + other.scale) / 2, min(self.scale, other.scale)
        width = min(max(0.0, reach - abs(self.x - other.x)), smaller)
        height = min(max(0.0, reach - abs(self.y - other.y)), smaller)
        return width * height / smaller**2


Pair = tuple[Placement, Placement]


def _row(s: float, o: float, side: int, gap: float) -> Pair:
    """Place the subject on the left (-1) or right (1) of the object, with a gap."""
    shift = side * ((s + o) / 2 + gap) / 2
    return Placement(shift, 0.0, s), Placement(-shift, 0.0, o)


def _column(s: float, o: float, side: int, gap: float, depths: tuple[int, int] = (0, 0)) -> Pair:
    """Place the subject above (-1) or below (1) the object, with a gap."""
    shift = side * ((s + o) / 2 + gap) / 2
    return Placement(0.0, shift, s, depth=depths[0]), Placement(0.0, -shift, o, depth=depths[1])


def _front(s: float, o: float, side: int) -> Pair:
    shift = 0.4 * (s + o) / 2 * side
    return Placement(shift / 2, 0.07, 1.1 * s), Placement(-shift / 2, -0.09, 0.95 * o, depth=1)


def _riding(s: float, o: float, side: int) -> Pair:
    rider, carrier = _column(0.75 * s, 1.2 * o, -1, -0.11, (0, 1))
    rider = replace(rider, tilt=-12.0 * side, flip=side > 0)
    return rider, replace(carrier, flip=side > 0, motion=side)


def _holding(s: float, o: float, side: int) -> Pair:
    holder = Placement(-side * 0.05, 0.0, 1.25 * s, flip=side > 0, depth=1)
    x = holder.x + side * 0.52 * holder.scale
    return holder, Placement(x, 0.03, 0.6 * o, tilt=-25.0 * side)


def _chasing(s: float, o: float, side: int) -> Pair:
    # The chaser is behind, and both look and lean to where they run.
    pair = _row(0.95 * s, 0.95 * o, -side, 0.05)
    chaser, chased = (replace(thing, tilt=-10.0 * side, flip=side > 0) for thing in pair)
    return replace(chaser, motion=side), chased


def _touching(s: float, o: float, side: int) -> Pair:
    toucher, touched = _row(s, o, -side, -0.04)
    return replace(toucher, tilt=-18.0 * side, flip=side > 0, contact=side), touched


_FIXED: dict[str, Callable[[float, float], Pair]] = {
    "left of": lambda s, o: _row(s, o, -1, 0.06),
    "right of": lambda s, o: _row(s, o, 1, 0.06),
    "above": lambda s, o: _column(s, o, -1, 0.06),
    "below": lambda s, o: _column(s, o, 1, 0.06),
    "on": lambda s, o: _column(0.85 * s, 1.15 * o, -1, -0.09, (0, 1)),
    "under": lambda s, o: _column(0.8 * s, 1.2 * o, 1, -0.1, (1, 0)),
}
# Relations with a version to the left (-1) and one to the right (1).
_SIDED: dict[str, Callable[[float, float, int], Pair]] = {
    "in front of": _front,
    "behind": lambda s, o, side: _front(o, s, side)[::-1],
    "riding": _riding,
    "holding": _holding,
    "chasing": _chasing,
    "touching": _touching,
}


def place(relation: str, subject_size: str | None, object_size: str | None, rng: Rng) -> Pair:
    """Place subject and object near the image's middle so that they show `relation`."""
    s, o = (_scale(size, rng) for size in (subject_size, object_size))
    if relation in _FIXED:
        pair = _FIXED[relation](s, o)
    else:
        pair = _SIDED[relation](s, o, 1 if rng.random() < 0.5 else -1)
    # Pairs are placed around the origin; one shift for both keeps their relation.
    x, y = (_shift([(getattr(p, axis), p.scale) for p in pair], rng) for axis in "xy")
    first, second = (replace(p, x=p.x + x, y=p.y + y) for p in pair)
    return first, second


def place_extra(others: list[Placement], size: str | None, rng: Rng) -> Placement:
    """Place a further thing, behind the others, where it overlaps least of 12 random positions."""
    scale = _scale(size, rng, 0.75)
    half = scale / 2
    tries = [Placement(*rng.uniform(half, 1 - half, 2), scale, depth=2) for _ in range(12)]
    # Among positions without overlap, the leftmost one.
    return min(tries, key=lambda t: (sum(t.overlap(o) for o in others), t.x))


def _scale(size: str | None, rng: Rng, share: float = 1.0) -> float:
    return share * BASE_SCALE * SIZE_FACTOR[size] * rng.uniform(0.92, 1.08)


def _shift(spans: list[tuple[float, float]], rng: Rng) -> float:
    """Draw a shift towards the middle that keeps all spans (centre, side) in [0, 1] if any does."""
    low = max(side / 2 - centre for centre, side in spans)
    high = min(1 - side / 2 - centre for centre, side in spans)
    # If the pair is larger than the image, both sides are cut alike.
    low, high = (low, high) if low <= high else ((low + high) / 2,) * 2
    return float(np.clip(0.5 + rng.normal(0, 0.06), low, high))
