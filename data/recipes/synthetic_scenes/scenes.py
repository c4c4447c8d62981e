"""Sample the synthetic scenes: what is there, how it is related, and where it is."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, count

import numpy as np

from data.recipes.synthetic_scenes.layout import Placement, Rng, place, place_extra
from data.recipes.synthetic_scenes.vocabulary import (
    COLORS,
    NOUNS,
    PATTERNS,
    RELATIONS,
    SIZES,
    admits,
)


@dataclass(frozen=True)
class SceneConfig:
    """Statistics of the scenes."""

    seed: int = 0  # seed of the whole world
    zipf: float = 0.8  # exponent of the frequency of noun pairs; frequent pairs meet in a batch
    natural_order: float = 0.75  # share of scenes in the usual order of their pair
    relation_concentration: float = 0.5  # Dirichlet; below 1 a pair predicts much of its relation
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
        """Adjectives that are true of it, in their English order."""
        return tuple(word for word in (self.size, self.pattern, self.color) if word)


@dataclass(frozen=True)
class Content:
    """What a scene shows: `things[0] relation things[1]`, and further things."""

    things: tuple[Thing, ...]
    relation: str

    def with_thing(self, index: int, **changes: str | None) -> Content:
        """Return the content with fields of one thing replaced."""
        thing = replace(self.things[index], **changes)
        return replace(self, things=(*self.things[:index], thing, *self.things[index + 1 :]))

    def swapped(self, *fields: str) -> Content:
        """Return the content with its first two things swapped, or only some of their fields."""
        fields = fields or ("noun", "color", "size", "pattern")
        first, second = ({name: getattr(t, name) for name in fields} for t in self.things[:2])
        return self.with_thing(0, **second).with_thing(1, **first)

    def swappable(self) -> bool:
        """Return whether the synthetic scenes can show the content with its arguments swapped."""
        return admits(self.things[1].noun, self.relation, self.things[0].noun)


@dataclass(frozen=True)
class Scene:
    """A content that is arranged on the unit square, ready to be drawn."""

    content: Content
    placements: tuple[Placement, ...]
    style: str
    seed: int


def generator(seed: int, *keys: str | int) -> Rng:
    """Return a generator that depends on the seed and on the keys only."""
    # Not `hash`, which Python salts in each process.
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return np.random.default_rng([seed, *words])


def text_generator(config: SceneConfig, split: str, index: int) -> Rng:
    """Return the generator of a scene's texts, which no draw of the scene itself changes."""
    return generator(config.seed, split, index, "text")


@cache
def _pairs(config: SceneConfig) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return unordered noun pairs by falling frequency, with their probabilities."""
    pairs = list(combinations(NOUNS, 2))
    order = generator(config.seed, "pairs").permutation(len(pairs))
    weights = np.arange(1, len(pairs) + 1, dtype=np.float64) ** -config.zipf
    return [pairs[i] for i in order], weights / weights.sum()


@cache
def _relations(config: SceneConfig, a: str, b: str) -> tuple[list[str], np.ndarray]:
    """Return the relations that the pair admits in some order, with their probabilities."""
    names = [n for n in RELATIONS if admits(a, n, b) or admits(b, n, a)]
    # Actions admit fewer pairs than positions; where they are possible, they are twice as frequent.
    action = np.array([2.0 if RELATIONS[n].action else 1.0 for n in names])
    rng = generator(config.seed, "relations", a, b)
    return names, rng.dirichlet(config.relation_concentration * action)


def _sample_thing(config: SceneConfig, noun: str, rng: Rng) -> Thing:
    typical = rng.random() < config.typical_color
    # The typical colour depends on the noun alone.
    drawn = generator(config.seed, "color", noun) if typical else rng
    color = str(drawn.choice(list(COLORS)))
    size = str(rng.choice(SIZES)) if rng.random() < config.sized else None
    pattern = str(rng.choice(PATTERNS)) if rng.random() < config.patterned else None
    return Thing(noun, color, size, pattern)


def _sample_content(config: SceneConfig, rng: Rng) -> Content:
    """Sample a pair by frequency, a relation given the pair, an order, and further things."""
    pairs, shares = _pairs(config)
    nouns = list(pairs[rng.choice(len(pairs), p=shares)])
    names, relation_shares = _relations(config, *nouns)
    relation = names[rng.choice(len(names), p=relation_shares)]
    # Each pair has a usual order in each relation, by a hash that is the same everywhere.
    usual = zlib.crc32(f"{config.seed}{nouns[0]}{relation}{nouns[1]}".encode()) % 2
    if usual != (rng.random() >= config.natural_order):
        nouns.reverse()
    # Some relations are possible in one order only.
    if not admits(nouns[0], relation, nouns[1]):
        nouns.reverse()
    for _ in range(rng.choice(len(config.extras), p=config.extras)):
        extra = pairs[rng.choice(len(pairs), p=shares)][int(rng.integers(2))]
        # Texts name things by their nouns, so no noun comes twice.
        if extra not in nouns:
            nouns.append(extra)
    return Content(tuple(_sample_thing(config, noun, rng) for noun in nouns), relation)


def arrange(content: Content, seed: int, style: str = "plain") -> Scene:
    """Place the things so that the main relation is visible, and no other reading of it."""
    rng = generator(seed, "arrange")
    subject, obj, *extras = (thing.size for thing in content.things)
    placements = list(place(content.relation, subject, obj, rng))
    for size in extras:
        placements.append(place_extra(placements, size, rng))
    return Scene(content, tuple(placements), style, seed)


def sample_scene(config: SceneConfig, split: str, index: int, style: str = "plain") -> Scene:
    """Return scene number `index` of a split; the same arguments give the same scene."""
    rng = generator(config.seed, split, index)
    return arrange(_sample_content(config, rng), int(rng.integers(2**31)), style)


def sample_scenes(config: SceneConfig, split: str, n: int | None = None) -> Iterator[Scene]:
    """Yield the first `n` scenes of a split, or scenes without end if `n` is None."""
    return (sample_scene(config, split, index) for index in (count() if n is None else range(n)))


def spread(
    config: SceneConfig, split: str, n: int, relations: Sequence[str], swappable: bool = False
) -> list[Scene]:
    """Return `n` scenes with as nearly as possible equally many of each relation.

    With `swappable`, their arguments can be swapped.
    """
    wanted = dict.fromkeys(relations, -(-n // len(relations)))
    selected, spare = [], []
    # After so many, other relations stand in for those that are too rare.
    for scene in sample_scenes(config, split, 20 * n):
        name = scene.content.relation
        if name in wanted and (scene.content.swappable() or not swappable):
            (selected if wanted[name] > 0 else spare).append(scene)
            wanted[name] -= 1
        if len(selected) == n:
            break
    return (selected + spare)[:n]


def rearranged(scene: Scene, content: Content) -> Scene:
    """Arrange another content anew, in the style of a scene."""
    # With another seed, or things would keep their places.
    return arrange(content, (scene.seed + 1) % 2**31, scene.style)


def fair_order(scene: Scene, index: int) -> Scene:
    """Return the scene, with its arguments swapped if `index` is odd and a swap is possible."""
    # So that the usual order of a pair does not give the answer away.
    if index % 2 and scene.content.swappable():
        return rearranged(scene, scene.content.swapped())
    return scene
