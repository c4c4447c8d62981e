"""Write the benchmarks of composition: images of scenes, true captions and hard negatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count, islice

from cae_lib.world import edits, grammar
from cae_lib.world.boxed import aro, crepe
from cae_lib.world.config import WorldConfig
from cae_lib.world.corpora import coco_pictures
from cae_lib.world.draw import Picture
from cae_lib.world.edits import absent_nouns, foil, pick
from cae_lib.world.grammar import Statement, stated
from cae_lib.world.layouts import Export, Question
from cae_lib.world.scenes import Rng, Scene, again, fair, scenes, spread, text_generator
from cae_lib.world.vocabulary import ACTIONS, RELATIONS, admits

LEFT_OUT: Mapping[str, dict[str, str]] = {
    "aro": {
        "relation: touching": "on ARO's list of symmetric relations",
        "relation: holding": "nothing that is held can hold",
    },
    "valse": {
        "coreference-hard, coreference-standard": "captions have no pronouns",
        "counting-adversarial, counting-hard, counting-small-quant, plurals": (
            "no scene has two things of one noun"
        ),
    },
    "vl_checklist": {
        "Attribute/*/action": "no adjective of the small world is an action",
        "Attribute/*/state": "no adjective of the small world is a state",
        "Attribute/vaw/color": "the official set has no such file",
        "Relation/hake_action": "swig_action and vg/action hold the same actions",
        "Object/*/hake, Object/*/swig": "things of a scene have the roles subject and object only",
    },
}
# Winoground's tags, the fields of its two things that the second scene exchanges (all, if none is
# named), and in how many of twenty items.
EXCHANGES = (
    ("Object", "Noun", (), 9),
    ("Relation", "Adjective-Color", ("color",), 9),
    ("Both", "Noun, Adjective-Color", ("noun",), 2),
)
SUGARCREPE = tuple(kind for kind in edits.FOILS if kind not in ("like_rel", "deny_obj"))
SUGARCREPE_STYLE = grammar.CaptionStyle(0.6, 1.0, 1.0, extra=0.5, position=0.2, prefix=0.1)
VL_KINDS = {"color": "color", "material": "pattern", "size": "size"}
# Foil, and relations of the scenes, of VALSE's instruments; foil-it has COCO's test split.
VALSE: Mapping[str, tuple[str, Sequence[str]]] = {
    "actant-swap": ("swap_obj", ("riding", "chasing", "touching")),
    "action-replacement": ("like_rel", ACTIONS),
    "relations": ("like_rel", [name for name in RELATIONS if name not in ACTIONS]),
    "existence": ("deny_obj", tuple(RELATIONS)),
    "foil-it": ("replace_obj", ()),
}


def _foiled(
    config: WorldConfig,
    split: str,
    shown: Sequence[Scene],
    kind: str,
    caption: Callable[[int, Rng], Statement] | None = None,
    tries: int = 1,
) -> Iterator[tuple[int, Scene, Statement, Statement]]:
    """Yield each scene for which a hard negative is found, with its index and captions.

    Args:
        config: Configuration of the synthetic scenes.
        split: Name of the random stream of the texts.
        shown: The scenes.
        kind: Kind of the hard negative, one of `edits.FOILS`.
        caption: Makes the true caption of a scene; None states the relation of its main pair.
        tries: Largest number of true captions that are tried for a scene.

    Yields:
        Index of the scene, the scene, its true caption, and the hard negative.
    """
    for index, scene in enumerate(shown):
        rng = text_generator(config.scenes, split, index)
        for _ in range(tries):
            true = caption(index, rng) if caption else stated(scene.content)
            false = foil(kind, true, scene, rng)
            if false is not None:
                yield index, scene, true, false
                break


def _winoground(config: WorldConfig, export: Export) -> None:
    """Write items of two scenes and two captions that use the same words.

    The rest is the same in both scenes.
    """
    order = [kind for *kind, share in EXCHANGES for _ in range(share)]
    for index, drawn in enumerate(scenes(config.scenes, "winoground")):
        number = len(export.items["group"])
        if number == config.sizes.winoground:
            break
        collapsed, tag, fields = order[7 * number % len(order)]
        first = fair(drawn, index)
        if not first.content.swappable():
            continue
        second = again(first, first.content.exchanged(*fields))
        words = (
            [(thing.color,) if fields else () for thing in scene.content.things]
            for scene in (first, second)
        )
        true, other = map(stated, (first.content, second.content), words)
        unclear = true.may_be_true(second) or other.may_be_true(first)
        if not unclear and true.text != other.text:
            names = [f"ex_{number}_img_{side}.png" for side in (0, 1)]
            more = {"tag": tag, "collapsed_tag": collapsed}
            item = Question(names, [true.text, other.text], fields=more)
            export.add_item("group", item, Picture([first]), Picture([second]))


def _svo_probes(config: WorldConfig, export: Export) -> None:
    """Write sentences about an action, each with a scene that fits and others that do not.

    URLs name the image files.
    """
    shown = spread(config.scenes, "svo-probes", config.sizes.svo_probes, ACTIONS)
    for index, scene in enumerate(shown):
        rng = text_generator(config.scenes, "svo-probes", index)
        true = stated(scene.content)
        first = len(export.pictures) + 1
        for number, (changed, other) in enumerate(_svo_negatives(scene, true, rng), first + 1):
            more = {f"{name}_neg": changed == name for name in ("subj", "verb", "obj")}
            triplets = (_triplet(stated(one.content), ",") for one in (scene, other))
            more |= zip(("pos_triplet", "neg_triplet"), triplets, strict=True)
            item = Question([f"images/{n}.jpg" for n in (first, number)], [true.text], fields=more)
            export.add_item("all", item, Picture([scene]), Picture([other]))


def _svo_negatives(scene: Scene, true: Statement, rng: Rng) -> Iterator[tuple[str, Scene]]:
    """Yield up to one scene for each part of the sentence, in which that part is false."""
    for role, index in (("subj", 0), ("obj", 1)):
        chosen = pick(rng, edits.nouns_replaced(true, index, scene))
        if chosen is not None:
            noun = chosen.mentions[index].noun
            yield role, again(scene, scene.content.with_thing(index, noun=noun))
    first, second = (thing.noun for thing in scene.content.things[:2])
    names = [name for name in RELATIONS if admits(first, name, second)]
    others = [again(scene, replace(scene.content, relation=name)) for name in names]
    others = [other for other in others if not true.may_be_true(other)]
    other = pick(rng, [o for o in others if o.content.relation in ACTIONS] or others)
    if other is not None:
        yield "verb", other


def _triplet(statement: Statement, between: str = " ") -> str:
    """Return subject, relation and object without articles."""
    subject, obj = (mention.noun for mention in statement.mentions)
    return between.join((subject, statement.relation, obj))


def _vl_checklist(config: WorldConfig, export: Export) -> None:
    """Write short phrases against phrases with one attribute, relation or object changed."""
    size = config.sizes.vl_checklist
    for index, scene in enumerate(scenes(config.scenes, "vl-checklist", size * 3 // 2)):
        rng = text_generator(config.scenes, "vl-checklist", index)
        name = f"VG_100K/{4_000_001 + index}.jpg"
        export.pictures[f"vl-checklist/vg/{name}"] = Picture([scene])
        for corpus, true, false in _vg_phrases(scene, rng):
            if len(export.items[corpus]) < size:
                export.add_item(corpus, Question([name], [true], [false]))
    shown = spread(config.scenes, "vl-checklist/swig", size, ACTIONS)
    for index, scene, true, false in _foiled(config, "vl-checklist/swig", shown, "like_rel"):
        name = f"{scene.content.relation}_{index + 1}.jpg"
        item = Question([name], [_triplet(true)], [_triplet(false)])
        export.add_item("Relation/swig_action", item, Picture([scene]))


def _vg_phrases(scene: Scene, rng: Rng) -> Iterator[tuple[str, str, str]]:
    """Yield file, true phrase and false phrase of everything that one image is asked about."""
    things = scene.content.things
    for corpus, kind in VL_KINDS.items():
        for source in ("vg", "vaw"):
            thing = pick(rng, [thing for thing in things if getattr(thing, kind) is not None])
            if thing is not None and (source, corpus) != ("vaw", "color"):
                words = getattr(thing, kind), pick(rng, grammar.false_attributes(thing, kind))
                yield f"Attribute/{source}/{corpus}", *(f"{word} {thing.noun}" for word in words)
    true = stated(scene.content)
    false = foil("like_rel", true, scene, rng)
    if false is not None:
        corpus = "action" if scene.content.relation in ACTIONS else "spatial"
        yield f"Relation/vg/{corpus}", _triplet(true), _triplet(false)
    for role, index in (("subj", 0), ("obj", int(rng.integers(1, len(things))))):
        nouns = things[index].noun, pick(rng, absent_nouns(scene))
        place = scene.placements[index]
        off = max(abs(place.x - 0.5), abs(place.y - 0.5))
        where = "center" if off < 0.15 else "mid" if off < 0.25 else "margin"
        size = "small" if place.scale < 0.32 else "medium" if place.scale < 0.45 else "large"
        yield f"Object/Location/vg_location/vg_{role}_{where}", *nouns
        yield f"Object/Size/vg_size/vg_{role}_{size}", *nouns


def _sugarcrepe(config: WorldConfig, export: Export, second: bool = False) -> None:
    """Write rich captions against hard negatives with something added, replaced or swapped.

    The subsets share images. SugarCrepe++ has a `second` true caption, no additions, and the image
    files of SugarCrepe.
    """

    def caption(index: int, rng: Rng) -> Statement:
        return grammar.describe(shown[index], SUGARCREPE_STYLE, rng)

    size = config.sizes.sugarcrepe
    shown = list(map(fair, scenes(config.scenes, "sugar-crepe", size * 3 // 2), count()))
    for subset in SUGARCREPE:
        if second and subset.startswith("add"):
            continue
        asked = _foiled(config, f"sugar-crepe/{subset}", shown, subset, caption, tries=4)
        for index, scene, true, false in islice(asked, size):
            item = Question([f"{index + 1:012d}.jpg"], [true.text], [false.text])
            if second:
                rng = text_generator(config.scenes, f"sugarcrepe-pp/{subset}", index + 1)
                more = [true.text, grammar.paraphrase(true, rng).text]
                export.add_item(subset, replace(item, captions=more))
            else:
                export.add_item(subset, item, Picture([scene]))


def _half_truths(config: WorldConfig, export: Export) -> None:
    """Write a thing, the thing with a true addition, and with a false part in the addition.

    The addition is a second thing.

    The false part is the noun, an adjective or the relation, each equally often. Each item has an
    image of its own.
    """
    size = config.sizes.half_truths
    shown = list(map(fair, scenes(config.scenes, "half-truths", size), count()))
    for index, scene in enumerate(shown):
        rng = text_generator(config.scenes, "half-truths", index)
        kind = ("object", "attribute", "relation")[index % 3]
        words = ((), scene.content.things[1].attributes[-1:] if kind == "attribute" else ())
        full = stated(scene.content, words)
        if kind != "relation":
            full = replace(full.with_piece(1, "and"), relation=None)
        made = {
            "object": edits.nouns_replaced(full, 1, scene),
            "attribute": edits.attributes_changed(full, scene),
            "relation": edits.relations_replaced(full, scene),
        }[kind]
        half = pick(rng, edits.certainly_false(made, scene, full.text))
        if half is not None:
            name = f"{index + 1}.jpg"
            more = {"triplet_type": kind}
            item = Question([name], [full.mentions[0].text, full.text], [half.text], fields=more)
            export.add_item("world", item, Picture([scene]))


def _valse(config: WorldConfig, export: Export) -> None:
    """Write a caption against a hard negative for each phenomenon; foil-it has captions of COCO."""

    def existence(index: int, rng: Rng) -> Statement:
        there = [thing.noun for thing in shown[index].content.things]
        noun = pick(rng, absent_nouns(shown[index]) if index % 2 else there)
        mention = grammar.Mention(noun, article="no" if index % 2 else None)
        return Statement((mention,), ("there is", ""))

    size = config.sizes.valse
    coco = coco_pictures(config, "test")[:size]
    captions = {"existence": existence, "foil-it": lambda index, rng: coco[index].gold[0]}
    for name, (kind, names) in VALSE.items():
        split, own = f"valse/{name}", name != "foil-it"
        shown = [picture.scene for picture in coco]
        if own:
            shown = spread(config.scenes, split, size, names, swappable=kind == "swap_obj")
        for index, scene, true, false in _foiled(config, split, shown, kind, captions.get(name)):
            classes = true.relation, false.relation
            if name in captions:
                pairs = zip(true.mentions, false.mentions, strict=True)
                classes = next((a.noun, b.noun) for a, b in pairs if a != b)
            key = f"{name}_{index + 1}"
            more = {"key": key, "dataset": "small world", "dataset_idx": index}
            more |= {"classes": classes[0], "classes_foil": classes[1]}
            picture = f"{key}.jpg" if own else coco[index].name
            item = Question([picture], [true.text], [false.text], fields=more)
            export.add_item(name, item, *([Picture([scene])] if own else []))


BENCHMARKS: Mapping[str, Callable[[WorldConfig, Export], None]] = {
    "winoground": _winoground,
    "svo_probes": _svo_probes,
    "vl_checklist": _vl_checklist,
    "sugarcrepe": _sugarcrepe,
    "aro": aro,
    "crepe": crepe,
    "valse": _valse,
    "sugarcrepe_pp": partial(_sugarcrepe, second=True),
    "half_truths": _half_truths,
}
