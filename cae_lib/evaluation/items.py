"""Tables that belong to the data and to no model: items of benchmarks, what captions state."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from open_clip import SimpleTokenizer

from cae_lib.config import paths
from cae_lib.data.benchmarks.base import Benchmark, Item
from cae_lib.data.captions import Pairs
from cae_lib.data.scene_graphs import CAPTIONS_FILE, GRAPHS_FILE, count_roles, read_scene_graphs
from cae_lib.data.training_set import default_tagger, ground_truth_tagger, has_ground_truth
from cae_lib.evaluation.amounts import subsets
from cae_lib.evaluation.blind import blind_answers, text_choosers
from cae_lib.evaluation.choice import scorable_benchmarks, weighted_items
from cae_lib.evaluation.datasets import available_training_pairs, benchmarks, retrieval_sets
from cae_lib.profiles import find_profile
from cae_lib.store import Tables
from cae_lib.words.alignment import align, token_roles
from cae_lib.words.phrases import stated_bindings
from cae_lib.words.pipeline import Tagger
from cae_lib.words.roles import OTHER, ROLE_NAMES, Span
from cae_lib.words.scene_graph import Graph, SceneGraphTagger

COUNTS = ("objects", "attributes", "relations")
ATTRIBUTE_DEPENDENCIES = ("amod", "nummod")


def data_tables(profile: str) -> Tables:
    """Return the tables of a profile's data.

    They are, as far as the data are here:

    - "subsets", "items": the parts of the benchmarks, and their items.
    - "texts": the options of each item, texts and images.
    - "blind": answers of text-only models, if there are training captions to fit them on.
    - "captions": the test captions of COCO.
    - "roles": the roles of the words of these captions, where they are known by construction.
    - "parser": how well the parser finds them, in synthetic scenes.
    """
    world, tagger = find_profile(profile).synthetic, default_tagger()
    parts, retrieval = benchmarks(profile), retrieval_sets(profile)
    training = available_training_pairs(profile)
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
    if "coco" in retrieval and has_ground_truth(profile):
        tables["roles"] = token_role_table(retrieval["coco"], ground_truth_tagger(profile))
    return tables | ({"parser": parser_table(profile)} if world else {})


def items(
    parts: Sequence[Benchmark],
    tagger: SceneGraphTagger,
    world: bool,
    trained_on: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return the table of items.

    It has the columns of `weighted_items` and three kinds more. The `stated_counts` of the true
    caption; of two true captions, the larger counts. `bindings`: how many attributes with their
    object, and relations with their two objects, the true captions state. `seen`: how many of these
    bindings occur in the captions `trained_on`; 0 without such captions.

    Args:
        parts: The benchmarks.
        tagger: The parser of captions.
        world: Whether they are captions of synthetic scenes.
        trained_on: Training captions.
    """
    frame, parts = weighted_items(parts), scorable_benchmarks(parts)
    if not parts:
        return pd.DataFrame()
    true = [true_captions(item) for part in parts for item in part.items]
    texts = [text for captions in true for text in captions]
    row = np.repeat(np.arange(len(true)), [len(captions) for captions in true])
    counts = stated_counts(texts, tagger, world).groupby(row).max()
    return frame.join(counts).join(_seen(texts, tagger, trained_on).groupby(row).sum())


def options(
    parts: Sequence[Benchmark], retrieval: Mapping[str, Pairs], root: Path, world: bool
) -> pd.DataFrame:
    """Return a table with a row for each text and image that an item offers.

    Its columns are `family`, `subset`, `item` (its number), `id` (its key in the annotation file),
    `kind` ("text" or "picture"), `place` among those of its kind, `true`, and `content`: the text,
    or the path of the image below `root`. A retrieval set is a
    `family` whose items are its captions. Without `world`, people wrote the captions, and only
    images are listed.
    """
    table: list[tuple[object, ...]] = []
    for part in scorable_benchmarks(parts):
        for number, item in part.numbered_items():
            names = (part.name, part.subset, number, item.key)
            for index, image in enumerate(item.images):
                is_true = len(item.texts) > 1 or index == item.truth
                table.append((*names, "picture", index, is_true, _path_below(image.path, root)))
            for index, text in enumerate(item.texts if world else ()):
                is_true = len(item.images) > 1 or index == item.truth
                table.append((*names, "text", index, is_true, text))
    for name, pairs in retrieval.items():
        for number, text in enumerate(pairs.captions):
            names = (name, "", number, str(number))
            path = pairs.image_paths[pairs.image_index[number]]
            table.append((*names, "picture", 0, True, _path_below(path, root)))
            if world:
                table.append((*names, "text", 0, True, text))
    columns = ["family", "subset", "item", "id", "kind", "place", "true", "content"]
    return pd.DataFrame(table, columns=columns).astype({"item": "int32", "place": "int8"})


