"""The regions of a small-world picture that belong to its subject, its object and their relation.

They come from the gold scene graph: each thing's box is the square it is drawn in. With S and O the
boxes of subject and object, and U the smallest box around both, every point of the picture lies in
one region:

- relation: in S and O both (they overlap), in U but in neither (the gap between them), or at the
  marks that the relation itself draws (lines of motion, marks of contact);
- subject, object: in S or O alone;
- rest: outside U.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cae_lib.errors import DataError
from cae_lib.world.draw import IMAGE_SIZE
from cae_lib.world.layout import Placement

REGIONS = ("subject", "relation", "object", "rest")
POINTS = 16
"""Points of a patch's side at which regions are read."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class GoldScene:
    """What the small world's gold says of a picture's main pair.

    Attributes:
        subject, relation, obj: The statement that the picture shows.
        places: Placements of subject and object.
    """

    subject: str
    relation: str
    obj: str
    places: tuple[Placement, Placement]


def gold_scenes(path: Path) -> dict[str, GoldScene]:
    """The scenes of a `scene_graphs_*.json` by file name of their picture.

    Raises:
        DataError: The file cannot be read, or lacks a field; the message names both.
    """
    try:
        images = json.loads(path.read_text(encoding="utf-8"))["images"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read ({error!r}); build the small world with `cae world build`"
        ) from error
    return {entry["file_name"]: _scene(entry, path) for entry in images}


def _scene(entry: Mapping[str, Any], path: Path) -> GoldScene:
    try:
        (first, second), places = entry["things"][:2], entry["placements"][:2]
        return GoldScene(first["noun"], entry["relation"], second["noun"],
                         (Placement(**places[0]), Placement(**places[1])))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{path}: picture {entry.get('file_name')} has no gold of two things ({error!r}); "
            "build the small world again"
        ) from error


def region_shares(places: tuple[Placement, Placement], grid: tuple[int, int]) -> np.ndarray:
    """The share of each patch that lies in each region.

    Args:
        places: Placements of subject and object.
        grid: Rows and columns of patches.

    Returns:
        `(4, rows, columns)` in the order of `REGIONS`; sums to 1 over the first axis.
    """
    rows, columns = grid
    y = (np.arange(rows * POINTS) + 0.5) / (rows * POINTS)
    x = (np.arange(columns * POINTS) + 0.5) / (columns * POINTS)
    masks = region_masks(places, x, y).reshape(len(REGIONS), rows, POINTS, columns, POINTS)
    return masks.mean(axis=(2, 4))


def region_masks(places: tuple[Placement, Placement], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which region each point lies in: bool `(4, len(y), len(x))`, just one of the four true."""
    first, second = (box(place) for place in places)
    in_first, in_second = _inside(first, x, y), _inside(second, x, y)
    around = (min(first[0], second[0]), min(first[1], second[1]),
              max(first[2], second[2]), max(first[3], second[3]))
    marks = np.zeros_like(in_first)
    for mark in (mark for place in places for mark in mark_boxes(place)):
        marks |= _inside(mark, x, y)
    relation = (_inside(around, x, y) & (in_first == in_second)) | marks
    subject, obj = in_first & ~relation, in_second & ~relation
    return np.stack([subject, relation, obj, ~(subject | relation | obj)])


def box(place: Placement) -> Box:
    """Left, top, right, bottom of a thing's square, fractions of the picture's side."""
    half = place.scale / 2
    return place.x - half, place.y - half, place.x + half, place.y + half


def mark_boxes(place: Placement) -> list[Box]:
    """Boxes of the marks that `cae_lib.world.draw` adds to a moving or touching thing."""
    pixel, half = 1 / IMAGE_SIZE, place.scale / 2
    found = []
    if place.motion:
        near = place.x - place.motion * half
        far = place.x - place.motion * (half + 13 * pixel)
        reach = 0.4 * half + 2 * pixel
        found.append((min(near, far), place.y - reach, max(near, far), place.y + reach))
    if place.contact:
        point = place.x + place.contact * half
        top, bottom = place.y - 1.15 * half - 8 * pixel, place.y - 0.9 * half + 5 * pixel
        found.append((point - 3 * pixel, top, point + 3 * pixel, bottom))
    return found


def _inside(limits: Box, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    left, top, right, bottom = limits
    return ((x >= left) & (x < right))[None, :] & ((y >= top) & (y < bottom))[:, None]
