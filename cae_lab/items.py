"""Compute the tables that describe the data of a profile, such as benchmark items and captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from open_clip import SimpleTokenizer

from cae_bench.benchmarks.base import Benchmark, Item
from cae_bench.blind import blind_answers, text_only_baselines
from cae_bench.choice import scorable_benchmarks, weighted_items
from cae_bench.datasets import load_benchmarks, retrieval_sets
from cae_lab.dataset_sizes import subset_table
from cae_lab.runs import Profile
from cae_lab.scene_graphs import CAPTIONS_FILE, GRAPHS_FILE, count_roles, read_scene_entries
from cae_lab.store import Tables
from cae_lab.training_set import (
    available_training_pairs,
    default_tagger,
    ground_truth_tagger,
    has_ground_truth,
)
from cae_lib.config import paths
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.words.alignment import align, token_roles
from cae_lib.words.phrases import stated_bindings
from cae_lib.words.pipeline import Tagger
from cae_lib.words.roles import OTHER, ROLE_NAMES, Span
from cae_lib.words.scene_graph import SceneGraph, SceneGraphTagger

COUNT_COLUMNS = ("objects", "attributes", "relations")
"""Columns of the numbers of objects, attributes and relations that a caption states."""

ATTRIBUTE_DEPENDENCIES = ("amod", "nummod")
"""spaCy's labels of modifiers that count as attributes: adjectives and numbers."""


def data_tables(profile: Profile) -> Tables:
    """Compute the tables that describe the data of a profile and belong to no model.

    Returns:
        The tables by name:

        - "subsets": sizes of the subsets of benchmarks and of other datasets.
        - "items": the items of benchmarks.
        - "texts": the images and, for synthetic scenes, the texts that each item offers.
        - "blind": answers of text-only baselines; only if the training data are complete.
        - "captions": what COCO's test captions state; only if they are present.
        - "roles": the ground-truth roles of the words of these captions; only if the captions are
          present and `has_ground_truth`.
        - "parser": how the roles that the parser finds agree with the ground truth; only for
          synthetic scenes.

    Raises:
        ConfigError: If no English spaCy model is installed.
        DataError: If data are malformed, or generated data are missing or incomplete.
    """
    world, tagger = profile.is_synthetic, default_tagger()
    parts, retrieval = load_benchmarks(profile.datasets), retrieval_sets(profile.datasets)
    training = available_training_pairs(profile)
    texts = None if training is None else training.captions
    tables = {
        "subsets": subset_table(profile),
        "items": item_table(parts, tagger, world, texts),
        "texts": option_table(parts, retrieval, profile.root, world),
    }
    if texts is not None:
        tables["blind"] = blind_answers(parts, text_only_baselines(texts))
    if "coco" in retrieval:
        tables["captions"] = caption_table("coco", retrieval["coco"], tagger, world)
    if "coco" in retrieval and has_ground_truth(profile):
        tables["roles"] = token_role_table(retrieval["coco"], ground_truth_tagger(profile))
    return tables | ({"parser": parser_confusion_table(profile)} if world else {})


