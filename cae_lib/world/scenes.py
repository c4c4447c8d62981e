"""Scenes of the small world: what is there, how it is related, and where it stands.

A scene is a content (things, and one main relation between the first two) and its arrangement on
the unit square. Both are functions of a seed, so a picture can be drawn again from its number,
and a content can be edited (arguments exchanged, a noun replaced) and arranged anew.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count, islice

import numpy as np

from cae_lib.world.layout import Placement, place, place_extra
from cae_lib.world.vocabulary import COLORS, NOUNS, PATTERNS, RELATIONS, SIZES, admits

PATIENCE = 20
"""Scenes looked at for each one wanted, before rare groups are filled up with others."""


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

    def swapped(self) -> Content:
        """The same things with the arguments of the relation exchanged."""
        return replace(self, things=(self.things[1], self.things[0], *self.things[2:]))

    def with_thing(self, index: int, **changes: str | None) -> Content:
        """The content with fields of one thing replaced."""
        things = list(self.things)
        things[index] = replace(things[index], **changes)
        return replace(self, things=tuple(things))

    def swappable(self) -> bool:
        """Whether the small world can show the content with its arguments exchanged."""
        return admits(self.things[1].noun, self.relation, self.things[0].noun)

    def nouns_exchanged(self) -> Content:
        """The content with the nouns of the first two things exchanged."""
        first, second = self.things[0].noun, self.things[1].noun
        return self.with_thing(0, noun=second).with_thing(1, noun=first)

    def colors_exchanged(self) -> Content:
        """The content with the colours of the first two things exchanged."""
        first, second = self.things[0].color, self.things[1].color
        return self.with_thing(0, color=second).with_thing(1, color=first)


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


@lru_cache(maxsize=8)
def _pairs(config: SceneConfig) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Unordered noun pairs by falling frequency, with their cumulated probabilities."""
    pairs = [(a, b) for i, a in enumerate(NOUNS) for b in NOUNS[i + 1 :]]
    order = generator(config.seed, "pairs").permutation(len(pairs))
    weights = np.arange(1, len(pairs) + 1, dtype=np.float64) ** -config.zipf
    return [pairs[i] for i in order], np.cumsum(weights / weights.sum())


@lru_cache(maxsize=4096)
def _relations(config: SceneConfig, a: str, b: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Relations that the pair admits in some order, with their cumulated probabilities."""
    names = tuple(n for n in RELATIONS if admits(a, n, b) or admits(b, n, a))
    rng = generator(config.seed, "relations", a, b)
    action = np.array([2.0 if RELATIONS[n].action else 1.0 for n in names])
    weights = rng.dirichlet(config.relation_concentration * action)
    return names, np.cumsum(weights)


@lru_cache(maxsize=4096)
def _typical_color(config: SceneConfig, noun: str) -> str:
    return str(generator(config.seed, "color", noun).choice(list(COLORS)))


def _pick(rng: np.random.Generator, cumulated: np.ndarray) -> int:
    index = int(np.searchsorted(cumulated, rng.random(), side="right"))
    return min(index, len(cumulated) - 1)


def sample_thing(config: SceneConfig, noun: str, rng: np.random.Generator) -> Thing:
    """A thing with random attributes, its colour drawn towards the usual one of its noun."""
    typical = rng.random() < config.typical_color
    color = _typical_color(config, noun) if typical else str(rng.choice(list(COLORS)))
    size = str(rng.choice(SIZES)) if rng.random() < config.sized else None
    pattern = str(rng.choice(PATTERNS)) if rng.random() < config.patterned else None
    return Thing(noun, color, size, pattern)


def sample_content(config: SceneConfig, rng: np.random.Generator) -> Content:
    """A random content: a pair by frequency, a relation given the pair, an order, extras."""
    pairs, cumulated = _pairs(config)
    a, b = pairs[_pick(rng, cumulated)]
    names, shares = _relations(config, a, b)
    relation = names[_pick(rng, shares)]
    if zlib.crc32(f"{config.seed}{a}{relation}{b}".encode()) % 2:
        a, b = b, a
    if rng.random() >= config.natural_order:
        a, b = b, a
    if not admits(a, relation, b):
        a, b = b, a
    nouns = [a, b]
    for _ in range(_pick(rng, np.cumsum(config.extras))):
        extra = pairs[_pick(rng, cumulated)][int(rng.integers(2))]
        if extra not in nouns:
            nouns.append(extra)
    return Content(tuple(sample_thing(config, noun, rng) for noun in nouns), relation)


def arrange(content: Content, seed: int, style: str = "plain") -> Scene:
    """Place the things so that the main relation, and no other reading of it, is visible."""
    rng = generator(seed, "arrange")
    sizes = [thing.size for thing in content.things]
    placements = list(place(content.relation, sizes[0], sizes[1], rng))
    for size in sizes[2:]:
        placements.append(place_extra(placements, size, rng))
    return Scene(content, tuple(placements), style, seed)


def sample_scene(config: SceneConfig, split: str, index: int, style: str = "plain") -> Scene:
    """Scene number `index` of a split; the same arguments give the same scene."""
    rng = generator(config.seed, split, index)
    content = sample_content(config, rng)
    return arrange(content, int(rng.integers(2**31)), style)


def scenes(config: SceneConfig, split: str, style: str = "plain") -> Iterator[Scene]:
    """All scenes of a split, without end."""
    return (sample_scene(config, split, index, style) for index in count())


def text_generator(config: SceneConfig, split: str, index: int) -> np.random.Generator:
    """The generator of the texts of one scene, apart from that of the scene itself."""
    return generator(config.seed, split, index, "text")


def spread(
    config: SceneConfig, split: str, n: int, relations: Sequence[str], swappable: bool = False
) -> list[Scene]:
    """`n` scenes of a split, as nearly as possible equally many of each of some relations.

    With `swappable` those whose arguments cannot be exchanged are left out.
    """
    quota = -(-n // len(relations))
    kept: list[Scene] = []
    spare: list[Scene] = []
    sizes: Counter[str] = Counter()
    for scene in islice(scenes(config, split), PATIENCE * n):
        name = scene.content.relation
        if name not in relations or (swappable and not scene.content.swappable()):
            continue
        (kept if sizes[name] < quota else spare).append(scene)
        sizes[name] += 1
        if len(kept) == n:
            break
    return (kept + spare)[:n]


def again(scene: Scene, content: Content) -> Scene:
    """Another content of the same style, arranged anew."""
    return arrange(content, (scene.seed + 1) % 2**31, scene.style)


def fair(scene: Scene, index: int) -> Scene:
    """The scene, or at odd `index` the one with its arguments exchanged, where that can be shown.

    Half of the scenes then stand in either order, so that the usual order of a pair tells nothing.
    """
    turned = index % 2 and scene.content.swappable()
    return again(scene, scene.content.swapped()) if turned else scene
