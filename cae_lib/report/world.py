"""The small world in pictures and captions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import matplotlib.pyplot as plt
import numpy as np

from cae_lib.report.figure import WIDTH, Figure, finish, style
from cae_lib.report.markup import Table
from cae_lib.world.config import world_config
from cae_lib.world.draw import render
from cae_lib.world.grammar import captions, clause, phrase
from cae_lib.world.scenes import Content, Scene, scenes, text_generator
from cae_lib.world.vocabulary import RELATIONS

SPLIT = "test"


def statement(content: Content) -> str:
    """The main pair of a content in full: "a red cat on a small blue bed"."""
    first, second = (phrase(t.noun, t.attributes) for t in content.things[:2])
    return clause(first, content.relation, second, copula=False)


def relation_examples(profile: str) -> dict[str, Scene]:
    """The first scene of the test split that shows each relation."""
    found: dict[str, Scene] = {}
    for scene in scenes(world_config(profile).scenes, SPLIT):
        found.setdefault(scene.content.relation, scene)
        if len(found) == len(RELATIONS):
            break
    return {name: found[name] for name in RELATIONS}


def picture_sheet(items: Sequence[tuple[str, Scene]], columns: int = 4) -> Figure:
    """Pictures with a line of text above each."""
    rows = -(-len(items) // columns)
    with style():
        canvas, axes = plt.subplots(
            rows, columns, figsize=(WIDTH, 2.05 * rows * 4 / columns), layout="constrained",
            squeeze=False,
        )  # fmt: skip
        for axis in axes.flat:
            axis.set_axis_off()
        for axis, (title, scene) in zip(axes.flat, items, strict=False):
            axis.imshow(np.asarray(render(scene)), interpolation="nearest")
            axis.set_title(title)
        spoken = "; ".join(f"{title}: {statement(scene.content)}" for title, scene in items)
        return finish(canvas, f"Pictures of the small world. {spoken}.")


def sample_scenes(profile: str, n: int = 4) -> list[tuple[str, Scene]]:
    """The first scenes of the test split, numbered."""
    found = islice(scenes(world_config(profile).scenes, SPLIT), n)
    return [(f"scene {number}", scene) for number, scene in enumerate(found, start=1)]


def caption_table(profile: str, n: int = 4, each: int = 2) -> Table:
    """Captions of the first scenes, in the style of the pretraining corpus and of COCO."""
    config = world_config(profile)
    rows = []
    for index, (title, scene) in enumerate(sample_scenes(profile, n)):
        cells = [
            "<br>".join(c.text for c in captions(scene, s, _texts(profile, index), each))
            for s in (config.web, config.coco)
        ]
        rows.append([title, *cells])
    return Table(
        name="tab-captions",
        caption=f"Captions of each scene above ({each} each), in the sparse style of the "
        "pretraining corpus and in the richer style of COCO.",
        header=["", "pretraining corpus", "COCO"],
        rows=rows,
        left=3,
    )


def _texts(profile: str, index: int) -> np.random.Generator:
    return text_generator(world_config(profile).scenes, SPLIT, index)
