"""Scenes for a set: from a split of its own, evenly over groups where a set is averaged so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice

import numpy as np

from cae_lib.data.world.scenes import Content, Scene, SceneConfig, arrange, generator, sample_scene
from cae_lib.data.world.vocabulary import admits

PATIENCE = 20
"""Scenes looked at for each one wanted, before rare groups are filled up with others."""


def scenes(config: SceneConfig, split: str, style: str = "plain") -> Iterator[Scene]:
    """All scenes of a split, without end."""
    return (sample_scene(config, split, index, style) for index in count())


def text_generator(config: SceneConfig, split: str, index: int) -> np.random.Generator:
    """The generator of the texts of one scene, apart from that of the scene itself."""
    return generator(config.seed, split, index, "text")


def spread(found: Iterator[Scene], n: int, group: Callable[[Content], str | None],
           groups: Sequence[str]) -> list[Scene]:  # fmt: skip
    """`n` scenes, as nearly as possible equally many of each group.

    Args:
        found: Scenes of a split.
        n: Number of scenes wanted.
        group: Name of a content's group, or None to leave it out.
        groups: All names.
    """
    quota = -(-n // len(groups))
    sizes: Counter[str] = Counter()
    kept: list[Scene] = []
    spare: list[Scene] = []
    for scene in islice(found, PATIENCE * n):
        name = group(scene.content)
        if name is None:
            continue
        if sizes[name] < quota:
            sizes[name] += 1
            kept.append(scene)
        else:
            spare.append(scene)
        if len(kept) == n:
            break
    return (kept + spare)[:n]


def swappable(content: Content) -> bool:
    """Whether the small world can show the content with its arguments exchanged."""
    first, second = content.things[0].noun, content.things[1].noun
    return admits(second, content.relation, first)


def fair(scene: Scene, index: int) -> Scene:
    """The scene, or at odd `index` the one with its arguments exchanged, where that can be shown.

    Half of the scenes then stand in either order, so that the usual order of a pair tells nothing.
    """
    if index % 2 == 0 or not swappable(scene.content):
        return scene
    return again(scene, scene.content.swapped())


def again(scene: Scene, content: Content) -> Scene:
    """Another content of the same style, arranged anew."""
    return arrange(content, (scene.seed + 1) % 2**31, scene.style)
