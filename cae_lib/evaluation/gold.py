"""The parser against the small world's gold roles, word by word."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cae_lib.data.training_set import data_root, default_tagger
from cae_lib.errors import DataError
from cae_lib.words.roles import OTHER, ROLE_NAMES, Span

CAPTIONS = "coco/annotations/captions_val2014.json"
GRAPHS = "coco/annotations/scene_graphs_val2014.json"


def word_roles(text: str, spans: Sequence[Span]) -> list[int]:
    """Role of each word of a caption (words are divided by spaces): that of the span it lies in."""
    return [
        next((s.role for s in spans if s.start <= match.start() and match.end() <= s.end), OTHER)
        for match in re.finditer(r"\S+", text)
    ]


def confusion(
    relations: Sequence[str], found: Sequence[Sequence[int]], gold: Sequence[Sequence[int]]
) -> pd.DataFrame:
    """Count words by their found and their true role.

    Args:
        relations: Relation that each caption states, "" for none.
        found: Roles of the words of each caption.
        gold: The true ones, in the same order.

    Returns:
        Columns relation, found, gold (names of roles), n (words). The precision of a role is the
        share of its found words whose gold is the same, its recall that of its gold words.
    """
    counts = Counter(
        (relation, ROLE_NAMES[a], ROLE_NAMES[b])
        for relation, ours, theirs in zip(relations, found, gold, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )
    rows = [(*key, n) for key, n in sorted(counts.items())]
    return pd.DataFrame(rows, columns=["relation", "found", "gold", "n"])


def parser_table(profile: str) -> pd.DataFrame:
    """Compare the default tagger with the gold of the COCO val2014 captions; see `confusion`.

    Raises:
        DataError: There is no gold: only the small world has it.
    """
    texts, gold, relations = _gold(data_root(profile))
    found = [word_roles(t, s) for t, s in zip(texts, default_tagger().tag(texts), strict=True)]
    return confusion(relations, found, gold)


def _gold(root: Path) -> tuple[list[str], list[list[int]], list[str]]:
    """Captions, gold roles of their words, and the relation each states."""
    captions, graphs = (_annotations(root / name) for name in (CAPTIONS, GRAPHS))
    spans = {entry["id"]: [Span(*span) for span in entry["spans"]] for entry in graphs}
    stated = {entry["id"]: entry["relations"] for entry in graphs}
    texts = [entry["caption"] for entry in captions]
    gold = [word_roles(entry["caption"], spans[entry["id"]]) for entry in captions]
    relations = [stated[e["id"]][0][1] if stated[e["id"]] else "" for e in captions]
    return texts, gold, relations


def _annotations(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["annotations"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read ({error!r}); build the small world with `cae world build`"
        ) from error
