"""CREPE's productivity sets: captions of 4 to 12 atoms, each against five hard negatives."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from itertools import chain, islice

import numpy as np

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.files import Export, paired
from cae_lib.data.world.export.sampling import PATIENCE, scenes, text_generator
from cae_lib.data.world.foils import (
    attributes_replaced,
    certainly_false,
    exchanges,
    negations,
    noun_replaced,
    plausible,
    relations_replaced,
    replacements,
)
from cae_lib.data.world.scenes import Content, Scene
from cae_lib.data.world.statements import Mention, Statement, stated

COMPLEXITIES = range(4, 13)
N_NEGATIVES = 5
HEADER = ("image_id", "caption", "n", "n_objects", "n_relations", "n_attributes",
          "n_connected_components", "hard_negs", "x", "y", "width", "height")  # fmt: skip
FILE = "crepe/data/prod_hard_negatives/{0}/prod_vg_hard_negs_{0}_complexity_{1}.csv"


def export_crepe(config: WorldConfig) -> Export:
    """Write the files of atom, swap and negate by complexity; pictures hold two scenes each.

    Each number of atoms (objects, attributes, relations) from 4 to 12 has about as many captions.
    A kind for which a caption has no five false ones leaves it out.
    """
    found, complexities = _scenes(config)
    pictures, places = paired(found, "crepe/VG_100K/3{:06d}.jpg")
    rows: dict[tuple[str, int], list[tuple]] = defaultdict(list)
    for index, (scene, place) in enumerate(zip(found, places, strict=True)):
        rng = text_generator(config.scenes, "crepe", index)
        true = compound(scene.content, complexities[index], rng)
        for kind, texts in hard_negatives(true, scene, rng).items():
            if len(texts) == N_NEGATIVES:
                rows[kind, true.n_atoms].append(_row(true, texts, *place))
    export = Export("crepe", pictures, counts=dict.fromkeys(("atom", "swap", "negate"), 0))
    for (kind, complexity), entries in sorted(rows.items()):
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([HEADER, *entries])
        export.texts[FILE.format(kind, complexity)] = stream.getvalue()
        export.counts[kind] += len(entries)
    return export


def _scenes(config: WorldConfig) -> tuple[list[Scene], list[int]]:
    """Scenes, and for each the number of atoms to state: the highest still wanted that it has."""
    quota = -(-config.sizes.crepe // len(COMPLEXITIES))
    found: list[Scene] = []
    complexities: list[int] = []
    for scene in islice(scenes(config.scenes, "crepe"), PATIENCE * config.sizes.crepe):
        things = scene.content.things
        most = len(things) + 1 + sum(len(thing.attributes) for thing in things)
        fitting = [n for n in COMPLEXITIES if n <= most and complexities.count(n) < quota]
        if fitting:
            found.append(scene)
            complexities.append(fitting[-1])
        if len(found) == config.sizes.crepe:
            break
    return found, complexities


def compound(content: Content, n_atoms: int, rng: np.random.Generator) -> Statement:
    """A statement of `n_atoms` atoms, or of all there are: the main pair first, then the rest."""
    statement = stated(content)
    budget = n_atoms - statement.n_atoms
    n_extras = min(len(content.things) - 2, max(0, budget - 1) // 2)
    things = content.things[: 2 + n_extras]
    words = [(i, word) for i, thing in enumerate(things) for word in thing.attributes]
    chosen = sorted(rng.permutation(len(words))[: budget - n_extras])
    mentions = tuple(
        Mention(thing.noun, tuple(words[k][1] for k in chosen if words[k][0] == i))
        for i, thing in enumerate(things)
    )
    pieces = (*statement.pieces[:2], *["and there is"] * n_extras, "")
    return Statement(mentions, pieces, statement.relation)


def hard_negatives(
    true: Statement, scene: Scene, rng: np.random.Generator
) -> dict[str, tuple[str, ...]]:
    """Up to five false texts of each kind."""
    atoms = attributes_replaced(true, scene) + relations_replaced(true, scene)
    for index in range(len(true.mentions)):
        nouns = replacements(true, index, scene)
        atoms += [noun_replaced(true, index, str(noun)) for noun in rng.permutation(nouns)[:3]]
    once = list(exchanges(true))
    swaps = chain(once, (twice for first in once for twice in exchanges(first)))
    swapped = certainly_false(filter(plausible, swaps), scene, true.text, 2 * N_NEGATIVES)
    found = {
        "atom": [false.text for false in certainly_false(atoms, scene, true.text)],
        "swap": [false.text for false in swapped],
        "negate": negations(true),
    }
    return {
        kind: tuple(texts[k] for k in sorted(rng.permutation(len(texts))[:N_NEGATIVES]))
        for kind, texts in found.items()
    }


def _row(true: Statement, texts: tuple[str, ...], path: str, box: dict[str, int]) -> tuple:
    number = int(path.rpartition("/")[2].removesuffix(".jpg"))
    n_objects = len(true.mentions)
    n_attributes = true.n_atoms - n_objects - 1
    components = n_objects - 1
    places = [float(box[key]) for key in ("x", "y", "width", "height")]
    return (number, true.text, true.n_atoms, n_objects, 1, n_attributes, components,
            list(texts), *places)  # fmt: skip
