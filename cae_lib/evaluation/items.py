"""What belongs to the data and to no model: the items of benchmarks, what their captions state.

What a caption states is counted by the paper's parser, as everywhere, and in the small world also
by the world's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cae_lib.data.benchmarks.base import CHANCE_OF_PAIRS, Benchmark, Choice
from cae_lib.data.captions import Pairs
from cae_lib.data.training_set import data_root
from cae_lib.errors import DataError
from cae_lib.evaluation import attribution, faithfulness, phrases
from cae_lib.evaluation.choice import keys, scored
from cae_lib.evaluation.heatmaps import SCENES
from cae_lib.evaluation.match import MATCH
from cae_lib.evaluation.sets import (
    benchmarks,
    is_official,
    label_sets,
    retrieval_sets,
    similarity_pairs,
)
from cae_lib.evaluation.zero_shot import labelled_sets
from cae_lib.words.scene_graph import Graph, SceneGraphTagger
from cae_lib.world.config import WORLDS
from cae_lib.world.vocabulary import stated

COUNTS = ("objects", "attributes", "relations")
STATED = ("amod", "nummod")
SAMPLES: Mapping[str, int] = {
    "attribution": attribution.CAPTIONS,
    "phrases": phrases.CAPTIONS,
    "faithfulness": faithfulness.CAPTIONS,
}
"""How many of COCO's test captions, taken evenly, a measurement asks for."""


def items(
    benchmarks: Sequence[Benchmark], tagger: SceneGraphTagger | None, world: bool
) -> pd.DataFrame:
    """The items that `choice.answers` answers, in its order.

    Args:
        benchmarks: As for `choice.answers`.
        tagger: Counts what captions state; None leaves `COUNTS` out.
        world: The captions are the small world's, whose own words are counted too.

    Returns:
        The columns of `choice.keys`; `weight` in the subset's headline, which is the sum of weight
        times right or wrong; `stratum`, equal for items that the headline averages together, its
        subset or its group; `chance` of guessing right; the counts of `stated_counts` of the true
        caption, of two true captions the larger ones; and `joint_NAME`, the number of the set of
        items, see `Benchmark.sets`, that the item belongs to, -1 for none.

    Raises:
        DataError: An item is in two sets of one name.
    """
    parts = scored(benchmarks)
    captions = [true_captions(item) for part in parts for item in part.items]
    counts = stated_counts([text for texts in captions for text in texts], tagger, world)
    owner = np.repeat(np.arange(len(captions)), [len(texts) for texts in captions])
    frame = keys(parts).assign(
        weight=np.concatenate([headline_weights(part) for part in parts]),
        stratum=[_stratum(part, item) for part in parts for item in part.items],
        chance=[_chance(part, item) for part in parts for item in part.items],
    )
    joint = pd.concat([_joint(part) for part in parts], ignore_index=True)
    return pd.concat(
        [frame, counts.groupby(owner).max(), joint.fillna(-1).astype(np.int32)], axis=1
    )


def captions(name: str, pairs: Pairs, tagger: SceneGraphTagger | None, world: bool) -> pd.DataFrame:
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


def stated_counts(
    captions: Sequence[str], tagger: SceneGraphTagger | None, world: bool
) -> pd.DataFrame:
    """What captions state, int16: `COUNTS` by the parser, `words`, and with `world` world_COUNTS.

    Words are divided by spaces.
    """
    found: dict[str, Any] = {}
    if tagger is not None:
        found |= dict(
            zip(COUNTS, zip(*map(graph_counts, tagger.graphs(captions)), strict=True), strict=True)
        )
    found["words"] = [len(caption.split()) for caption in captions]
    if world:
        own = zip(*map(stated, captions), strict=True)
        found |= {f"world_{name}": column for name, column in zip(COUNTS, own, strict=True)}
    return pd.DataFrame(found).astype(np.int16)


def graph_counts(graph: Graph) -> tuple[int, int, int]:
    """`COUNTS` of a scene graph: its entities, their modifiers without determiners, its edges.

    "A cat on a mat and a bed" states two relations.
    """
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


def _stratum(part: Benchmark, item: Choice) -> str:
    return part.key if part.headline == "micro" else f"{part.key}: {item.group}"


