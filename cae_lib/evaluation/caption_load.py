"""How much the true captions of the benchmarks state: their objects, attributes and relations.

The counts belong to the items, not to a model, so one record a profile serves every run. Those of
the small world are counted twice: by the paper's parser, as everywhere, and by the world's words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cae_lib.data.benchmarks.base import Choice
from cae_lib.data.world.wording import stated
from cae_lib.errors import DataError
from cae_lib.evaluation.results import group_order, item_key
from cae_lib.records import load_or_run
from cae_lib.words.scene_graph import Graph, SceneGraphTagger

RECORD = "caption-load"
COUNTS = ("objects", "attributes", "relations", "words")
WORLD_COUNTS = ("world objects", "world attributes", "world relations")
RETRIEVAL = "coco"
STATED = ("amod", "nummod")
MOST_LOADS = 2**16


def true_captions(item: Choice) -> tuple[str, ...]:
    """The texts that are true of their pictures: one, or both of a 2 x 2 item."""
    if len(item.images) > 1 and len(item.texts) > 1:
        return item.texts
    return (item.texts[item.truth if len(item.images) == 1 else 0],)


def load_of(caption: str, graph: Graph) -> tuple[int, int, int, int]:
    """`COUNTS` of a caption with its scene graph.

    Attributes are the modifiers of the entities without determiners, relations the edges: "a cat on
    a mat and a bed" states two. Words are divided by spaces.
    """
    modifiers = (modifier for entity in graph["entities"] for modifier in entity["modifiers"])
    attributes = sum(modifier["dep"] in STATED for modifier in modifiers)
    return len(graph["entities"]), attributes, len(graph["relations"]), len(caption.split())


def caption_loads(
    captions: Sequence[str], tagger: SceneGraphTagger, world: bool = False
) -> np.ndarray:
    """`COUNTS` of each caption, `(C, 4)`, with `world` also `WORLD_COUNTS`, `(C, 7)`."""
    graphs = tagger.graphs(captions)
    loads = [
        load_of(caption, graph) + (stated(caption) if world else ())
        for caption, graph in zip(captions, graphs, strict=True)
    ]
    return np.array(loads, dtype=np.int64)


def item_loads(items: Sequence[Choice], known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Counts of each item `(n, K)`; of two captions of an item the larger ones."""
    loads = [np.max([known[text] for text in true_captions(item)], axis=0) for item in items]
    return np.array(loads, dtype=np.int64)


def pack_loads(loads: Sequence[np.ndarray]) -> tuple[list[str], list[str]]:
    """Distinct rows as texts such as "2 1 1 8", and for each array its places among them in hex.

    Args:
        loads: Arrays `(n, K)`.

    Raises:
        DataError: There are more distinct rows than 16 bits can tell apart.
    """
    distinct, places = np.unique(np.concatenate(loads), axis=0, return_inverse=True)
    if len(distinct) > MOST_LOADS:
        raise DataError(f"{RECORD}: {len(distinct)} distinct counts, at most {MOST_LOADS} fit")
    parts = np.split(places.reshape(-1), np.cumsum([len(part) for part in loads])[:-1])
    rows = [" ".join(map(str, row)) for row in distinct.tolist()]
    return rows, [part.astype(">u2").tobytes().hex() for part in parts]


def unpack_loads(rows: Sequence[str], digits: str, n: int) -> np.ndarray:
    """Loads `(n, K)` from what `pack_loads` wrote.

    Raises:
        DataError: The parts do not fit together.
    """
    try:
        table = np.array([[int(count) for count in row.split()] for row in rows], dtype=np.int64)
        loads = table[np.frombuffer(bytes.fromhex(digits), dtype=">u2")]
    except (ValueError, IndexError) as error:
        raise DataError(f"record {RECORD} is damaged ({error!r}): compute it anew") from error
    if len(loads) != n:
        raise DataError(f"record {RECORD}: counts of {len(loads)} items, not {n}: compute it anew")
    return loads


def caption_load_record(profile: str, fresh: bool = False) -> Mapping[str, Any]:
    """Count what the true captions of all benchmarks and of COCO retrieval state; record it.

    Items have the order of the stored answers, and the digest that the answers carry.

    Raises:
        DataError: Data are missing.
    """
    from cae_lib.data.training_set import data_root, default_tagger
    from cae_lib.evaluation.suite import benchmarks, is_official, retrieval_pairs

    world = not is_official(data_root(profile))
    parts = {part.key: part for part in benchmarks(profile) if part.n_used}
    items = {key: [part.items[row] for row in group_order(part.items)]
             for key, part in parts.items()}  # fmt: skip
    pairs, tagger = retrieval_pairs(profile, RETRIEVAL), default_tagger()
    digests = {key: item_key(found) for key, found in items.items()}
    digests[RETRIEVAL] = captions_key(pairs.captions)
    counts = [*COUNTS, *(WORLD_COUNTS if world else ())]
    content = [tagger.identity, *counts, *(f"{key} {digest}" for key, digest in digests.items())]

    def count() -> dict[str, Any]:
        chosen = [text for found in items.values() for i in found for text in true_captions(i)]
        texts = list(dict.fromkeys([*chosen, *pairs.captions]))
        known = dict(zip(texts, caption_loads(texts, tagger, world), strict=True))
        loads = [item_loads(found, known) for found in items.values()]
        loads.append(np.array([known[caption] for caption in pairs.captions]))
        rows, packed = pack_loads(loads)
        sizes = [*((part.n_used, part.n_expected) for part in parts.values()),
                 (pairs.n_used, pairs.n_expected)]  # fmt: skip
        found = {
            key: {"n_used": used, "n_expected": expected, "items": digests[key], "loads": digits}
            for key, (used, expected), digits in zip(digests, sizes, packed, strict=True)
        }
        return {
            "counts": counts,
            "rows": rows,
            "retrieval": found.pop(RETRIEVAL),
            "subsets": found,
            "n_captions": len(texts),
        }

    key = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
    config = {"tagger": tagger.identity}
    return load_or_run(RECORD, profile, key, count, config=config, fresh=fresh).results


def captions_key(captions: Sequence[str]) -> str:
    """Digest (12 hex digits) of captions in their order."""
    return hashlib.sha256("\n".join(captions).encode()).hexdigest()[:12]
