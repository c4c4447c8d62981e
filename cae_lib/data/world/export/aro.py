"""ARO's VG-Relation and VG-Attribution: boxes in pictures that show a second scene beside."""

from __future__ import annotations

from itertools import combinations, islice

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.files import Export, paired
from cae_lib.data.world.export.sampling import again, scenes, spread, swappable
from cae_lib.data.world.foils import attributes_exchanged, phrases_exchanged
from cae_lib.data.world.scenes import Content, Scene, SceneConfig, generator
from cae_lib.data.world.statements import Mention, Statement, stated
from cae_lib.data.world.vocabulary import COLORS, PATTERNS, RELATIONS, SIZES, canonical

SYMMETRIC = "touching"
"""ARO's list of symmetric relations has "touching", so its items would not count."""


def export_aro(config: WorldConfig) -> Export:
    """Write both annotation files; the captions of COCO-Order and Flickr30k-Order lie with those.

    Every relation has about as many items, of scenes whose arguments can be exchanged. Every pair
    of attributes has about as many items, more than the 25 that the macro average asks for.
    """
    left_out = {
        "relation: touching": "on ARO's list of symmetric relations",
        "relation: holding": "nothing that is held can hold",
    }
    export = Export("aro", left_out=left_out)
    _relation(config, export)
    _attribution(config, export)
    return export


def _relation(config: WorldConfig, export: Export) -> None:
    def group(content: Content) -> str | None:
        return content.relation if swappable(content) and content.relation != SYMMETRIC else None

    found = spread(
        scenes(config.scenes, "aro-relation"), config.sizes.aro_relation, group,
        [name for name in RELATIONS if name not in (SYMMETRIC, "holding")],
    )  # fmt: skip
    pictures, places = paired(found, "aro/images/1{:06d}.jpg")
    rows = []
    for scene, (path, box) in zip(found, places, strict=True):
        true = stated(scene.content, article="the")
        false = phrases_exchanged(true, 0, 1)
        extra = {"relation_name": canonical(scene.content.relation)}
        rows.append(_row(path, box, true, false) | extra)
    _add(export, "relation", pictures, rows)


def _attribution(config: WorldConfig, export: Export) -> None:
    pairs = attribute_pairs(config.scenes)
    drawn = islice(scenes(config.scenes, "aro-attribution"), config.sizes.aro_attribution)
    found = [_dress(scene, *pairs[i % len(pairs)]) for i, scene in enumerate(drawn)]
    pictures, places = paired(found, "aro/images/2{:06d}.jpg")
    rows = []
    for i, (scene, (path, box)) in enumerate(zip(found, places, strict=True)):
        words = pairs[i % len(pairs)]
        mentions = tuple(
            Mention(thing.noun, (word,), "the")
            for thing, word in zip(scene.content.things, words, strict=False)
        )
        true = Statement(mentions, ("", "and", ""))
        false = attributes_exchanged(true, 0, 1)
        rows.append(_row(path, box, true, false) | {"attributes": list(words)})
    _add(export, "attribution", pictures, rows)


def attribute_pairs(config: SceneConfig) -> list[tuple[str, str]]:
    """All pairs of attributes of one kind, each in one order, drawn once for the world."""
    pairs = [pair for kind in (tuple(COLORS), PATTERNS, SIZES) for pair in combinations(kind, 2)]
    rng = generator(config.seed, "attribute pairs")
    return [(b, a) if rng.random() < 0.5 else (a, b) for a, b in pairs]


def _dress(scene: Scene, first: str, second: str) -> Scene:
    """The scene with these adjectives on its first two things, arranged anew."""
    field = "color" if first in COLORS else "pattern" if first in PATTERNS else "size"
    content = scene.content.with_thing(0, **{field: first}).with_thing(1, **{field: second})
    return again(scene, content)


def _row(path: str, box: dict[str, int], true: Statement, false: Statement) -> dict:
    name = path.rpartition("/")[2]
    places = {f"bbox_{key[0]}": box[key] for key in ("x", "y", "width", "height")}
    return {
        "image_id": int(name.removesuffix(".jpg")), "image_path": name, **places,
        "true_caption": true.text, "false_caption": false.text,
    }  # fmt: skip


def _add(export: Export, subset: str, pictures: list, rows: list[dict]) -> None:
    export.pictures += pictures
    export.add_json(f"aro/visual_genome_{subset}.json", rows)
    export.counts[subset] = len(rows)