def _chance(part: Benchmark, item: Choice) -> float:
    if part.key == MATCH:
        return 1 / 2
    if part.task != "choice":
        return CHANCE_OF_PAIRS[part.task]
    return 1 / (len(item.images) * len(item.texts))


def _joint(part: Benchmark) -> pd.DataFrame:
    found = pd.DataFrame(index=range(part.n_used))
    for name, sets in part.sets.items():
        numbers = np.full(part.n_used, -1)
        for number, places in enumerate(sets):
            numbers[list(places)] = number
        if (numbers >= 0).sum() != sum(map(len, sets)):
            raise DataError(f"{part.key}, {name}: an item is in two sets; expected in one at most")
        found[f"joint_{name}"] = numbers
    return found


def subsets(profile: str) -> pd.DataFrame:
    """How much of its data each measurement of a profile uses, and how each subset is averaged.

    Returns:
        `suite`; `family` of benchmarks, or name of a set; `subset` of a family; `n_used`,
        `n_expected`: items, captions or pictures; `headline`, `rule`, `chance` of subsets of
        benchmarks; `counts`, further facts as JSON.

    Raises:
        DataError: Data are missing, and may not be.
    """
    return pd.DataFrame(
        _subset_rows(profile),
        columns=[
            "suite",
            "family",
            "subset",
            "n_used",
            "n_expected",
            "headline",
            "rule",
            "chance",
            "counts",
        ],
    )


def _subset_rows(profile: str) -> Iterator[tuple]:
    def row(suite: str, name: str, used: int, expected: int, **counts: int) -> tuple:
        return suite, name, "", used, expected, "", "", np.nan, json.dumps(counts)

    for part in scored(benchmarks(profile)):
        chance = float(np.mean([_chance(part, item) for item in part.items]))
        yield (
            "benchmarks",
            part.name,
            part.subset,
            part.n_used,
            part.n_expected,
            part.headline,
            part.rule,
            chance,
            json.dumps(dict(part.counts)),
        )
    retrieval = retrieval_sets(profile)
    for name, pairs in retrieval.items():
        yield row("retrieval", name, pairs.n_used, pairs.n_expected)
    for found in similarity_pairs(profile):
        yield row("similarity", found.name, len(found.gold), found.n_expected, **found.counts)
    for name, labelled in _own_pictures(profile).items():
        yield row("zero_shot", name, len(labelled.paths), labelled.n_expected)
    for labels in label_sets(profile):
        yield row("labels", labels.source, len(labels.images), labels.n_expected, **labels.counts)
    for suite, limit in SAMPLES.items() if "coco" in retrieval else ():
        texts = retrieval["coco"].captions
        n = min(limit, len(texts))
        rows = np.unique(np.linspace(0, len(texts) - 1, n).astype(int))
        empty = 0 if suite == "phrases" else sum(not re.search(r"\w", texts[r]) for r in rows)
        yield row(suite, "coco", len(rows) - empty, n)
    if profile in WORLDS:
        n = min(SCENES, len(retrieval["coco"].image_paths))
        yield row("heatmaps", "coco", n, n)


def _own_pictures(profile: str) -> Mapping[str, Any]:
    """The sets of zero-shot classification; of real ones there may be none."""
    try:
        return labelled_sets(profile)
    except DataError as error:
        if not is_official(data_root(profile)):
            raise
        print(f"Left out: zero_shot. {error}", flush=True)
        return {}


def amount_lines(subsets: pd.DataFrame) -> list[str]:
    """The numbers of `subsets` as lines: of each family or set, and of each incomplete part."""
    lines = []
    for (suite, family), part in subsets.groupby(["suite", "family"], sort=False):
        lines.append(f"{suite}, {family}: {_of(part.n_used.sum(), part.n_expected.sum())}")
        short = part[(part.subset != "") & (part.n_used != part.n_expected)]
        lines += [
            f"  incomplete: {family}/{one.subset}, {_of(one.n_used, one.n_expected)}"
            for one in short.itertuples()
        ]
    return lines


def _of(used: int, expected: int) -> str:
    return f"{used:,} used of {expected:,} expected"
