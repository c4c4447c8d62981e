"""Winoground: two scenes and two captions with the same words in another order."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.files import Export, Picture
from cae_lib.data.world.export.sampling import again, fair, scenes, swappable
from cae_lib.data.world.scenes import Content, Scene
from cae_lib.data.world.statements import Statement, stated

FOLDER = "winoground/images"


@dataclass(frozen=True)
class _Kind:
    """One way to make the second scene.

    Attributes:
        collapsed: Winoground's tag: what is exchanged is an object, a relation (verbs,
            adjectives and prepositions are that), or both.
        tag: The finer tag.
        exchange: The second content.
        colored: The captions name the colours.
        share: Of twenty items, how many are of this kind.
    """

    collapsed: str
    tag: str
    exchange: Callable[[Content], Content]
    colored: bool
    share: int


def _nouns_exchanged(content: Content) -> Content:
    first, second = content.things[0].noun, content.things[1].noun
    return content.with_thing(0, noun=second).with_thing(1, noun=first)


KINDS = (
    _Kind("Object", "Noun", Content.swapped, False, 9),
    _Kind("Relation", "Adjective-Color", Content.colors_exchanged, True, 9),
    _Kind("Both", "Noun, Adjective-Color", _nouns_exchanged, True, 2),
)


def export_winoground(config: WorldConfig) -> Export:
    """Write examples.jsonl and two pictures an item; further things are the same in both."""
    order = [kind for kind in KINDS for _ in range(kind.share)]
    order = [order[7 * i % len(order)] for i in range(len(order))]
    export = Export("winoground")
    lines = []
    drawn = enumerate(scenes(config.scenes, "winoground"))
    while len(lines) < config.sizes.winoground:
        index, scene = next(drawn)
        kind = order[len(lines) % len(order)]
        pair = _pair(fair(scene, index), kind)
        if pair is None:
            continue
        number = len(lines)
        names = [f"ex_{number}_img_{side}" for side in (0, 1)]
        for name, (shown, _) in zip(names, pair, strict=True):
            export.pictures.append(Picture(f"{FOLDER}/{name}.png", (shown,)))
        lines.append(json.dumps({
            "id": number, "caption_0": pair[0][1].text, "caption_1": pair[1][1].text,
            "image_0": names[0], "image_1": names[1], "tag": kind.tag, "secondary_tag": "",
            "num_main_preds": 1, "collapsed_tag": kind.collapsed,
        }))  # fmt: skip
    export.texts["winoground/examples.jsonl"] = "\n".join(lines)
    export.counts = dict.fromkeys(("text", "image", "group"), len(lines))
    return export


def _pair(scene: Scene, kind: _Kind) -> list[tuple[Scene, Statement]] | None:
    """Both scenes with their captions; None when one caption could be said of the other scene."""
    if not swappable(scene.content):
        return None
    other = again(scene, kind.exchange(scene.content))
    pair = []
    for shown in (scene, other):
        colors = [(thing.color,) if kind.colored else () for thing in shown.content.things]
        pair.append((shown, stated(shown.content, colors)))
    (_, first), (_, second) = pair
    if first.text == second.text or first.may_be_true(other) or second.may_be_true(scene):
        return None
    return pair
