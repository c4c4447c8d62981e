"""VALSE: a caption against a foil, for the linguistic phenomena that the small world has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.corpora import Described
from cae_lib.data.world.export.files import Export, Picture
from cae_lib.data.world.export.sampling import scenes, spread, swappable, text_generator
from cae_lib.data.world.foils import (
    absent_nouns,
    certainly_false,
    noun_replaced,
    phrases_exchanged,
    pick,
    relation_like,
    replacements,
)
from cae_lib.data.world.grammar import phrase
from cae_lib.data.world.scenes import Content, Scene
from cae_lib.data.world.statements import Statement, read, stated
from cae_lib.data.world.vocabulary import RELATIONS

ACTIONS = tuple(name for name, kind in RELATIONS.items() if kind.action)
GROUPS = {
    "actant-swap": tuple(name for name in ACTIONS if name != "holding"),
    "action-replacement": ACTIONS,
    "relations": tuple(name for name, kind in RELATIONS.items() if not kind.action),
}
"""Relations of an instrument's scenes; nothing that is held can hold."""

LEFT_OUT = {
    "counting-adversarial, counting-hard, counting-small-quant, plurals":
        "no scene has two things of one noun",
    "coreference-hard, coreference-standard": "captions have no pronouns",
}  # fmt: skip


@dataclass(frozen=True)
class _Foil:
    """A caption, its foil, and what differs between them."""

    caption: str
    foil: str
    classes: str
    classes_foil: str


_Maker = Callable[[Scene, np.random.Generator, int], _Foil | None]


def export_valse(config: WorldConfig, coco_test: Sequence[Described]) -> Export:
    """Write five of the eleven files, every item with the full votes of three annotators.

    The pictures of foil-it are those of COCO's test split, with their own captions, as in VALSE.
    """
    export = Export("valse", left_out=LEFT_OUT)
    _drawn(config, export, "actant-swap", "actions/images_512", _actants)
    _drawn(config, export, "action-replacement", "actions/images_512", _relation)
    _drawn(config, export, "relations", "relations/test_images", _relation)
    _drawn(config, export, "existence", "visual7w/images", _existence)
    _foil_it(config, export, coco_test)
    return export


def _drawn(config: WorldConfig, export: Export, name: str, folder: str, make: _Maker) -> None:
    """One instrument with pictures of its own."""
    split = f"valse/{name}"
    names = GROUPS.get(name, tuple(RELATIONS))

    def group(content: Content) -> str | None:
        fits = content.relation in names and (name != "actant-swap" or swappable(content))
        return content.relation if fits else None

    rows = {}
    found = spread(scenes(config.scenes, split), config.sizes.valse, group, names)
    for index, scene in enumerate(found):
        foil = make(scene, text_generator(config.scenes, split, index), index)
        if foil is not None:
            file = f"{name}_{index + 1}.jpg"
            export.pictures.append(Picture(f"valse/data/{folder}/{file}", (scene,)))
            rows[f"{name}_{index + 1}"] = _row(name, index, file, foil)
    _add(export, name, rows)


def _actants(scene: Scene, rng: np.random.Generator, index: int) -> _Foil | None:
    true = stated(scene.content)
    return _against(true, phrases_exchanged(true, 0, 1), scene)


def _relation(scene: Scene, rng: np.random.Generator, index: int) -> _Foil | None:
    """The relation replaced by another of its kind: an action by an action if possible."""
    true = stated(scene.content)
    chosen = relation_like(true, scene, rng)
    return None if chosen is None else _against(true, chosen, scene)


def _existence(scene: Scene, rng: np.random.Generator, index: int) -> _Foil:
    """By turns "there is a cat" and "there is no cat"."""
    there = [thing.noun for thing in scene.content.things]
    noun = pick(rng, there if index % 2 == 0 else absent_nouns(scene))
    texts = f"there is {phrase(noun)}", f"there is no {noun}"
    caption, foil = texts if index % 2 == 0 else texts[::-1]
    return _Foil(caption, foil, noun, noun)


def _foil_it(config: WorldConfig, export: Export, corpus: Sequence[Described]) -> None:
    """One noun of a COCO caption replaced by a noun that is not in the picture."""
    rows = {}
    for index, item in enumerate(corpus[: config.sizes.valse]):
        rng = text_generator(config.scenes, "valse/foil-it", index)
        true = read(item.captions[0], item.scene.content)
        place = int(rng.integers(len(true.mentions)))
        noun = pick(rng, replacements(true, place, item.scene))
        if noun is not None:
            false = noun_replaced(true, place, noun)
            foil = _Foil(true.text, false.text, true.mentions[place].noun, noun)
            rows[f"foil-it_{index + 1}"] = _row("foil-it", index, item.filename, foil)
    _add(export, "foil-it", rows)


def _against(true: Statement, false: Statement, scene: Scene) -> _Foil | None:
    kept = certainly_false([false], scene, true.text)
    if not kept:
        return None
    return _Foil(true.text, false.text, true.relation[1], false.relation[1])


def _row(name: str, index: int, file: str, foil: _Foil) -> dict:
    return {
        "dataset": "small world", "original_split": "test", "dataset_idx": index,
        "linguistic_phenomena": name, "image_file": file,
        "caption": foil.caption, "foil": foil.foil,
        "classes": foil.classes, "classes_foil": foil.classes_foil,
        "mturk": {"foil": 0, "caption": 3, "other": 0},
    }  # fmt: skip


def _add(export: Export, name: str, rows: dict[str, dict]) -> None:
    export.add_json(f"valse/data/{name}.json", rows)
    export.counts[name] = len(rows)
