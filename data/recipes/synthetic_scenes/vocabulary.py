"""List the words of the synthetic scenes: nouns with their glyphs, attributes and relations.

Swapping the arguments of any relation changes the image.
"""

from __future__ import annotations

from dataclasses import dataclass

_GLYPHS = (
    "cat 🐈 dog 🐕 horse 🐎 elephant 🐘 person 🧍 bird 🐦 sheep 🐑 cow 🐄 rabbit 🐇 "
    "duck 🦆 turtle 🐢 bear 🐻",
    "car 🚗 bus 🚌 truck 🚚 boat ⛵ train 🚂 bicycle 🚲",
    "house 🏠 tree 🌳 chair 🪑 bed 🛏 ball ⚽ cup ☕ book 📖 umbrella ☂ hat 🎩 "
    "flower 🌷 clock ⏰ guitar 🎸 apple 🍎 kite 🪁 shoe 👞 key 🔑",
)
ANIMATE, VEHICLES, THINGS = (frozenset(text.split()[::2]) for text in _GLYPHS)
_WORDS = " ".join(_GLYPHS).split()
GLYPHS: dict[str, str] = dict(zip(_WORDS[::2], _WORDS[1::2], strict=True))
NOUNS: tuple[str, ...] = tuple(GLYPHS)

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (246, 211, 45),
    "green": (52, 160, 70),
    "blue": (45, 105, 220),
    "purple": (140, 70, 190),
    "pink": (245, 145, 190),
    "brown": (135, 85, 45),
}
SIZES: tuple[str, ...] = ("small", "large")
PATTERNS: tuple[str, ...] = ("striped", "spotted", "checkered")
# In the order in which English puts them before a noun.
ADJECTIVES = {"size": SIZES, "pattern": PATTERNS, "color": tuple(COLORS)}
KIND_OF: dict[str, str] = {word: kind for kind, words in ADJECTIVES.items() for word in words}


@dataclass(frozen=True)
class RelationKind:
    """One relation; its name is its first wording, and `inverse` the name of another one."""

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
ACTIONS: tuple[str, ...] = tuple(name for name, kind in RELATIONS.items() if kind.action)
# What may be subject and object of an action; positions admit any two nouns.
_ARGUMENTS = {
    "riding": (ANIMATE, ANIMATE | VEHICLES),
    "chasing": (ANIMATE, ANIMATE | VEHICLES),
    "holding": (ANIMATE, THINGS - {"house", "tree", "bed"}),
    "touching": (ANIMATE, GLYPHS),
}
VAGUE_RELATIONS: tuple[str, ...] = ("with", "next to", "near", "beside")


def admits(subject: str, relation: str, obj: str) -> bool:
    """Return whether the synthetic scenes can show `subject relation obj`."""
    subjects, objects = _ARGUMENTS.get(relation, (GLYPHS, GLYPHS))
    return subject != obj and subject in subjects and obj in objects
