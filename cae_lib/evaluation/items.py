"""What belongs to the data and to no model: the items of benchmarks, what captions state."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from open_clip import SimpleTokenizer

from cae_lib.config import paths
from cae_lib.data.benchmarks.base import Benchmark, Choice
from cae_lib.data.captions import Pairs
from cae_lib.data.training_set import default_tagger
from cae_lib.evaluation.amounts import subsets
from cae_lib.evaluation.blind import blind_answers, text_choosers
from cae_lib.evaluation.choice import headlines, scored
from cae_lib.evaluation.datasets import benchmarks, retrieval_sets, training_captions
from cae_lib.evaluation.tables import join_by_item
from cae_lib.profiles import find_profile
from cae_lib.store import ANSWERS, Tables
from cae_lib.words.alignment import align, token_roles
from cae_lib.words.phrases import bindings
from cae_lib.words.roles import OTHER, ROLE_NAMES, Span
from cae_lib.words.scene_graph import Graph, SceneGraphTagger
from cae_lib.world.files import CAPTIONS, GRAPHS, read_gold
from cae_lib.world.vocabulary import stated

COUNTS = ("objects", "attributes", "relations")
STATED = ("amod", "nummod")


def data_tables(profile: str) -> Tables:
    """The tables of a profile's data: items, texts, captions, subsets, blind, and in a world
    parser; DataError if data are missing, and may not be."""
    world, tagger = find_profile(profile).gold, default_tagger()
    parts, retrieval = benchmarks(profile), retrieval_sets(profile)
    training = training_captions(profile)
    texts = None if training is None else training.captions
    tables = {
        "subsets": subsets(profile),
        "items": items(parts, tagger, world, texts),
        "texts": options(parts, retrieval, find_profile(profile).root, world),
    }
    if texts is not None:
        tables["blind"] = blind_answers(parts, text_choosers(texts))
    if "coco" in retrieval:
        tables["captions"] = captions("coco", retrieval["coco"], tagger, world)
    return tables | ({"parser": parser_table(profile)} if world else {})


def items(
    parts: Sequence[Benchmark],
    tagger: SceneGraphTagger,
    world: bool,
    trained_on: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The table of items; `tagger` and `world`: `stated_counts`.

    To the columns of `headlines` come the `stated_counts` of the true caption, of two true captions
    the larger ones; `bindings`, how many attributes with their object and relations with their two
    the true captions have, and `seen`, how many of those a caption of `trained_on` has, 0 without
    any; and `joint_NAME`, the number of the set of items, see `Benchmark.sets`, that the item
    belongs to, -1 for none.
    """
    frame, parts = headlines(parts), scored(parts)
    if not parts:
        return pd.DataFrame()
    rows = [
        (part.name, part.subset, row, text)
        for part in parts
        for row, item in enumerate(part.items)
        for text in true_captions(item)
    ]
    true = pd.DataFrame(rows, columns=[*ANSWERS, "text"]).astype({"item": np.int32})
    texts, owner = true["text"].tolist(), [true[name] for name in ANSWERS]
    counts = stated_counts(texts, tagger, world).groupby(owner).max()
    seen = _seen(texts, tagger, trained_on).groupby(owner).sum()
    for own in (counts.reset_index(), seen.reset_index(), _joint(parts)):
        frame = join_by_item(frame, own)
    return frame


def options(
    parts: Sequence[Benchmark], retrieval: Mapping[str, Pairs], root: Path, world: bool
) -> pd.DataFrame:
    """The table of texts and pictures: a row for each that an item offers, with `family`, `subset`,
    `item` (its number), `id` (its key in the annotation file), `kind` ("text" or "picture"),
    `place` among those of its kind, `true`, and `content`: the text, or the place of the picture
    below `root`. Of a retrieval set, a `family`, items are its captions. Without `world` captions
    are people's, and there are pictures alone."""

    def rows(
        family: str,
        subset: str,
        number: int,
        name: str,
        kind: str,
        content: Iterable[object],
        truth: int | None,
    ) -> Iterator[tuple[object, ...]]:
        for place, each in enumerate(content):
            true = truth is None or place == truth
            yield family, subset, number, name, kind, place, true, str(each)

    found: list[tuple[object, ...]] = []
    for part in scored(parts):
        for number, item in enumerate(part.items):
            own = (part.name, part.subset, number, item.id)
            alone = len(item.images) == 1
            pictures = [_place(image.path, root) for image in item.images]
            found += rows(*own, "picture", pictures, item.truth if len(item.texts) == 1 else None)
            found += rows(*own, "text", item.texts if world else (), item.truth if alone else None)
    for name, pairs in retrieval.items():
        for number, (text, picture) in enumerate(
            zip(pairs.captions, pairs.image_index, strict=True)
        ):
            own = (name, "", number, str(number))
            found += [
                *rows(*own, "picture", [_place(pairs.image_paths[picture], root)], None),
                *rows(*own, "text", [text] if world else [], None),
            ]
    columns = ["family", "subset", "item", "id", "kind", "place", "true", "content"]
    return pd.DataFrame(found, columns=columns).astype({"item": "int32", "place": "int8"})


