"""SVO-Probes: a sentence, a scene that fits, and scenes with another subject, verb or object."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.files import Export, Picture
from cae_lib.data.world.export.sampling import again, scenes, spread, text_generator
from cae_lib.data.world.foils import pick, replacements
from cae_lib.data.world.scenes import Content, Scene
from cae_lib.data.world.statements import Statement, stated
from cae_lib.data.world.vocabulary import RELATIONS, admits

HEADER = ("sentence", "pos_triplet", "neg_triplet", "pos_url", "neg_url", "pos_image_id",
          "neg_image_id", "subj_neg", "verb_neg", "obj_neg")  # fmt: skip
PARTS = ("subj", "verb", "obj")
ACTIONS = tuple(name for name, kind in RELATIONS.items() if kind.action)


def export_svo_probes(config: WorldConfig) -> Export:
    """Write svo_probes.csv and the pictures of each sentence.

    Sentences are about actions. The verb's negative shows another action of the same pair where
    one cannot be taken for the first, else a position. Departure: there is nothing to download, so
    the columns of URLs name the picture files.
    """

    def action(content: Content) -> str | None:
        return content.relation if content.relation in ACTIONS else None

    drawn = scenes(config.scenes, "svo-probes")
    found = spread(drawn, config.sizes.svo_probes, action, ACTIONS)
    export = Export("svo_probes")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    n_rows = 0
    for index, scene in enumerate(found):
        rng = text_generator(config.scenes, "svo-probes", index)
        positive = _add(export, scene)
        true = stated(scene.content)
        for part, other in _negatives(scene, true, rng):
            negative = _add(export, other)
            flags = [str(part == name) for name in PARTS]
            triplets = (_triplet(scene.content), _triplet(other.content))
            urls = (f"images/{positive}.jpg", f"images/{negative}.jpg")
            writer.writerow((true.text, *triplets, *urls, positive, negative, *flags))
            n_rows += 1
    export.texts["svo-probes/svo_probes.csv"] = stream.getvalue()
    export.counts = {"all": n_rows}
    return export


def _negatives(
    scene: Scene, true: Statement, rng: np.random.Generator
) -> Iterator[tuple[str, Scene]]:
    """Up to one scene for each part of the sentence, in which the sentence is false."""
    for part, index in (("subj", 0), ("obj", 1)):
        noun = pick(rng, replacements(true, index, scene))
        if noun is not None:
            yield part, again(scene, scene.content.with_thing(index, noun=noun))
    first, second = (thing.noun for thing in scene.content.things[:2])
    names = [name for name in RELATIONS if admits(first, name, second)]
    others = [again(scene, replace(scene.content, relation=name)) for name in names]
    others = [other for other in others if not true.may_be_true(other)]
    actions = [other for other in others if other.content.relation in ACTIONS]
    other = pick(rng, actions or others)
    if other is not None:
        yield "verb", other


def _add(export: Export, scene: Scene) -> int:
    number = len(export.pictures) + 1
    export.pictures.append(Picture(f"svo-probes/images/{number}.jpg", (scene,)))
    return number


def _triplet(content: Content) -> str:
    return f"{content.things[0].noun},{content.relation},{content.things[1].noun}"
