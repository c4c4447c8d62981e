"""Where things stand: the geometry that makes each relation visible.

Coordinates are fractions of the picture's side, y downwards. Each relation places its subject and
object near the middle of the picture; further things go where there is room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

BASE_SCALE = 0.42
SIZE_FACTOR: dict[str | None, float] = {None: 1.0, "small": 0.72, "large": 1.3}


@dataclass(frozen=True)
class Placement:
    """Place of one thing."""

    x: float  # centre
    y: float
    scale: float  # side of its square
    tilt: float = 0.0  # rotation in degrees, counter-clockwise
    flip: bool = False  # mirrored left to right; glyphs of animals look to the left unless flipped
    depth: int = 0  # things of greater depth are drawn first
    motion: int = 0  # -1 or 1 for lines of motion behind a thing moving left or right, else 0
    contact: int = 0  # marks of contact on its left (-1) or right (1) side, else 0

    def overlap(self, other: Placement) -> float:
        """Overlap of the two squares as a share of the smaller one."""
        reach = (self.scale + other.scale) / 2
        width = min(max(0.0, reach - abs(self.x - other.x)), self.scale, other.scale)
        height = min(max(0.0, reach - abs(self.y - other.y)), self.scale, other.scale)
        return width * height / min(self.scale, other.scale) ** 2


Pair = tuple[Placement, Placement]


def _row(s: float, o: float, side: int, gap: float) -> Pair:
    """Subject on the left (-1) or right (1) of the object, with a gap."""
    distance = (s + o) / 2 + gap
    return Placement(side * distance / 2, 0.0, s), Placement(-side * distance / 2, 0.0, o)


def _column(s: float, o: float, side: int, gap: float) -> Pair:
    """Subject above (-1) or below (1) the object."""
    distance = (s + o) / 2 + gap
    return Placement(0.0, side * distance / 2, s), Placement(0.0, -side * distance / 2, o)


def _at_depth(pair: Pair, first: int, second: int) -> Pair:
    return replace(pair[0], depth=first), replace(pair[1], depth=second)


def _front(s: float, o: float, rng: np.random.Generator) -> Pair:
    shift = 0.4 * (s + o) / 2 * (1 if rng.random() < 0.5 else -1)
    near = Placement(shift / 2, 0.07, 1.1 * s, depth=0)
    return near, Placement(-shift / 2, -0.09, 0.95 * o, depth=1)


def _riding(s: float, o: float, rng: np.random.Generator) -> Pair:
    way = 1 if rng.random() < 0.5 else -1
    top, bottom = _column(0.75 * s, 1.2 * o, -1, -0.11)
    rider = replace(top, tilt=-12.0 * way, flip=way > 0, depth=0)
    return rider, replace(bottom, flip=way > 0, depth=1, motion=way)


def _holding(s: float, o: float, rng: np.random.Generator) -> Pair:
    side = 1 if rng.random() < 0.5 else -1
    holder = Placement(-side * 0.05, 0.0, 1.25 * s, flip=side > 0, depth=1)
    x = holder.x + side * 0.52 * holder.scale
    return holder, Placement(x, 0.03, 0.6 * o, tilt=-25.0 * side, depth=0)


def _chasing(s: float, o: float, rng: np.random.Generator) -> Pair:
    way = 1 if rng.random() < 0.5 else -1
    chaser, chased = _row(0.95 * s, 0.95 * o, -way, 0.05)
    chaser = replace(chaser, tilt=-10.0 * way, flip=way > 0, motion=way)
    return chaser, replace(chased, tilt=-10.0 * way, flip=way > 0)


def _touching(s: float, o: float, rng: np.random.Generator) -> Pair:
    side = 1 if rng.random() < 0.5 else -1
    toucher, touched = _row(s, o, -side, -0.04)
    return replace(toucher, tilt=-18.0 * side, flip=side > 0, contact=side), touched


_PLACERS: dict[str, Callable[[float, float, np.random.Generator], Pair]] = {
    "left of": lambda s, o, rng: _row(s, o, -1, 0.06),
    "right of": lambda s, o, rng: _row(s, o, 1, 0.06),
    "above": lambda s, o, rng: _column(s, o, -1, 0.06),
    "below": lambda s, o, rng: _column(s, o, 1, 0.06),
    "on": lambda s, o, rng: _at_depth(_column(0.85 * s, 1.15 * o, -1, -0.09), 0, 1),
    "under": lambda s, o, rng: _at_depth(_column(0.8 * s, 1.2 * o, 1, -0.1), 1, 0),
    "in front of": _front,
    "behind": lambda s, o, rng: _front(o, s, rng)[::-1],
    "riding": _riding,
    "holding": _holding,
    "chasing": _chasing,
    "touching": _touching,
}


def place(
    relation: str, subject_size: str | None, object_size: str | None, rng: np.random.Generator
) -> Pair:
    """Placements of subject and object that show `relation`, near the picture's middle."""
    s, o = (
        BASE_SCALE * SIZE_FACTOR[size] * rng.uniform(0.92, 1.08)
        for size in (subject_size, object_size)
    )
    pair = _PLACERS[relation](s, o, rng)
    low_x, high_x = _room([(p.x, p.scale) for p in pair])
    low_y, high_y = _room([(p.y, p.scale) for p in pair])
    shift_x = float(np.clip(0.5 + rng.normal(0, 0.06), low_x, high_x))
    shift_y = float(np.clip(0.5 + rng.normal(0, 0.06), low_y, high_y))
    first, second = (replace(p, x=p.x + shift_x, y=p.y + shift_y) for p in pair)
    return first, second


def _room(spans: list[tuple[float, float]]) -> tuple[float, float]:
    """The shifts that keep all spans (centre, side) in [0, 1]; the middle when none does."""
    low = max(side / 2 - centre for centre, side in spans)
    high = min(1 - side / 2 - centre for centre, side in spans)
    return (low, high) if low <= high else ((low + high) / 2,) * 2


def place_extra(others: list[Placement], size: str | None, rng: np.random.Generator) -> Placement:
    """Placement of a further thing: of 12 random places, the one that overlaps least."""
    scale = 0.75 * BASE_SCALE * SIZE_FACTOR[size] * rng.uniform(0.92, 1.08)
    half = scale / 2
    tries = [Placement(*rng.uniform(half, 1 - half, 2), scale, depth=2) for _ in range(12)]
    return min(tries, key=lambda t: (sum(t.overlap(o) for o in others), t.x))
