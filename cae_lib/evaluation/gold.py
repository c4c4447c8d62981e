"""The parser against the small world's gold roles: precision and recall, role by role."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cae_lib.data.training_set import data_root, default_tagger
from cae_lib.errors import DataError
from cae_lib.records import load_or_run
from cae_lib.words.roles import OTHER, ROLE_NAMES, Span

CAPTIONS = "coco/annotations/captions_val2014.json"
GRAPHS = "coco/annotations/scene_graphs_val2014.json"


def word_roles(text: str, spans: Sequence[Span]) -> list[int]:
    """Role of each word of a caption (words are divided by spaces): that of the span it lies in."""
    return [
        next((s.role for s in spans if s.start <= match.start() and match.end() <= s.end), OTHER)
        for match in re.finditer(r"\S+", text)
    ]


def agreement(found: Sequence[Sequence[int]], gold: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Precision and recall of each role over words.

    Args:
        found: Roles of the words of each caption.
        gold: The true ones, in the same order.

    Returns:
        For each role `precision`, `recall` (None where undefined), `n_predicted`, `n_gold`.
    """
    right: Counter[int] = Counter()
    predicted: Counter[int] = Counter()
    true: Counter[int] = Counter()
    for ours, theirs in zip(found, gold, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            predicted[a] += 1
            true[b] += 1
            right[a] += a == b
    return {
        name: {
            "precision": right[role] / predicted[role] if predicted[role] else None,
            "recall": right[role] / true[role] if true[role] else None,
            "n_predicted": predicted[role],
            "n_gold": true[role],
        }
        for role, name in enumerate(ROLE_NAMES)
        if role != OTHER
    }


def parser_record(profile: str, fresh: bool = False) -> Mapping[str, Any]:
    """Compare the default tagger with the gold of the COCO val2014 captions; record `words`."""
    root, tagger = data_root(profile), default_tagger()
    texts, gold, relations = _gold(root)
    digest = hashlib.sha256("\n".join([tagger.identity, *texts]).encode()).hexdigest()[:12]

    def compare() -> dict[str, Any]:
        found = [word_roles(t, s) for t, s in zip(texts, tagger.tag(texts), strict=True)]
        result = agreement(found, gold)
        groups: dict[str, list[int]] = {}
        for row, name in enumerate(relations):
            if name is not None:
                groups.setdefault(name, []).append(row)
        by_relation = {
            name: agreement([found[i] for i in rows], [gold[i] for i in rows])["relation"]
            for name, rows in groups.items()
        }
        return result | {"by_relation": by_relation, "n_captions": len(texts)}

    config = {"tagger": tagger.identity}
    return load_or_run("words", profile, digest, compare, config=config, fresh=fresh).results


def _gold(root: Path) -> tuple[list[str], list[list[int]], list[str | None]]:
    """Captions, gold roles of their words, and the relation each states (None: none)."""
    captions, graphs = (_annotations(root / name) for name in (CAPTIONS, GRAPHS))
    spans = {entry["id"]: [Span(*span) for span in entry["spans"]] for entry in graphs}
    stated = {entry["id"]: entry["relations"] for entry in graphs}
    texts = [entry["caption"] for entry in captions]
    gold = [word_roles(entry["caption"], spans[entry["id"]]) for entry in captions]
    relations = [stated[e["id"]][0][1] if stated[e["id"]] else None for e in captions]
    return texts, gold, relations


def _annotations(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["annotations"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read ({error!r}); build the small world with `cae world build`"
        ) from error
