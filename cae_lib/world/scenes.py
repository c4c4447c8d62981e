"""Scenes of the small world: what is there, how it is related, and where it stands.

A scene is a content (things, and one relation between the first two) and its arrangement on the
unit square, both functions of a seed. A content can be edited and arranged anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, count

import numpy as np

from cae_lib.world.layout import Placement, place, place_extra
from cae_lib.world.vocabulary import COLORS, NOUNS, PATTERNS, RELATIONS, SIZES, admits

PATIENCE = 20  # scenes looked at for each one wanted, before rare groups are filled up with others


@dataclass(frozen=True)
class SceneConfig:
    """Statistics of the scenes."""

    seed: int = 0  # seed of the whole world
    zipf: float = 0.8  # exponent of the frequency of noun pairs; frequent pairs meet in a batch
    natural_order: float = 0.75  # share of scenes in the usual order of their pair
    # Dirichlet concentration of the relations of a pair of nouns; below 1 the pair predicts much of
    # the relation, as in natural pictures.
    relation_concentration: float = 0.5
    typical_color: float = 0.6  # share of things in the usual colour of their noun
    patterned: float = 0.3  # share of things with a pattern
    sized: float = 0.4  # share of things that are notably small or large
    extras: tuple[float, float, float] = (0.5, 0.35, 0.15)  # shares of 0, 1, 2 further things


@dataclass(frozen=True)
class Thing:
    """One object: its noun, colour, and, where notable, its size and pattern."""

    noun: str
    color: str
    size: str | None = None
    pattern: str | None = None

    @property
    def attributes(self) -> tuple[str, ...]:
        """Adjectives that hold for it, in their order in English."""
        return tuple(word for word in (self.size, self.pattern, self.color) if word)


@dataclass(frozen=True)
class Content:
    """What a scene shows: `things[0] relation things[1]`, and further things."""

    things: tuple[Thing, ...]
    relation: str

    def with_thing(self, index: int, **changes: str | None) -> Content:
        """The content with fields of one thing replaced."""
        things = list(self.things)
        things[index] = replace(things[index], **changes)
        return replace(self, things=tuple(things))

    def exchanged(self, *fields: str) -> Content:
        """The content with its first two things exchanged, or only some fields of theirs."""
        first, second = self.things[:2]
        if not fields:
            return replace(self, things=(second, first, *self.things[2:]))
        values = ({name: getattr(thing, name) for name in fields} for thing in (second, first))
        return self.with_thing(0, **next(values)).with_thing(1, **next(values))

    def swappable(self) -> bool:
        """Whether the small world can show the content with its arguments exchanged."""
        return admits(self.things[1].noun, self.relation, self.things[0].noun)


@dataclass(frozen=True)
class Scene:
    """A content arranged on the unit square, ready to be drawn."""

    content: Content
    placements: tuple[Placement, ...]
    style: str
    seed: int


def generator(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator that depends on the seed and on the keys only."""
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return np.random.default_rng([seed, *words])


def text_generator(config: SceneConfig, split: str, index: int) -> np.random.Generator:
    """The generator of the texts of one scene, apart from that of the scene itself."""
    return generator(config.seed, split, index, "text")


@cache
def _pairs(config: SceneConfig) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Unordered noun pairs by falling frequency, with their probabilities."""
    pairs = list(combinations(NOUNS, 2))
    order = generator(config.seed, "pairs").permutation(len(pairs))
    weights = np.arange(1, len(pairs) + 1, dtype=np.float64) ** -config.zipf
    return [pairs[i] for i in order], weights / weights.sum()


@cache
def _relations(config: SceneConfig, a: str, b: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Relations that the pair admits in some order, with their probabilities."""
    names = tuple(n for n in RELATIONS if admits(a, n, b) or admits(b, n, a))
    action = np.array([2.0 if RELATIONS[n].action else 1.0 for n in names])
    rng = generator(config.seed, "relations", a, b)
    return names, rng.dirichlet(config.relation_concentration * action)


