"""Name and read the files with the ground truth of synthetic images and captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cae_lib.errors import DataError

CAPTIONS = "coco/annotations/captions_val2014.json"
GRAPHS = "coco/annotations/scene_graphs_val2014.json"


def read_gold(path: Path, key: str) -> list[dict[str, Any]]:
    """Read the "images" or "annotations" of a file of ground truth.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read ({error!r}); build the small world with `cae world build`"
        ) from error
