"""The synthetic scenes as the library sees them: files of ground truth, and words of captions.

`data/recipes/synthetic_scenes` draws the scenes and writes these files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError

CAPTIONS_FILE = "coco/annotations/captions_val2014.json"
GRAPHS_FILE = "coco/annotations/scene_graphs_val2014.json"
FLICKR_GRAPHS_FILE = "flickr30k/scene_graphs_test.json"
"""Files below the folder of the datasets."""

NOUNS = tuple(
    "cat dog horse elephant person bird sheep cow rabbit duck turtle bear car bus truck boat train "
    "bicycle house tree chair bed ball cup book umbrella hat flower clock guitar apple kite shoe "
    "key".split()
)
"""Nouns of the captions; their order is that of the classes in zero-shot classification."""

ADJECTIVES = tuple(
    "small large striped spotted checkered red orange yellow green blue purple pink brown".split()
)
RELATIONS = tuple(
    "left of, to the left of, right of, to the right of, above, over, below, beneath, on, on top "
    "of, under, underneath, in front of, behind, riding, holding, chasing, touching".split(", ")
)
"""Wordings of relations."""

VAGUE_RELATIONS = ("with", "next to", "near", "beside")

_WORDINGS = sorted((*RELATIONS, *VAGUE_RELATIONS), key=len, reverse=True)
_RELATION = re.compile(rf"\b({'|'.join(_WORDINGS)})\b")
_POSITION = re.compile(r"\b(on the (left|right)|at the (top|bottom))\b(?! of)")


def read_scene_graphs(path: Path, key: str) -> list[dict[str, Any]]:
    """Read the "images" or "annotations" of a file of captions or of scene graphs.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read ({error!r}); build the synthetic scenes with `python -m "
            "data.recipes.synthetic_scenes.build`"
        ) from error


def count_roles(caption: str) -> tuple[int, int, int]:
    """Count the words of a synthetic scene's caption that name an object, attribute or relation.

    The words are those of the scenes' own vocabulary, in lower case and without punctuation. "on
    top of" counts as one relation, "on the left" as none.
    """
    words = caption.split()
    n_objects = sum(word in NOUNS for word in words)
    n_attributes = sum(word in ADJECTIVES for word in words)
    return n_objects, n_attributes, len(_RELATION.findall(_POSITION.sub("", caption)))
