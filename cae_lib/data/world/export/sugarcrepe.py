"""SugarCrepe: rich captions against foils with one part added, replaced or exchanged."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.files import Export, Picture
from cae_lib.data.world.export.sampling import fair, scenes, text_generator
from cae_lib.data.world.foils import (
    absent_nouns,
    attribute_exchanges,
    attributes_added,
    attributes_replaced,
    certainly_false,
    mention_added,
    noun_replaced,
    phrases_exchanged,
    pick,
    plausible,
    relations_replaced,
    replacements,
)
from cae_lib.data.world.grammar import CaptionStyle, describe
from cae_lib.data.world.scenes import Scene
from cae_lib.data.world.statements import Mention, Statement, read
from cae_lib.data.world.vocabulary import COLORS

STYLE = CaptionStyle(attribute=0.6, second=1.0, relation=1.0, extra=0.5, position=0.2, prefix=0.1)
TRIES = 4
Maker = Callable[[Statement, Scene, np.random.Generator], list[Statement]]


def _add_object(true: Statement, scene: Scene, rng: np.random.Generator) -> list[Statement]:
    noun = str(rng.choice(absent_nouns(scene)))
    attributes = (str(rng.choice(list(COLORS))),) if rng.random() < 0.5 else ()
    return [mention_added(true, Mention(noun, attributes))]


def _replace_object(true: Statement, scene: Scene, rng: np.random.Generator) -> list[Statement]:
    index = int(rng.integers(len(true.mentions)))
    noun = pick(rng, replacements(true, index, scene))
    return [] if noun is None else [noun_replaced(true, index, noun)]


def _exchange_objects(true: Statement, scene: Scene, rng: np.random.Generator) -> list[Statement]:
    return [phrases_exchanged(true, 0, 1)]


MAKERS: dict[str, Maker] = {
    "add_att": lambda true, scene, rng: attributes_added(true, scene),
    "add_obj": _add_object,
    "replace_att": lambda true, scene, rng: attributes_replaced(true, scene),
    "replace_obj": _replace_object,
    "replace_rel": lambda true, scene, rng: relations_replaced(true, scene),
    "swap_att": lambda true, scene, rng: attribute_exchanges(true),
    "swap_obj": _exchange_objects,
}


def export_sugarcrepe(config: WorldConfig) -> Export:
    """Write the seven files; their pictures, in coco/val2017, are shared, as the real ones are.

    Half of the scenes stand in the unusual order of their arguments, so that words alone do not
    tell a caption from its foil.
    """
    size = config.sizes.sugarcrepe
    drawn = islice(scenes(config.scenes, "sugar-crepe"), size * 3 // 2)
    shown = [fair(scene, index) for index, scene in enumerate(drawn)]
    export = Export("sugarcrepe")
    used: dict[str, Scene] = {}
    for subset, maker in MAKERS.items():
        rows: dict[str, dict[str, str]] = {}
        for index, scene in enumerate(shown):
            if len(rows) == size:
                break
            rng = text_generator(config.scenes, f"sugar-crepe/{subset}", index)
            texts = _item(scene, maker, rng)
            if texts is not None:
                name = f"{index + 1:012d}.jpg"
                used[name] = scene
                rows[str(len(rows))] = {
                    "filename": name, "caption": texts[0], "negative_caption": texts[1]
                }  # fmt: skip
        export.add_json(f"sugar-crepe/data/{subset}.json", rows)
        export.counts[subset] = len(rows)
    export.pictures = [Picture(f"coco/val2017/{name}", (used[name],)) for name in sorted(used)]
    return export


def _item(scene: Scene, maker: Maker, rng: np.random.Generator) -> tuple[str, str] | None:
    """A caption and a foil; None when several captions give no foil of this kind."""
    for _ in range(TRIES):
        true = read(describe(scene, STYLE, rng), scene.content)
        candidates = certainly_false(filter(plausible, maker(true, scene, rng)), scene, true.text)
        false = pick(rng, candidates)
        if false is not None:
            return true.text, false.text
    return None
