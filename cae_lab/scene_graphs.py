"""Read the ground truth of the synthetic scenes, and count the role words of their captions.

`data/recipes/synthetic_scenes` draws the scenes and writes their captions and scene graphs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError

# Relative to a profile's folder.
CAPTIONS_FILE = "coco/annotations/captions_val2014.json"
GRAPHS_FILE = "coco/annotations/scene_graphs_val2014.json"
FLICKR_GRAPHS_FILE = "flickr30k/scene_graphs_test.json"

# Object words of the captions, in the order of the classes in zero-shot classification.
NOUNS = tuple(
    "cat dog horse elephant person bird sheep cow rabbit duck turtle bear car bus truck boat train "
    "bicycle house tree chair bed ball cup book umbrella hat flower clock guitar apple kite shoe "
    "key".split()
)

# Attribute words of the captions.
ADJECTIVES = tuple(
    "small large striped spotted checkered red orange yellow green blue purple pink brown".split()
)

# Words that state a relation of the scene in a caption.
RELATIONS = tuple(
    "left of, to the left of, right of, to the right of, above, over, below, beneath, on, on top "
    "of, under, underneath, in front of, behind, riding, holding, chasing, touching".split(", ")
)

# Words that join two objects in a caption without stating their relation.
VAGUE_RELATIONS = ("with", "next to", "near", "beside")

# The longest first, since a pattern takes its first alternative: "on top of" is not "on".
_WORDINGS = sorted((*RELATIONS, *VAGUE_RELATIONS), key=len, reverse=True)
_RELATION = re.compile(rf"\b({'|'.join(_WORDINGS)})\b")
# "on the left" is a position in the image, "on the left of" a relation.
_POSITION = re.compile(r"\b(on the (left|right)|at the (top|bottom))\b(?! of)")


def read_scene_entries(path: Path, key: str) -> list[dict[str, Any]]:
    """Read the entries of "images" or of captions ("annotations") from a JSON file of scenes."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error!r}); build the synthetic scenes with `python -m "
            "data.recipes.synthetic_scenes.build`"
        ) from error


def count_roles(caption: str) -> tuple[int, int, int]:
    """Count the object, attribute and relation words in a caption of a synthetic scene.

    Only words of the scenes' own vocabulary count; vague relations do, positions such as "on the
    left" do not.
    """
    words = caption.split()
    n_objects = sum(word in NOUNS for word in words)
    n_attributes = sum(word in ADJECTIVES for word in words)
    return n_objects, n_attributes, len(_RELATION.findall(_POSITION.sub("", caption)))
