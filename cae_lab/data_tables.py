"""Compute the tables that describe the data of a profile, such as benchmark items and captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from open_clip import SimpleTokenizer

from cae_bench.answers import scorable_benchmarks, weighted_items
from cae_bench.benchmarks.base import Benchmark, Item
from cae_bench.blind import blind_answers, text_only_baselines
from cae_bench.datasets import load_benchmarks, retrieval_sets
from cae_lab.dataset_sizes import subset_table
from cae_lab.runs import Profile
from cae_lab.scene_graphs import CAPTIONS_FILE, GRAPHS_FILE, count_roles, read_scene_entries
from cae_lab.store import Tables
from cae_lab.training_set import (
    available_training_pairs,
    default_tagger,
    ground_truth_tagger,
)
from cae_lib.config import paths
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.words.alignment import align, token_roles
from cae_lib.words.phrases import stated_bindings
from cae_lib.words.pipeline import Tagger
from cae_lib.words.roles import OTHER, ROLE_NAMES, Span
from cae_lib.words.scene_graph import SceneGraph, SceneGraphTagger

COUNT_COLUMNS = ("objects", "attributes", "relations")  # of how many a caption states
ATTRIBUTE_DEPENDENCIES = ("amod", "nummod")  # spaCy's labels of adjectives and numbers


def data_tables(profile: Profile) -> Tables:
    """Return, by name, the tables that describe the data of a profile and belong to no model.

    These are "subsets" (sizes), "items", "texts" (what each item offers), "blind" (answers of
    text-only baselines), "captions" (what they state), "roles" (ground truth) and "parser" (how it
    agrees with the ground truth), as far as the data allow them.
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
    # Two of the text-only baselines use a trigram model of all training captions.
    if texts is not None:
        tables["blind"] = blind_answers(parts, text_only_baselines(texts))
    if "coco" in retrieval:
        tables["captions"] = caption_table("coco", retrieval["coco"], tagger, world)
    if "coco" in retrieval and profile.has_ground_truth:
        tables["roles"] = token_role_table(retrieval["coco"], ground_truth_tagger(profile))
    return tables | ({"parser": parser_confusion_table(profile)} if world else {})


def item_table(
    benchmarks: Sequence[Benchmark],
    tagger: SceneGraphTagger,
    is_synthetic: bool,
    training_captions: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return `weighted_items` with what the true caption of each item states.

    A binding is an attribute with its object, or a relation with its two objects; `seen` counts
    those that a training caption states.
    """
    frame, benchmarks = weighted_items(benchmarks), scorable_benchmarks(benchmarks)
    if not benchmarks:
        return pd.DataFrame()
    true = [_true_captions(item) for part in benchmarks for item in part.items]
    texts = [text for captions in true for text in captions]
    # The item of each true caption: an item with two images has two true captions.
    row = np.repeat(np.arange(len(true)), [len(captions) for captions in true])
    # Of two true captions, the larger counts stand for the item, while their bindings are summed.
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

    A retrieval set counts as a family without subsets, and each of its captions as an item. `place`
    is the position among the options of one `kind`, and `content` the text or the image's path.
    """
    table: list[tuple[object, ...]] = []
    for part in scorable_benchmarks(benchmarks):
        for number, item in part.numbered_items():
            names = (part.name, part.subset, number, item.key)
            for index, image in enumerate(item.images):
                # With several texts to choose from, every image is a right one.
                is_true = len(item.texts) > 1 or index == item.truth
                table.append((*names, "picture", index, is_true, _path_below(image.path, root)))
            # Captions that people wrote cannot be redistributed.
            for index, text in enumerate(item.texts if is_synthetic else ()):
                # Of several texts that are true of one image, only the first is marked.
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
    """Return the true caption of an item, or both if it has two images and two texts."""
    if len(item.images) > 1 and len(item.texts) > 1:
        return item.texts
    # With several images and one text, `truth` is the position of an image.
    return (item.texts[item.truth if len(item.images) == 1 else 0],)


def _binding_counts(
    captions: Sequence[str], tagger: SceneGraphTagger, training_captions: Sequence[str] | None
) -> pd.DataFrame:
    """Return the columns `bindings` and `seen` of `item_table`, with a row for each caption."""
    # Bindings are compared as token ids, so case makes no difference.
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
    """Return a row for each caption of a retrieval set, with its `stated_role_counts`."""
    index = np.asarray(pairs.image_index).astype(np.int32)
    frame = pd.DataFrame(
        {"set": name, "caption": np.arange(len(index), dtype=np.int32), "picture": index}
    )
    return pd.concat([frame, stated_role_counts(pairs.captions, tagger, is_synthetic)], axis=1)


def token_role_table(pairs: ImageCaptionPairs, tagger: Tagger) -> pd.DataFrame:
    """Return a row for each token of an object, attribute or relation word.

    `position` counts CLIP's tokens of the caption; the start-of-text token has 0.
    """
    # (captions, context length)
    roles = token_roles(pairs.captions, SimpleTokenizer(), tagger).roles.numpy()
    caption, position = np.nonzero(roles > OTHER)
    names = np.array(ROLE_NAMES)[roles[caption, position]]
    frame = pd.DataFrame({"caption": caption.astype(np.int32), "position": position, "role": names})
    return frame.astype({"position": np.int16})


def stated_role_counts(
    captions: Sequence[str], tagger: SceneGraphTagger, is_synthetic: bool
) -> pd.DataFrame:
    """Count the words of captions, and what they state by the parser and the scenes' vocabulary."""
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
    """Count words of synthetic captions by the parser's role (`found`) and the true one (`gold`).

    `relation` is the first relation in the scene graph of the caption, or "".
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

    Words are separated by white space, so a span of "dog" does not cover the word "dog.".
    """
    return [
        next((s.role for s in spans if s.start <= match.start() and match.end() <= s.end), OTHER)
        for match in re.finditer(r"\S+", text)
    ]