@cache
def _typical_color(seed: int, noun: str) -> str:
    return str(generator(seed, "color", noun).choice(list(COLORS)))


def _sample_thing(config: SceneConfig, noun: str, rng: np.random.Generator) -> Thing:
    typical = rng.random() < config.typical_color
    color = _typical_color(config.seed, noun) if typical else str(rng.choice(list(COLORS)))
    size = str(rng.choice(SIZES)) if rng.random() < config.sized else None
    pattern = str(rng.choice(PATTERNS)) if rng.random() < config.patterned else None
    return Thing(noun, color, size, pattern)


def _sample_content(config: SceneConfig, rng: np.random.Generator) -> Content:
    """A pair by frequency, a relation given the pair, an order, extras."""
    pairs, shares = _pairs(config)
    nouns = list(pairs[rng.choice(len(pairs), p=shares)])
    names, relation_shares = _relations(config, *nouns)
    relation = names[rng.choice(len(names), p=relation_shares)]
    usual = zlib.crc32(f"{config.seed}{nouns[0]}{relation}{nouns[1]}".encode()) % 2
    if usual != (rng.random() >= config.natural_order):
        nouns.reverse()
    if not admits(nouns[0], relation, nouns[1]):
        nouns.reverse()
    for _ in range(rng.choice(len(config.extras), p=config.extras)):
        extra = pairs[rng.choice(len(pairs), p=shares)][int(rng.integers(2))]
        if extra not in nouns:
            nouns.append(extra)
    return Content(tuple(_sample_thing(config, noun, rng) for noun in nouns), relation)


def arrange(content: Content, seed: int, style: str = "plain") -> Scene:
    """Place the things so that the main relation, and no other reading of it, is visible."""
    rng = generator(seed, "arrange")
    subject, obj, *extras = (thing.size for thing in content.things)
    placements = list(place(content.relation, subject, obj, rng))
    for size in extras:
        placements.append(place_extra(placements, size, rng))
    return Scene(content, tuple(placements), style, seed)


def sample_scene(config: SceneConfig, split: str, index: int, style: str = "plain") -> Scene:
    """Scene number `index` of a split; the same arguments give the same scene."""
    rng = generator(config.seed, split, index)
    return arrange(_sample_content(config, rng), int(rng.integers(2**31)), style)


def scenes(config: SceneConfig, split: str, n: int | None = None) -> Iterator[Scene]:
    """The first `n` scenes of a split, or all of them, without end."""
    return (sample_scene(config, split, index) for index in (count() if n is None else range(n)))


def spread(
    config: SceneConfig, split: str, n: int, relations: Sequence[str], swappable: bool = False
) -> list[Scene]:
    """`n` scenes of a split, as nearly as possible equally many of each of some relations.

    With `swappable` those whose arguments cannot be exchanged are left out.
    """
    wanted = dict.fromkeys(relations, -(-n // len(relations)))
    kept: list[Scene] = []
    spare: list[Scene] = []
    for scene in scenes(config, split, PATIENCE * n):
        name = scene.content.relation
        if name in wanted and (scene.content.swappable() or not swappable):
            (kept if wanted[name] > 0 else spare).append(scene)
            wanted[name] -= 1
        if len(kept) == n:
            break
    return (kept + spare)[:n]


def again(scene: Scene, content: Content) -> Scene:
    """Another content of the same style, arranged anew."""
    return arrange(content, (scene.seed + 1) % 2**31, scene.style)


def fair(scene: Scene, index: int) -> Scene:
    """The scene, at odd `index` with its arguments exchanged, where that can be shown.

    Half of the scenes then stand in either order, so that the usual order of a pair tells nothing.
    """
    turned = index % 2 and scene.content.swappable()
    return again(scene, scene.content.exchanged()) if turned else scene
