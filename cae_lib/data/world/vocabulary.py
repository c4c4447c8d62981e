"""The words of the small world: nouns with their glyphs, attributes, and relations.

The nouns are drawn with Noto Emoji (SIL Open Font License 1.1), so each one is a single glyph.
Relations are asymmetric and visible: exchanging the arguments of any of them changes the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

GLYPHS: dict[str, str] = {
    "cat": "🐈", "dog": "🐕", "horse": "🐎", "elephant": "🐘", "person": "🧍", "bird": "🐦",
    "sheep": "🐑", "cow": "🐄", "rabbit": "🐇", "duck": "🦆", "turtle": "🐢", "bear": "🐻",
    "car": "🚗", "bus": "🚌", "truck": "🚚", "boat": "⛵", "train": "🚂", "bicycle": "🚲",
    "house": "🏠", "tree": "🌳", "chair": "🪑", "bed": "🛏", "ball": "⚽", "cup": "☕",
    "book": "📖", "umbrella": "☂", "hat": "🎩", "flower": "🌷", "clock": "⏰", "guitar": "🎸",
    "apple": "🍎", "kite": "🪁", "shoe": "👞", "key": "🔑",
}  # fmt: skip
NOUNS: tuple[str, ...] = tuple(GLYPHS)
ANIMATE: frozenset[str] = frozenset(NOUNS[:12])
VEHICLES: frozenset[str] = frozenset(NOUNS[12:18])
THINGS: frozenset[str] = frozenset(NOUNS[18:])

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40), "orange": (244, 140, 30), "yellow": (246, 211, 45),
    "green": (52, 160, 70), "blue": (45, 105, 220), "purple": (140, 70, 190),
    "pink": (245, 145, 190), "brown": (135, 85, 45),
}  # fmt: skip
SIZES: tuple[str, ...] = ("small", "large")
PATTERNS: tuple[str, ...] = ("striped", "spotted", "checkered")


@dataclass(frozen=True)
class RelationKind:
    """One relation: its wordings, whether it is an action, and its spatial inverse if any."""

    name: str
    wordings: tuple[str, ...]
    action: bool = False
    inverse: str | None = None


RELATIONS: dict[str, RelationKind] = {
    kind.name: kind
    for kind in (
        RelationKind("left of", ("left of", "to the left of"), inverse="right of"),
        RelationKind("right of", ("right of", "to the right of"), inverse="left of"),
        RelationKind("above", ("above", "over"), inverse="below"),
        RelationKind("below", ("below", "beneath"), inverse="above"),
        RelationKind("on", ("on", "on top of")),
        RelationKind("under", ("under", "underneath")),
        RelationKind("in front of", ("in front of",), inverse="behind"),
        RelationKind("behind", ("behind",), inverse="in front of"),
        RelationKind("riding", ("riding",), action=True),
        RelationKind("holding", ("holding",), action=True),
        RelationKind("chasing", ("chasing",), action=True),
        RelationKind("touching", ("touching",), action=True),
    )
}
VAGUE_RELATIONS: tuple[str, ...] = ("with", "next to", "near", "beside")


def admits(subject: str, relation: str, obj: str) -> bool:
    """Whether the small world can show `subject relation obj`."""
    if subject == obj:
        return False
    if relation in ("riding", "chasing"):
        return subject in ANIMATE and obj in ANIMATE | VEHICLES
    if relation == "holding":
        return subject in ANIMATE and obj in THINGS - {"house", "tree", "bed"}
    if relation == "touching":
        return subject in ANIMATE
    return True


def canonical(relation: str) -> str:
    """The wording that benchmarks use for a relation."""
    return RELATIONS[relation].wordings[0]
