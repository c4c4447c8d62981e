"""Read the ground truth of the synthetic scenes, and count the role words of their captions.

`data/recipes/synthetic_scenes` draws the scenes and writes their captions and scene graphs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError

CAPTIONS_FILE = "coco/annotations/captions_val2014.json"
"""File with the captions of the scenes in `coco/val2014`, relative to a profile's folder."""

GRAPHS_FILE = "coco/annotations/scene_graphs_val2014.json"
"""File with the scene graphs of the scenes in `coco/val2014`, relative to a profile's folder."""

FLICKR_GRAPHS_FILE = "flickr30k/scene_graphs_test.json"
"""File with the scene graphs of Flickr30K's test scenes, relative to a profile's folder."""

NOUNS = tuple(
    "cat dog horse elephant person bird sheep cow rabbit duck turtle bear car bus truck boat train "
    "bicycle house tree chair bed ball cup book umbrella hat flower clock guitar apple kite shoe "
    "key".split()
)
"""Object words of the captions, in the order of the classes in zero-shot classification."""

ADJECTIVES = tuple(
    "small large striped spotted checkered red orange yellow green blue purple pink brown".split()
)
"""Attribute words of the captions."""

RELATIONS = tuple(
    "left of, to the left of, right of, to the right of, above, over, below, beneath, on, on top "
    "of, under, underneath, in front of, behind, riding, holding, chasing, touching".split(", ")
)
"""Words that state a relation of the scene in a caption."""

VAGUE_RELATIONS = ("with", "next to", "near", "beside")
"""Words that join two objects in a caption without stating their relation."""

_WORDINGS = sorted((*RELATIONS, *VAGUE_RELATIONS), key=len, reverse=True)
_RELATION = re.compile(rf"\b({'|'.join(_WORDINGS)})\b")
_POSITION = re.compile(r"\b(on the (left|right)|at the (top|bottom))\b(?! of)")


def read_scene_entries(path: Path, key: str) -> list[dict[str, Any]]:
    """Read one list of entries from a JSON file of scene graphs or captions.

    Args:
        path: JSON file with an object of lists.
        key: Name of the list: "images", with an entry for each image, or "annotations", with an
            entry for each caption.

    Raises:
        DataError: If the file is missing or damaged, or has no such list.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error!r}); build the synthetic scenes with `python -m "
            "data.recipes.synthetic_scenes.build`"
        ) from error


def count_roles(caption: str) -> tuple[int, int, int]:
    """Count the object, attribute and relation words in a caption of a synthetic scene.

    Only words of the scenes' own vocabulary count, and only in lower case. An object or attribute
    with punctuation attached, such as "cat,", does not count. Vague relations such as "near" count
    as relations. "on top of" counts as one relation, and a position in the image such as "on the
    left" as none.

    Returns:
        The numbers of objects, attributes and relations.
    """
    words = caption.split()
    n_objects = sum(word in NOUNS for word in words)
    n_attributes = sum(word in ADJECTIVES for word in words)
    return n_objects, n_attributes, len(_RELATION.findall(_POSITION.sub("", caption)))
