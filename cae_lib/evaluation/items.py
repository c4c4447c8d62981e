"""What belongs to the data and to no model: the items of benchmarks, what captions state."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd
from open_clip import SimpleTokenizer

from cae_lib.config import paths
from cae_lib.data.benchmarks.base import CHANCE_OF_TASKS, Benchmark, Choice
from cae_lib.data.captions import RETRIEVAL_SETS, Pairs
from cae_lib.data.labelled import LabelledImages
from cae_lib.data.similarity import OFFICIAL as OFFICIAL_PAIRS
from cae_lib.data.training_set import data_root, default_tagger
from cae_lib.errors import DataError
from cae_lib.evaluation import sets
from cae_lib.evaluation.choice import MATCH, keys, scored
from cae_lib.evaluation.scenes import CAPTIONS, GRAPHS, read_gold
from cae_lib.words.alignment import align, token_roles
from cae_lib.words.phrases import bindings
from cae_lib.words.roles import OTHER, ROLE_NAMES, Span
from cae_lib.words.scene_graph import Graph, SceneGraphTagger
from cae_lib.world.vocabulary import stated

COUNTS = ("objects", "attributes", "relations")
STATED = ("amod", "nummod")
SUBSET: Mapping[str, Any] = {
    "suite": "", "family": "", "subset": "", "n_used": 0, "n_expected": 0, "headline": "",
    "rule": "", "chance": np.nan, "counts": {},
}
"""The columns of `subsets`, with what stands where there is nothing to say."""

AGAIN: Mapping[str, tuple[str, ...]] = {
    "winoground": ("text", "image", "*/*"), "bivlc": ("text", "image"), "svo_probes": ("match",),
    "mmvp_vlm": ("text", "group"), "sugarcrepe_pp": ("tot/*",), "half_truths": ("*/ordered",),
}
"""Patterns of those subsets of a family that score the items of its others once more."""


def items(
    benchmarks: Sequence[Benchmark], tagger: SceneGraphTagger, world: bool,
    trained_on: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The items that `choice.answers` answers, in its order; `tagger` and `world`: `stated_counts`.

    To the columns of `choice.keys` come `weight` in the subset's headline, which is the sum of
    weight times right or wrong; `stratum`, equal for items that the headline averages together, its
    subset or its group; `chance` of guessing right; the `stated_counts` of the true caption, of two
    true captions the larger ones; `bindings`, how many attributes with their object and relations
    with their two the true captions have, and `seen`, how many of those a caption of `trained_on`
    has, 0 without any; and `joint_NAME`, the number of the set of items, see
    `Benchmark.sets`, that the item belongs to, -1 for none.
    """
    parts = scored(benchmarks)
    if not parts:
        return pd.DataFrame()
    captions = [true_captions(item) for part in parts for item in part.items]
    counts = stated_counts([text for texts in captions for text in texts], tagger, world)
    owner = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
    frame = keys(parts).assign(
        weight=np.concatenate([headline_weights(part) for part in parts]),
        stratum=[part.key if part.headline == "micro" else f"{part.key}: {item.group}"
                 for part in parts for item in part.items],
        chance=np.concatenate([chances(part) for part in parts]),
    )
    joint = pd.concat([_joint(part) for part in parts], ignore_index=True)
    joint = joint.fillna(-1).astype(np.int32)
    found = _seen([text for texts in captions for text in texts], tagger, trained_on)
    return pd.concat([frame, counts.groupby(owner).max(), found.groupby(owner).sum(), joint],
                     axis=1)


def _seen(captions: Sequence[str], tagger: SceneGraphTagger,
          trained_on: Sequence[str] | None) -> pd.DataFrame:
    """`bindings` of captions and how many of them are `seen`; both 0 where nothing is known."""
    tokenizer, cache = SimpleTokenizer(), paths().cache / "roles"
    known = set()
    if trained_on:
        known.update(*bindings(token_roles(trained_on, tagger, tokenizer, cache)))
    own = bindings(align(captions, tagger.tag(captions), tokenizer))
    counts = [(len(each), len(each & known)) for each in own]
    return pd.DataFrame(counts, columns=["bindings", "seen"]).astype(np.int16)


