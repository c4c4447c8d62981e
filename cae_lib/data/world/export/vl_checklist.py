"""VL-CheckList: short phrases against phrases with one attribute, relation or object changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from cae_lib.data.world.config import WorldConfig
from cae_lib.data.world.export.files import Export, Picture
from cae_lib.data.world.export.sampling import scenes, spread, text_generator
from cae_lib.data.world.foils import absent_nouns, pick, relation_like
from cae_lib.data.world.layout import Placement
from cae_lib.data.world.scenes import Content, Scene
from cae_lib.data.world.statements import Statement, stated
from cae_lib.data.world.truth import false_attributes
from cae_lib.data.world.vocabulary import RELATIONS

ACTIONS = tuple(name for name, kind in RELATIONS.items() if kind.action)
KINDS = {"color": "color", "material": "pattern", "size": "size"}
LEFT_OUT = {
    "Attribute/*/action": "no adjective of the small world is an action",
    "Attribute/*/state": "no adjective of the small world is a state",
    "Attribute/vaw/color": "the official set has no such file",
    "Relation/hake_action": "swig_action and vg/action hold the same actions",
    "Object/*/hake, Object/*/swig": "things of a scene have the roles subject and object only",
}
Rows = dict[str, list[list]]


def export_vl_checklist(config: WorldConfig) -> Export:
    """Write the corpora that make sense here; `material` is the pattern of a thing.

    The corpora of vg and vaw share pictures, as the real ones do; swig_action has its own, of
    actions alone. "Subject" is the subject of the main relation, "object" any other thing.
    """
    size = config.sizes.vl_checklist
    export = Export("vl_checklist", left_out=LEFT_OUT)
    shown = list(islice(scenes(config.scenes, "vl-checklist"), size * 3 // 2))
    rows: Rows = {}
    for index, scene in enumerate(shown):
        rng = text_generator(config.scenes, "vl-checklist", index)
        name = f"VG_100K/{4_000_001 + index}.jpg"
        export.pictures.append(Picture(f"vl-checklist/vg/{name}", (scene,)))
        for corpus, positive, negative in _vg_items(scene, rng):
            _add(rows, size, corpus, name, positive, negative)
    _swig(config, export, rows)
    for corpus, entries in sorted(rows.items()):
        export.add_json(f"vl-checklist/data/{corpus}.json", entries)
        export.counts[corpus] = len(entries)
    return export


def _swig(config: WorldConfig, export: Export, rows: Rows) -> None:
    def action(content: Content) -> str | None:
        return content.relation if content.relation in ACTIONS else None

    drawn = scenes(config.scenes, "vl-checklist/swig")
    for index, scene in enumerate(spread(drawn, config.sizes.vl_checklist, action, ACTIONS)):
        rng = text_generator(config.scenes, "vl-checklist/swig", index)
        negative = _other_relation(scene, rng)
        if negative is not None:
            name = f"{scene.content.relation}_{index + 1}.jpg"
            export.pictures.append(Picture(f"vl-checklist/swig/{name}", (scene,)))
            positive = _bare(stated(scene.content, copula=False))
            _add(rows, config.sizes.vl_checklist, "Relation/swig_action", name, positive, negative)


def _vg_items(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """Corpus, true and false phrase, of everything that one picture is asked about."""
    things = scene.content.things
    for corpus, kind in KINDS.items():
        for source in ("vg", "vaw"):
            named = [thing for thing in things if getattr(thing, kind) is not None]
            thing = pick(rng, named)
            if thing is None or (source, corpus) == ("vaw", "color"):
                continue
            false = pick(rng, false_attributes(thing, kind))
            true = getattr(thing, kind)
            yield f"Attribute/{source}/{corpus}", f"{true} {thing.noun}", f"{false} {thing.noun}"
    negative = _other_relation(scene, rng)
    if negative is not None:
        corpus = "action" if RELATIONS[scene.content.relation].action else "spatial"
        yield f"Relation/vg/{corpus}", _bare(stated(scene.content, copula=False)), negative
    for role, index in (("subj", 0), ("obj", int(rng.integers(1, len(things))))):
        true, false = things[index].noun, pick(rng, absent_nouns(scene))
        place = scene.placements[index]
        yield f"Object/Location/vg_location/vg_{role}_{location(place)}", true, false
        yield f"Object/Size/vg_size/vg_{role}_{extent(place)}", true, false


def location(place: Placement) -> str:
    """The class "center", "mid" or "margin", by the distance from the picture's middle."""
    distance = max(abs(place.x - 0.5), abs(place.y - 0.5))
    return "center" if distance < 0.15 else "mid" if distance < 0.25 else "margin"


def extent(place: Placement) -> str:
    """The class "small", "medium" or "large", by the side of the thing's square."""
    return "small" if place.scale < 0.32 else "medium" if place.scale < 0.45 else "large"


def _other_relation(scene: Scene, rng: np.random.Generator) -> str | None:
    chosen = relation_like(stated(scene.content, copula=False), scene, rng)
    return None if chosen is None else _bare(chosen)


def _bare(statement: Statement) -> str:
    """The text without articles, as the real phrases are."""
    nouns = [mention.noun for mention in statement.mentions]
    return f"{nouns[0]} {statement.pieces[1]} {nouns[1]}"


def _add(rows: Rows, size: int, corpus: str, name: str, positive: str, negative: str) -> None:
    entries = rows.setdefault(corpus, [])
    if len(entries) < size:
        entries.append([name, {"POS": [positive], "NEG": [negative]}])