def _path_below(path: Path, root: Path) -> str:
    """Return an image's path relative to `root`; only its name if it was unpacked from a table."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def true_captions(item: Item) -> tuple[str, ...]:
    """Return the true texts of an item: one, or both if it has two images and two texts."""
    if len(item.images) > 1 and len(item.texts) > 1:
        return item.texts
    return (item.texts[item.truth if len(item.images) == 1 else 0],)


def _seen(
    captions: Sequence[str], tagger: SceneGraphTagger, trained_on: Sequence[str] | None
) -> pd.DataFrame:
    """Return how many `bindings` captions state and how many of them are `seen` in training."""
    tokenizer, cache = SimpleTokenizer(), paths().cache / "roles"
    trained = set()
    if trained_on:
        trained.update(*stated_bindings(token_roles(trained_on, tokenizer, tagger, cache)))
    stated = stated_bindings(align(captions, tagger.tag(captions), tokenizer))
    counts = [(len(caption), len(caption & trained)) for caption in stated]
    return pd.DataFrame(counts, columns=["bindings", "seen"]).astype(np.int16)


def captions(name: str, pairs: Pairs, tagger: SceneGraphTagger, world: bool) -> pd.DataFrame:
    """Return a row for each caption of a retrieval set, with `stated_counts` of what it states.

    Further columns are `set`, its name, and the numbers `caption` and `picture`.
    """
    index = np.asarray(pairs.image_index).astype(np.int32)
    frame = pd.DataFrame(
        {"set": name, "caption": np.arange(len(index), dtype=np.int32), "picture": index}
    )
    return pd.concat([frame, stated_counts(pairs.captions, tagger, world)], axis=1)


def token_role_table(pairs: Pairs, tagger: Tagger) -> pd.DataFrame:
    """Return the roles that a tagger gives the tokens of captions.

    Returns:
        A row for each token of a word with a role: `caption`, `position` of the token, and `role`.
    """
    roles = token_roles(pairs.captions, SimpleTokenizer(), tagger).roles.numpy()
    caption, position = np.nonzero(roles > OTHER)
    names = np.array(ROLE_NAMES)[roles[caption, position]]
    frame = pd.DataFrame({"caption": caption.astype(np.int32), "position": position, "role": names})
    return frame.astype({"position": np.int16})


def stated_counts(captions: Sequence[str], tagger: SceneGraphTagger, world: bool) -> pd.DataFrame:
    """Return what captions state, int16.

    The columns are `COUNTS`, found by the paper's parser; `words`, separated by spaces; and for
    captions of synthetic scenes (`world`) also `world_` before each of `COUNTS`, found by the
    scenes' vocabulary.
    """
    counts = pd.DataFrame(map(graph_counts, tagger.graphs(captions)), columns=[*COUNTS])
    counts["words"] = [len(caption.split()) for caption in captions]
    if world:
        counts[[f"world_{name}" for name in COUNTS]] = [
            count_roles(caption) for caption in captions
        ]
    return counts.astype(np.int16)


def graph_counts(graph: Graph) -> tuple[int, int, int]:
    """Return `COUNTS` of a scene graph: entities, modifiers without determiners, edges."""
    modifiers = (modifier for entity in graph["entities"] for modifier in entity["modifiers"])
    attributes = sum(modifier["dep"] in ATTRIBUTE_DEPENDENCIES for modifier in modifiers)
    return len(graph["entities"]), attributes, len(graph["relations"])


def parser_table(profile: str) -> pd.DataFrame:
    """Count the words of the synthetic COCO captions by their roles.

    The columns are the `relation` that the caption states ("" for none), the role `found` by the
    default tagger, the ground-truth role `gold`, and `n`, the number of such words.
    """
    root = find_profile(profile).root
    graphs = {entry["id"]: entry for entry in read_scene_graphs(root / GRAPHS_FILE, "annotations")}
    captions = read_scene_graphs(root / CAPTIONS_FILE, "annotations")
    tagged = default_tagger().tag([entry["caption"] for entry in captions])
    counts: Counter[tuple[str, str, str]] = Counter()
    for caption, spans in zip(captions, tagged, strict=True):
        text, graph = caption["caption"], graphs[caption["id"]]
        relation = graph["relations"][0][1] if graph["relations"] else ""
        true_roles = word_role_ids(text, [Span(*span) for span in graph["spans"]])
        for role, true_role in zip(word_role_ids(text, spans), true_roles, strict=True):
            counts[relation, ROLE_NAMES[role], ROLE_NAMES[true_role]] += 1
    rows = [(*key, n) for key, n in sorted(counts.items())]
    return pd.DataFrame(rows, columns=["relation", "found", "gold", "n"])


def word_role_ids(text: str, spans: Sequence[Span]) -> list[int]:
    """Return the role of each word of a caption: that of the first span that covers it, or `OTHER`.

    Words are separated by white space, and punctuation belongs to its word: a span of "dog" does
    not cover "dog.".
    """
    return [
        next((s.role for s in spans if s.start <= match.start() and match.end() <= s.end), OTHER)
        for match in re.finditer(r"\S+", text)
    ]