def captions(name: str, pairs: Pairs, tagger: SceneGraphTagger, world: bool) -> pd.DataFrame:
    """What the captions of a retrieval set state, in order: `set`, `caption`, `picture`, counts."""
    index = np.asarray(pairs.image_index).astype(np.int32)
    frame = pd.DataFrame(
        {"set": name, "caption": np.arange(len(index), dtype=np.int32), "picture": index}
    )
    return pd.concat([frame, stated_counts(pairs.captions, tagger, world)], axis=1)


def true_captions(item: Choice) -> tuple[str, ...]:
    """The texts that are true of their pictures: one, or both of a 2 x 2 item."""
    if len(item.images) > 1 and len(item.texts) > 1:
        return item.texts
    return (item.texts[item.truth if len(item.images) == 1 else 0],)


def stated_counts(captions: Sequence[str], tagger: SceneGraphTagger, world: bool) -> pd.DataFrame:
    """What captions state, int16: `COUNTS` by the paper's parser, `words` (divided by spaces), and
    for captions of the small world world_COUNTS, by its own words."""
    graphs = tagger.graphs(captions)
    found = pd.DataFrame([graph_counts(graph) for graph in graphs], columns=[*COUNTS])
    found["words"] = [len(caption.split()) for caption in captions]
    if world:
        found[[f"world_{name}" for name in COUNTS]] = [stated(caption) for caption in captions]
    return found.astype(np.int16)


def graph_counts(graph: Graph) -> tuple[int, int, int]:
    """`COUNTS` of a scene graph: its entities, their modifiers without determiners, its edges."""
    modifiers = (modifier for entity in graph["entities"] for modifier in entity["modifiers"])
    attributes = sum(modifier["dep"] in STATED for modifier in modifiers)
    return len(graph["entities"]), attributes, len(graph["relations"])


def headline_weights(part: Benchmark) -> np.ndarray:
    """Weight of each item `(n,)` in the headline average of its subset; they sum to 1."""
    groups = pd.Series([item.group for item in part.items], dtype=object)
    if part.headline == "micro":
        return np.full(len(groups), 1 / len(groups))
    counted = groups if part.macro_groups is None else groups[groups.isin(part.macro_groups)]
    sizes = counted.value_counts()
    return (1 / (groups.map(sizes) * len(sizes))).fillna(0.0).to_numpy(dtype=np.float64)


def chances(part: Benchmark) -> np.ndarray:
    """Probability `(n,)` of guessing each item right."""
    return np.array([_chance(part, item) for item in part.items], dtype=np.float64)


def _chance(part: Benchmark, item: Choice) -> float:
    if part.key == MATCH:
        return 1 / 2
    if part.task != "choice":
        return CHANCE_OF_TASKS[part.task]
    return 1 / (len(item.images) * len(item.texts))


def _joint(part: Benchmark) -> pd.DataFrame:
    found = pd.DataFrame(index=range(part.n_used))
    for name, places in part.sets.items():
        own = {row: number for number, rows in enumerate(places) for row in rows}
        found[f"joint_{name}"] = [own.get(row, -1) for row in found.index]
    return found


def subsets(profile: str) -> pd.DataFrame:
    """How much of its data each measurement of a profile uses, and how each subset is averaged.
    `family` may be the name of a set; n are items, captions or pictures; counts are JSON."""
    rows = pd.DataFrame([{**SUBSET, **row} for row in _subset_rows(profile)], columns=[*SUBSET])
    return rows.assign(counts=[json.dumps(dict(counts)) for counts in rows["counts"]])