def item_table(
    benchmarks: Sequence[Benchmark],
    tagger: SceneGraphTagger,
    is_synthetic: bool,
    training_captions: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return a row for each benchmark item, with what its true caption states.

    Args:
        benchmarks: The benchmarks; those without items are left out.
        tagger: The parser of captions.
        is_synthetic: Whether the captions are those of synthetic scenes.
        training_captions: The captions of the training data, whose word roles are stored in the
            cache folder; None if they are not available.

    Returns:
        The columns of `weighted_items`, and:

        - the columns of `stated_role_counts` for the true caption; if there are two true captions,
          the larger value of each column;
        - `bindings`: number of bindings that the true captions state, distinct within a caption. A
          binding is an attribute with its object, or a relation with its two objects;
        - `seen`: number of these bindings that a caption of `training_captions` states; 0 if
          `training_captions` is None.

        If there are no items, the table is empty and has no columns.
    """
    frame, benchmarks = weighted_items(benchmarks), scorable_benchmarks(benchmarks)
    if not benchmarks:
        return pd.DataFrame()
    true = [_true_captions(item) for part in benchmarks for item in part.items]
    texts = [text for captions in true for text in captions]
    row = np.repeat(np.arange(len(true)), [len(captions) for captions in true])
    counts = stated_role_counts(texts, tagger, is_synthetic).groupby(row).max()
    return frame.join(counts).join(
        _binding_counts(texts, tagger, training_captions).groupby(row).sum()
    )


def option_table(
    benchmarks: Sequence[Benchmark],
    retrieval: Mapping[str, ImageCaptionPairs],
    root: Path,
    is_synthetic: bool,
) -> pd.DataFrame:
    """Return a row for each image and, for synthetic scenes, each text that an item offers.

    A retrieval set counts as a family without subsets, and each of its captions as an item.

    Args:
        benchmarks: The benchmarks; see `scorable_benchmarks` for those that are left out or added.
        retrieval: The retrieval sets by name.
        root: Folder of all datasets of the profile.
        is_synthetic: Whether the captions are those of synthetic scenes. If not, only images are
            listed, because we cannot redistribute captions that people wrote.

    Returns:
        The columns `family`, `subset`, `item` (number of the item), `id` (see `Item.key`; for a
        retrieval set, the number as text), `kind` ("text" or "picture"), `place` (position among
        the item's options of this kind), `true` (whether the option is right; of several texts that
        are true of one image, only the first is marked), and `content` (the text, or the path of
        the image relative to `root`, see `_path_below`). All options are marked as true in items
        with two images and two texts, and in those of `svo_match_benchmark`.
    """
    table: list[tuple[object, ...]] = []
    for part in scorable_benchmarks(benchmarks):
        for number, item in part.numbered_items():
            names = (part.name, part.subset, number, item.key)
            for index, image in enumerate(item.images):
                is_true = len(item.texts) > 1 or index == item.truth
                table.append((*names, "picture", index, is_true, _path_below(image.path, root)))
            for index, text in enumerate(item.texts if is_synthetic else ()):
                is_true = len(item.images) > 1 or index == item.truth
                table.append((*names, "text", index, is_true, text))
    for name, pairs in retrieval.items():
        for number, text in enumerate(pairs.captions):
            names = (name, "", number, str(number))
            path = pairs.image_paths[pairs.image_index[number]]
            table.append((*names, "picture", 0, True, _path_below(path, root)))
            if is_synthetic:
                table.append((*names, "text", 0, True, text))
    columns = ["family", "subset", "item", "id", "kind", "place", "true", "content"]
    return pd.DataFrame(table, columns=columns).astype({"item": "int32", "place": "int8"})


def _path_below(path: Path, root: Path) -> str:
    """Return an image's path relative to `root`; only its name if it is not below `root`."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _true_captions(item: Item) -> tuple[str, ...]:
    """Return the true caption of an item, or both if it has two images and two texts.

    If several captions are true of the one image of an item, only the first is returned.
    """
    if len(item.images) > 1 and len(item.texts) > 1:
        return item.texts
    return (item.texts[item.truth if len(item.images) == 1 else 0],)


def _binding_counts(
    captions: Sequence[str], tagger: SceneGraphTagger, training_captions: Sequence[str] | None
) -> pd.DataFrame:
    """Return the columns `bindings` and `seen` of `item_table`, with a row for each caption.

    The word roles of `training_captions` are stored in the cache folder.
    """
    tokenizer, cache = SimpleTokenizer(), paths().cache / "roles"
    trained = set()
    if training_captions:
        trained.update(*stated_bindings(token_roles(training_captions, tokenizer, tagger, cache)))
    stated = stated_bindings(align(captions, tagger.tag(captions), tokenizer))
    counts = [(len(caption), len(caption & trained)) for caption in stated]
    return pd.DataFrame(counts, columns=["bindings", "seen"]).astype(np.int16)


def caption_table(
    name: str, pairs: ImageCaptionPairs, tagger: SceneGraphTagger, is_synthetic: bool
) -> pd.DataFrame:
    """Return a row for each caption of a retrieval set, with what the caption states.

    Args:
        name: Name of the set.
        pairs: Its captions and images.
        tagger: The parser of captions.
        is_synthetic: Whether the captions are those of synthetic scenes.

    Returns:
        The columns `set` (the name); `caption` and `picture` (positions in `pairs.captions` and
        `pairs.image_paths`); and the columns of `stated_role_counts`.
    """
    index = np.asarray(pairs.image_index).astype(np.int32)
    frame = pd.DataFrame(
        {"set": name, "caption": np.arange(len(index), dtype=np.int32), "picture": index}
    )
    return pd.concat([frame, stated_role_counts(pairs.captions, tagger, is_synthetic)], axis=1)


def token_role_table(pairs: ImageCaptionPairs, tagger: Tagger) -> pd.DataFrame:
    """Return the roles that a tagger gives the words of captions, by token.

    Captions are split by CLIP's tokenizer.

    Returns:
        A row for each token of a word that is an object, attribute or relation: `caption`, the
        position of the caption in `pairs.captions`; `position`, the index of the token among the
        caption's tokens, of which the start-of-text token has the index 0; and `role`, as text.
        Tokens beyond the context length have no row.
    """
    roles = token_roles(pairs.captions, SimpleTokenizer(), tagger).roles.numpy()
    caption, position = np.nonzero(roles > OTHER)
    names = np.array(ROLE_NAMES)[roles[caption, position]]
    frame = pd.DataFrame({"caption": caption.astype(np.int32), "position": position, "role": names})
    return frame.astype({"position": np.int16})


def stated_role_counts(
    captions: Sequence[str], tagger: SceneGraphTagger, is_synthetic: bool
) -> pd.DataFrame:
    """Count the words of captions, and the objects, attributes and relations that they state.

    Args:
        captions: The captions.
        tagger: The parser, whose scene graphs are counted.
        is_synthetic: Whether the captions are those of synthetic scenes.

    Returns:
        A row for each caption, int16: `COUNT_COLUMNS`; `words`, the number of words, split at white
        space; and with `is_synthetic` also `world_objects`, `world_attributes` and
        `world_relations`, which are counted by the vocabulary of the scenes (see `count_roles`).
    """
    counts = pd.DataFrame(map(_graph_counts, tagger.graphs(captions)), columns=[*COUNT_COLUMNS])
    counts["words"] = [len(caption.split()) for caption in captions]
    if is_synthetic:
        counts[[f"world_{name}" for name in COUNT_COLUMNS]] = [
            count_roles(caption) for caption in captions
        ]
    return counts.astype(np.int16)


def _graph_counts(graph: SceneGraph) -> tuple[int, int, int]:
    """Count the entities, the adjectives and numbers that modify them, and the relations."""
    modifiers = (modifier for entity in graph["entities"] for modifier in entity["modifiers"])
    attributes = sum(modifier["dep"] in ATTRIBUTE_DEPENDENCIES for modifier in modifiers)
    return len(graph["entities"]), attributes, len(graph["relations"])


def parser_confusion_table(profile: Profile) -> pd.DataFrame:
    """Compare the roles that the paper's parser finds in synthetic captions with the ground truth.

    Args:
        profile: A synthetic profile, whose COCO test captions are parsed.

    Returns:
        A row for each combination that occurs: `relation`, the first relation in the caption's
        scene graph ("" for none); `found`, the parser's role of a word, as text; `gold`, its
        ground-truth role; and `n`, the number of such words.

    Raises:
        ConfigError: If no English spaCy model is installed.
        DataError: If the captions or their scene graphs cannot be read.
    """
    root = profile.root
    graphs = {entry["id"]: entry for entry in read_scene_entries(root / GRAPHS_FILE, "annotations")}
    captions = read_scene_entries(root / CAPTIONS_FILE, "annotations")
    tagged = default_tagger().tag([entry["caption"] for entry in captions])
    counts: Counter[tuple[str, str, str]] = Counter()
    for caption, spans in zip(captions, tagged, strict=True):
        text, graph = caption["caption"], graphs[caption["id"]]
        relation = graph["relations"][0][1] if graph["relations"] else ""
        true_roles = _word_role_ids(text, [Span(*span) for span in graph["spans"]])
        for role, true_role in zip(_word_role_ids(text, spans), true_roles, strict=True):
            counts[relation, ROLE_NAMES[role], ROLE_NAMES[true_role]] += 1
    rows = [(*key, n) for key, n in sorted(counts.items())]
    return pd.DataFrame(rows, columns=["relation", "found", "gold", "n"])


def _word_role_ids(text: str, spans: Sequence[Span]) -> list[int]:
    """Return the role of each word of a caption: `OTHER`, or that of the first span that covers it.

    Words are separated by white space, and punctuation belongs to its word. For example, a span of
    "dog" does not cover the word "dog.".

    Args:
        text: The caption.
        spans: Spans of characters with their roles.
    """
    return [
        next((s.role for s in spans if s.start <= match.start() and match.end() <= s.end), OTHER)
        for match in re.finditer(r"\S+", text)
    ]
