"""The ground truth of a synthetic scene: what it states, and the region of each part of that.

It imports no PyTorch, so that the page of the heat maps, which draws `EXAMPLES`, starts at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from cae_lab.scene_graphs import read_scene_entries
from data.recipes.synthetic_scenes.draw import IMAGE_SIZE, render
from data.recipes.synthetic_scenes.layout import Placement
from data.recipes.synthetic_scenes.scenes import Content, Scene, Thing, arrange

REGIONS = ("subject", "relation", "object", "rest")
POINTS = 16
"""Points along a patch's side at which regions are read."""

VISIBLE = 40
"""Least change of a colour channel, of 255 levels, that counts as a visible part of a thing."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in fractions of the image's side."""


@dataclass(frozen=True)
class Fact:
    """A subject in a relation to an object."""

    subject: str
    relation: str
    obj: str

    @property
    def caption(self) -> str:
        """The caption that states the fact."""
        return f"the {self.subject} is {self.relation} the {self.obj}"


@dataclass(frozen=True)
class LabelledScene(Fact):
    """What the main pair of an image states, and the placements of subject and object."""

    places: tuple[Placement, Placement]


@dataclass(frozen=True)
class Example(Fact):
    """A scene drawn for the figure, with the colours of subject and object; it is in no corpus.

    It was chosen by its caption before a model saw it.
    """

    colors: tuple[str, str]

    @property
    def scene(self) -> Scene:
        """The scene to draw."""
        things = (Thing(self.subject, self.colors[0]), Thing(self.obj, self.colors[1]))
        return arrange(Content(things, self.relation), 0)


EXAMPLES: tuple[Example, ...] = (
    Example("cat", "touching", "elephant", ("orange", "blue")),
    Example("dog", "chasing", "duck", ("brown", "yellow")),
    Example("bird", "above", "house", ("red", "green")),
)


def labelled_scenes(path: Path) -> dict[str, LabelledScene]:
    """Return the scenes of a file of scene graphs by the file name of their image."""
    scenes = {}
    for entry in read_scene_entries(path, "images"):
        subject, obj = (thing["noun"] for thing in entry["things"][:2])
        places = tuple(Placement(**place) for place in entry["placements"][:2])
        scenes[entry["file_name"]] = LabelledScene(subject, entry["relation"], obj, places)
    return scenes


def contact(scene: Scene) -> int:
    """Count the pixels of a scene's second thing that are next to pixels of its first."""
    first, second = (_silhouette(scene, number) for number in (0, 1))
    return int((ndimage.binary_dilation(first, np.ones((3, 3))) & second).sum())


def _silhouette(scene: Scene, number: int) -> np.ndarray:
    """Return the pixels that a thing's colour changes visibly, bool `(rows, columns)`."""
    contents = (
        scene.content.with_thing(number, color=color, pattern=None) for color in ("red", "blue")
    )
    red, blue = (
        np.asarray(render(replace(scene, content=content)), dtype=int) for content in contents
    )
    return np.abs(red - blue).max(axis=2) > VISIBLE


def region_shares(places: tuple[Placement, Placement], grid: tuple[int, int]) -> np.ndarray:
    """Return the share `(4, rows, columns)` of each patch that lies in each of `REGIONS`."""
    rows, columns = grid
    # the middles of POINTS cells along each side of a patch
    y, x = ((np.arange(n * POINTS) + 0.5) / (n * POINTS) for n in grid)
    masks = region_masks(places, x, y).reshape(len(REGIONS), rows, POINTS, columns, POINTS)
    return masks.mean(axis=(2, 4))


def region_masks(places: tuple[Placement, Placement], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which region each point lies in: bool `(4, len(y), len(x))`, one of the four true."""
    first, second = (
        (p.x - p.scale / 2, p.y - p.scale / 2, p.x + p.scale / 2, p.y + p.scale / 2) for p in places
    )
    in_first, in_second = _in_box(first, x, y), _in_box(second, x, y)
    around = (*np.minimum(first, second)[:2], *np.maximum(first, second)[2:])
    # The relation has what is in both squares, what is between them (in the box around both, but in
    # neither), and the marks that it draws itself. Subject and object have the rest of theirs.
    relation = _in_box(around, x, y) & (in_first == in_second)
    for mark in (mark for place in places for mark in mark_boxes(place)):
        relation |= _in_box(mark, x, y)
    subject, obj = in_first & ~relation, in_second & ~relation
    return np.stack([subject, relation, obj, ~(subject | relation | obj)])


def mark_boxes(place: Placement) -> list[Box]:
    """Return boxes of the marks that are drawn beside moving or touching things."""
    # The numbers are those of `draw._marks`, with a few pixels to spare.
    pixel, half = 1 / IMAGE_SIZE, place.scale / 2
    boxes = []
    if place.motion:
        near = place.x - place.motion * half
        far = place.x - place.motion * (half + 13 * pixel)
        reach = 0.4 * half + 2 * pixel
        boxes.append((min(near, far), place.y - reach, max(near, far), place.y + reach))
    if place.contact:
        point = place.x + place.contact * half
        top, bottom = place.y - 1.15 * half - 8 * pixel, place.y - 0.9 * half + 5 * pixel
        boxes.append((point - 3 * pixel, top, point + 3 * pixel, bottom))
    return boxes


def _in_box(limits: Box, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    left, top, right, bottom = limits
    # half-open, so that of adjacent boxes one has their common edge
    return ((x >= left) & (x < right))[None, :] & ((y >= top) & (y < bottom))[:, None]