def own_items(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table `subsets` without further scores over the items of others, so that the
    sums of n are those of items."""
    again = [row.suite == "benchmarks" and any(fnmatchcase(row.subset, name)
                                               for name in AGAIN.get(row.family, ()))
             for row in table.itertuples()]
    return table[~np.array(again, dtype=bool)]


def _subset_rows(profile: str) -> Iterator[dict[str, Any]]:
    parts = sets.benchmarks(profile)
    for part in (score for own in parts for score in scored([own]) or [own]):
        found = chances(part)
        yield dict(suite="benchmarks", family=part.name, subset=part.subset, n_used=part.n_used,
                   n_expected=part.n_expected, headline=part.headline, rule=part.rule,
                   chance=found.mean() if len(found) else np.nan, counts=part.counts)
    real, retrieval = sets.is_official(data_root(profile)), sets.retrieval_sets(profile)
    for name, pairs in retrieval.items():
        yield dict(suite="retrieval", family=name, n_used=pairs.n_used, n_expected=pairs.n_expected)
    for name in [name for name in RETRIEVAL_SETS if real and name not in retrieval]:
        yield dict(suite="retrieval", family=name, n_expected=RETRIEVAL_SETS[name].n_captions)
    similarity = {found.name: found for found in sets.similarity_pairs(profile)}
    for name, found in similarity.items():
        yield dict(suite="similarity", family=name, n_used=len(found.gold),
                   n_expected=found.n_expected, counts=found.counts)
    for name in [name for name in OFFICIAL_PAIRS if real and name not in similarity]:
        yield dict(suite="similarity", family=name, n_expected=OFFICIAL_PAIRS[name])
    for name, pictures in _own_pictures(profile).items():
        yield dict(suite="zero_shot", family=name, n_used=len(pictures.paths),
                   n_expected=pictures.n_expected)
    for labels in sets.label_sets(profile):
        yield dict(suite="labels", family=labels.source, n_used=len(labels.images),
                   n_expected=labels.n_expected, counts=labels.counts)
    for suite, limit in sets.SAMPLES.items() if "coco" in retrieval or real else ():
        if suite != "heatmaps" or sets.is_world(data_root(profile)):
            found = _sampled(suite, retrieval.get("coco"), limit)
            yield dict(suite=suite, family="coco", **found)


def _sampled(suite: str, pairs: Pairs | None, limit: int) -> dict[str, int]:
    """Captions, of heat maps pictures, that are used and expected; one without a word is not."""
    if pairs is None:
        return {"n_expected": limit}
    total = len(pairs.image_paths if suite == "heatmaps" else pairs.captions)
    expected = total if suite == "heatmaps" else pairs.n_expected
    rows, empty = sets.even_rows(total, limit), 0
    if suite in ("attribution", "faithfulness"):
        empty = sum(not re.search(r"\w", pairs.captions[row]) for row in rows)
    return {"n_used": len(rows) - empty, "n_expected": min(limit, expected)}


def _own_pictures(profile: str) -> Mapping[str, LabelledImages]:
    """The sets of zero-shot classification; of real ones there may be none."""
    try:
        return sets.class_sets(profile)
    except DataError as error:
        if not sets.is_official(data_root(profile)):
            raise
        print(f"Left out: zero_shot. {error}", flush=True)
        return {}


def parser_table(profile: str) -> pd.DataFrame:
    """Count the words of the small world's COCO captions by the `relation` that the caption states
    ("" for none) and their role, `found` by the default tagger and `gold`; `n` words."""
    root = data_root(profile)
    graphs = {entry["id"]: entry for entry in read_gold(root / GRAPHS, "annotations")}
    captions = read_gold(root / CAPTIONS, "annotations")
    tagged = default_tagger().tag([entry["caption"] for entry in captions])
    counts: Counter[tuple[str, str, str]] = Counter()
    for caption, found in zip(captions, tagged, strict=True):
        text, graph = caption["caption"], graphs[caption["id"]]
        relation = graph["relations"][0][1] if graph["relations"] else ""
        gold = word_roles(text, [Span(*span) for span in graph["spans"]])
        for ours, theirs in zip(word_roles(text, found), gold, strict=True):
            counts[relation, ROLE_NAMES[ours], ROLE_NAMES[theirs]] += 1
    rows = [(*key, n) for key, n in sorted(counts.items())]
    return pd.DataFrame(rows, columns=["relation", "found", "gold", "n"])


def word_roles(text: str, spans: Sequence[Span]) -> list[int]:
    """Role of each word of a caption (words are divided by spaces): that of the span it lies in."""
    return [
        next((s.role for s in spans if s.start <= match.start() and match.end() <= s.end), OTHER)
        for match in re.finditer(r"\S+", text)
    ]