def _place(path: Path, root: Path) -> str:
    """Where a picture lies below `root`; the name of one that was taken out of a table."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def true_captions(item: Choice) -> tuple[str, ...]:
    """The texts that are true of their pictures: one, or both of a 2 x 2 item."""
    if len(item.images) > 1 and len(item.texts) > 1:
        return item.texts
    return (item.texts[item.truth if len(item.images) == 1 else 0],)


def _seen(
    captions: Sequence[str], tagger: SceneGraphTagger, trained_on: Sequence[str] | None
) -> pd.DataFrame:
    """`bindings` of captions and how many of them are `seen`; both 0 where nothing is known."""
    tokenizer, cache = SimpleTokenizer(), paths().cache / "roles"
    trained = set()
    if trained_on:
        trained.update(*bindings(token_roles(trained_on, tokenizer, tagger, cache)))
    own = bindings(align(captions, tagger.tag(captions), tokenizer))
    counts = [(len(each), len(each & trained)) for each in own]
    return pd.DataFrame(counts, columns=["bindings", "seen"]).astype(np.int16)


def _joint(parts: Sequence[Benchmark]) -> pd.DataFrame:
    """The items of benchmarks, and for each of their sets the number of the one that an item
    belongs to, -1 for none."""
    names = list(dict.fromkeys(f"joint_{name}" for part in parts for name in part.sets))
    rows = []
    for part in parts:
        numbers = {
            (f"joint_{name}", row): number
            for name, sets in part.sets.items()
            for number, rows_together in enumerate(sets)
            for row in rows_together
        }
        rows += [
            (part.name, part.subset, row, *(numbers.get((name, row), -1) for name in names))
            for row in range(part.n_used)
        ]
    return pd.DataFrame(rows, columns=[*ANSWERS, *names]).astype(
        dict.fromkeys(["item", *names], np.int32)
    )


def captions(name: str, pairs: Pairs, tagger: SceneGraphTagger, world: bool) -> pd.DataFrame:
    """What the captions of a retrieval set state, in order: `set`, `caption`, `picture`, counts."""
    index = np.asarray(pairs.image_index).astype(np.int32)
    frame = pd.DataFrame(
        {"set": name, "caption": np.arange(len(index), dtype=np.int32), "picture": index}
    )
    return pd.concat([frame, stated_counts(pairs.captions, tagger, world)], axis=1)


def stated_counts(captions: Sequence[str], tagger: SceneGraphTagger, world: bool) -> pd.DataFrame:
    """What captions state, int16: `COUNTS` by the paper's parser, `words` (divided by spaces), and
    for captions of the small world world_COUNTS, by its own words."""
    counts = pd.DataFrame(map(graph_counts, tagger.graphs(captions)), columns=[*COUNTS])
    counts["words"] = [len(caption.split()) for caption in captions]
    if world:
        counts[[f"world_{name}" for name in COUNTS]] = [stated(caption) for caption in captions]
    return counts.astype(np.int16)


def graph_counts(graph: Graph) -> tuple[int, int, int]:
    """`COUNTS` of a scene graph: its entities, their modifiers without determiners, its edges."""
    modifiers = (modifier for entity in graph["entities"] for modifier in entity["modifiers"])
    attributes = sum(modifier["dep"] in STATED for modifier in modifiers)
    return len(graph["entities"]), attributes, len(graph["relations"])


def parser_table(profile: str) -> pd.DataFrame:
    """Count the words of the small world's COCO captions by the `relation` that the caption states
    ("" for none) and their role, `found` by the default tagger and `gold`; `n` words."""
    root = find_profile(profile).root
    graphs = {entry["id"]: entry for entry in read_gold(root / GRAPHS, "annotations")}
    captions = read_gold(root / CAPTIONS, "annotations")
    tagged = default_tagger().tag([entry["caption"] for entry in captions])
    counts: Counter[tuple[str, str, str]] = Counter()
    for caption, spans in zip(captions, tagged, strict=True):
        text, graph = caption["caption"], graphs[caption["id"]]
        relation = graph["relations"][0][1] if graph["relations"] else ""
        gold = word_roles(text, [Span(*span) for span in graph["spans"]])
        for ours, theirs in zip(word_roles(text, spans), gold, strict=True):
            counts[relation, ROLE_NAMES[ours], ROLE_NAMES[theirs]] += 1
    rows = [(*key, n) for key, n in sorted(counts.items())]
    return pd.DataFrame(rows, columns=["relation", "found", "gold", "n"])


def word_roles(text: str, spans: Sequence[Span]) -> list[int]:
    """Role of each word of a caption (words are divided by spaces): that of the span it lies in."""
    return [
        next((s.role for s in spans if s.start <= match.start() and match.end() <= s.end), OTHER)
        for match in re.finditer(r"\S+", text)
    ]
