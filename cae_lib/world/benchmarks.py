"""The benchmarks of composition, each in the layout and with the columns of the official files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, cycle, islice
from typing import Any, NamedTuple

import numpy as np

from cae_lib.world import foils
from cae_lib.world.config import WorldConfig
from cae_lib.world.corpora import Corpus
from cae_lib.world.export import Export, Picture
from cae_lib.world.foils import absent_nouns, certainly_false, foil, pick, plausible
from cae_lib.world.grammar import CaptionStyle, describe
from cae_lib.world.layout import Placement
from cae_lib.world.scenes import (
    PATIENCE,
    Content,
    Scene,
    SceneConfig,
    again,
    fair,
    generator,
    scenes,
    spread,
    text_generator,
)
from cae_lib.world.statements import Mention, Statement, false_attributes, read, stated
from cae_lib.world.vocabulary import ACTIONS, ADJECTIVES, KIND_OF, RELATIONS, admits, canonical

LEFT_OUT: Mapping[str, dict[str, str]] = {
    "aro": {
        "relation: touching": "on ARO's list of symmetric relations",
        "relation: holding": "nothing that is held can hold",
    },
    "valse": {
        "counting-adversarial, counting-hard, counting-small-quant, plurals": (
            "no scene has two things of one noun"
        ),
        "coreference-hard, coreference-standard": "captions have no pronouns",
    },
    "vl_checklist": {
        "Attribute/*/action": "no adjective of the small world is an action",
        "Attribute/*/state": "no adjective of the small world is a state",
        "Attribute/vaw/color": "the official set has no such file",
        "Relation/hake_action": "swig_action and vg/action hold the same actions",
        "Object/*/hake, Object/*/swig": "things of a scene have the roles subject and object only",
    },
}


COLUMNS: Mapping[str, str] = {
    "aro": "image_id image_path bbox_x bbox_y bbox_w bbox_h true_caption false_caption",
    "crepe": "image_id caption n n_objects n_relations n_attributes n_connected_components "
    "hard_negs x y width height",
    "sugarcrepe": "filename caption negative_caption",
    "svo_probes": "sentence pos_triplet neg_triplet pos_url neg_url pos_image_id neg_image_id "
    "subj_neg verb_neg obj_neg",
    "valse": "dataset original_split dataset_idx linguistic_phenomena image_file caption foil "
    "classes classes_foil mturk",
    "winoground": "id caption_0 caption_1 image_0 image_1 tag secondary_tag num_main_preds "
    "collapsed_tag",
}
"""The official columns or keys of an item, in order."""


def _row(family: str, *values: Any) -> dict[str, Any]:
    return dict(zip(COLUMNS[family].split(), values, strict=True))


class Item(NamedTuple):
    """A scene with its number in its split, a true statement and a false one."""

    index: int
    scene: Scene
    true: Statement
    false: Statement


Caption = Callable[[int, Scene, np.random.Generator], Statement]


def _main(index: int, scene: Scene, rng: np.random.Generator) -> Statement:
    """The main pair and its relation."""
    return stated(scene.content)


def _items(
    config: WorldConfig,
    split: str,
    shown: Sequence[Scene],
    kind: str,
    caption: Caption = _main,
    tries: int = 1,
) -> Iterator[Item]:
    """The scenes with a caption and a foil of a kind, but those where no try finds a foil."""
    for index, scene in enumerate(shown):
        rng = text_generator(config.scenes, split, index)
        for _ in range(tries):
            true = caption(index, scene, rng)
            false = foil(kind, true, scene, rng)
            if false is not None:
                yield Item(index, scene, true, false)
                break


# Winoground: two scenes and two captions with the same words in another order.


class Exchange(NamedTuple):
    """One way to make Winoground's second scene.

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


EXCHANGES = (
    Exchange("Object", "Noun", Content.swapped, False, 9),
    Exchange("Relation", "Adjective-Color", Content.colors_exchanged, True, 9),
    Exchange("Both", "Noun, Adjective-Color", Content.nouns_exchanged, True, 2),
)


def export_winoground(config: WorldConfig) -> Export:
    """Winoground: examples.jsonl, two pictures an item; further things are the same in both."""
    order = [kind for kind in EXCHANGES for _ in range(kind.share)]
    export = Export("winoground")
    rows: list[dict[str, Any]] = []
    for index, scene in enumerate(scenes(config.scenes, "winoground")):
        number = len(rows)
        if number == config.sizes.winoground:
            break
        kind = order[7 * number % len(order)]
        pair = _exchanged(fair(scene, index), kind)
        if pair is None:
            continue
        shown, texts = pair
        names = [f"ex_{number}_img_{side}" for side in (0, 1)]
        for name, one in zip(names, shown, strict=True):
            export.show(f"winoground/images/{name}.png", one)
        sentences = (text.text for text in texts)
        row = _row("winoground", number, *sentences, *names, kind.tag, "", 1, kind.collapsed)
        rows.append(row)
    export.json_lines("winoground/examples.jsonl", rows)
    export.counts = dict.fromkeys(("text", "image", "group"), len(rows))
    return export


def _exchanged(scene: Scene, kind: Exchange) -> tuple[list[Scene], list[Statement]] | None:
    """Both scenes and their captions; None when one caption could be said of the other scene."""
    if not scene.content.swappable():
        return None
    shown = [scene, again(scene, kind.exchange(scene.content))]
    texts = []
    for content in (one.content for one in shown):
        colors = [(thing.color,) if kind.colored else () for thing in content.things]
        texts.append(stated(content, colors))
    unclear = any(text.may_be_true(other) for text, other in zip(texts, shown[::-1], strict=True))
    return None if unclear or texts[0].text == texts[1].text else (shown, texts)


# SVO-Probes: a sentence, a scene that fits, and scenes with another subject, verb or object.


def export_svo_probes(config: WorldConfig) -> Export:
    """SVO-Probes: svo_probes.csv and the pictures of each sentence.

    Sentences are about actions. The verb's negative shows another action of the same pair where
    one cannot be taken for the first, else a position. Departure: there is nothing to download, so
    the columns of URLs name the picture files.
    """
    export = Export("svo_probes")

    def show(scene: Scene) -> int:
        number = len(export.pictures) + 1
        export.show(f"svo-probes/images/{number}.jpg", scene)
        return number

    rows = []
    found = spread(config.scenes, "svo-probes", config.sizes.svo_probes, ACTIONS)
    for index, scene in enumerate(found):
        rng = text_generator(config.scenes, "svo-probes", index)
        positive = show(scene)
        true = stated(scene.content)
        for part, other in _svo_negatives(scene, true, rng):
            negative = show(other)
            numbers = positive, negative
            urls = (f"images/{number}.jpg" for number in numbers)
            flags = (part == name for name in ("subj", "verb", "obj"))
            triplets = _triplet(scene), _triplet(other)
            rows.append(_row("svo_probes", true.text, *triplets, *urls, *numbers, *flags))
    export.csv("svo-probes/svo_probes.csv", rows)
    export.counts = {"all": len(rows)}
    return export


def _svo_negatives(
    scene: Scene, true: Statement, rng: np.random.Generator
) -> Iterator[tuple[str, Scene]]:
    """Up to one scene for each part of the sentence, in which the sentence is false."""
    for part, index in (("subj", 0), ("obj", 1)):
        chosen = pick(rng, foils.nouns_replaced(true, index, scene))
        if chosen is not None:
            noun = chosen.mentions[index].noun
            yield part, again(scene, scene.content.with_thing(index, noun=noun))
    first, second = (thing.noun for thing in scene.content.things[:2])
    names = [name for name in RELATIONS if admits(first, name, second)]
    others = [again(scene, replace(scene.content, relation=name)) for name in names]
    others = [other for other in others if not true.may_be_true(other)]
    other = pick(rng, [o for o in others if o.content.relation in ACTIONS] or others)
    if other is not None:
        yield "verb", other


def _triplet(scene: Scene) -> str:
    subject, obj = (thing.noun for thing in scene.content.things[:2])
    return f"{subject},{scene.content.relation},{obj}"


# VL-CheckList: short phrases against phrases with one attribute, relation or object changed.

VL_KINDS = {"color": "color", "material": "pattern", "size": "size"}


def export_vl_checklist(config: WorldConfig) -> Export:
    """VL-CheckList: the corpora that make sense here; `material` is the pattern of a thing.

    The corpora of vg and vaw share pictures, as the real ones do; swig_action has its own, of
    actions alone. "Subject" is the subject of the main relation, "object" any other thing.
    """
    size = config.sizes.vl_checklist
    export = Export("vl_checklist", left_out=LEFT_OUT["vl_checklist"])
    rows: dict[str, list[list[Any]]] = defaultdict(list)

    def add(corpus: str, name: str, true: str, false: str) -> None:
        if len(rows[corpus]) < size:
            rows[corpus].append([name, {"POS": [true], "NEG": [false]}])

    shown = islice(scenes(config.scenes, "vl-checklist"), size * 3 // 2)
    for index, scene in enumerate(shown):
        rng = text_generator(config.scenes, "vl-checklist", index)
        name = f"VG_100K/{4_000_001 + index}.jpg"
        export.show(f"vl-checklist/vg/{name}", scene)
        for corpus, true, false in _vg_phrases(scene, rng):
            add(corpus, name, true, false)
    split = "vl-checklist/swig"
    shown = spread(config.scenes, split, size, ACTIONS)
    for item in _items(config, split, shown, "like_rel"):
        name = f"{item.scene.content.relation}_{item.index + 1}.jpg"
        export.show(f"{split}/{name}", item.scene)
        add("Relation/swig_action", name, _bare(item.true), _bare(item.false))
    for corpus, entries in sorted(rows.items()):
        export.json(f"vl-checklist/data/{corpus}.json", entries, count=corpus)
    return export


def _vg_phrases(scene: Scene, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """Corpus, true and false phrase, of everything that one picture is asked about."""
    things = scene.content.things
    for corpus, kind in VL_KINDS.items():
        for source in ("vg", "vaw"):
            thing = pick(rng, [thing for thing in things if getattr(thing, kind) is not None])
            if thing is None or (source, corpus) == ("vaw", "color"):
                continue
            false = pick(rng, false_attributes(thing, kind))
            phrases = (f"{word} {thing.noun}" for word in (getattr(thing, kind), false))
            yield f"Attribute/{source}/{corpus}", *phrases
    true = stated(scene.content)
    other = foil("like_rel", true, scene, rng)
    if other is not None:
        corpus = "action" if scene.content.relation in ACTIONS else "spatial"
        yield f"Relation/vg/{corpus}", _bare(true), _bare(other)
    for role, index in (("subj", 0), ("obj", int(rng.integers(1, len(things))))):
        nouns = things[index].noun, pick(rng, absent_nouns(scene))
        place = scene.placements[index]
        yield f"Object/Location/vg_location/vg_{role}_{location(place)}", *nouns
        yield f"Object/Size/vg_size/vg_{role}_{extent(place)}", *nouns


def location(place: Placement) -> str:
    """The class "center", "mid" or "margin", by the distance from the picture's middle."""
    distance = max(abs(place.x - 0.5), abs(place.y - 0.5))
    return "center" if distance < 0.15 else "mid" if distance < 0.25 else "margin"


def extent(place: Placement) -> str:
    """The class "small", "medium" or "large", by the side of the thing's square."""
    return "small" if place.scale < 0.32 else "medium" if place.scale < 0.45 else "large"


def _bare(statement: Statement) -> str:
    """Subject, relation and object without articles, as the real phrases are."""
    subject, obj = (mention.noun for mention in statement.mentions)
    return f"{subject} {canonical(statement.relation[1])} {obj}"


# SugarCrepe: rich captions against foils with one part added, replaced or exchanged.

SUGARCREPE = tuple(kind for kind in foils.FOILS if kind not in ("like_rel", "deny_obj"))
SUGARCREPE_STYLE = CaptionStyle(
    attribute=0.6, second=1.0, relation=1.0, extra=0.5, position=0.2, prefix=0.1
)


def export_sugarcrepe(config: WorldConfig) -> Export:
    """SugarCrepe: seven files; their pictures, in coco/val2017, are shared, as the real ones are.

    Half of the scenes stand in the unusual order of their arguments, so that words alone do not
    tell a caption from its foil.
    """

    def caption(index: int, scene: Scene, rng: np.random.Generator) -> Statement:
        return read(describe(scene, SUGARCREPE_STYLE, rng), scene.content)

    size = config.sizes.sugarcrepe
    drawn = islice(scenes(config.scenes, "sugar-crepe"), size * 3 // 2)
    shown = [fair(scene, index) for index, scene in enumerate(drawn)]
    export = Export("sugarcrepe")
    used: dict[str, Scene] = {}
    for subset in SUGARCREPE:
        rows = {}
        items = _items(config, f"sugar-crepe/{subset}", shown, subset, caption, tries=4)
        for number, item in enumerate(islice(items, size)):
            name = f"{item.index + 1:012d}.jpg"
            used[name] = item.scene
            rows[str(number)] = _row("sugarcrepe", name, item.true.text, item.false.text)
        export.json(f"sugar-crepe/data/{subset}.json", rows, count=subset)
    for name in sorted(used):
        export.show(f"coco/val2017/{name}", used[name])
    return export


# ARO's VG-Relation and VG-Attribution: boxes in pictures that show a second scene beside.


def export_aro(config: WorldConfig) -> Export:
    """ARO: both annotation files; the captions of COCO-Order and Flickr30k-Order lie with those.

    Every relation has about as many items, of scenes whose arguments can be exchanged. Every pair
    of attributes has about as many items, more than the 25 that the macro average asks for.
    """
    export = Export("aro", left_out=LEFT_OUT["aro"])
    names = [name for name in RELATIONS if f"relation: {name}" not in LEFT_OUT["aro"]]
    n = config.sizes.aro_relation
    related = spread(config.scenes, "aro-relation", n, names, swappable=True)
    drawn = islice(scenes(config.scenes, "aro-attribution"), config.sizes.aro_attribution)
    subsets = {
        "relation": [(scene, stated(scene.content, article="the")) for scene in related],
        "attribution": list(map(_dressed, drawn, cycle(attribute_pairs(config.scenes)))),
    }
    for number, (subset, items) in enumerate(subsets.items(), start=1):
        shown, texts = zip(*items, strict=True)
        places = export.show_pairs(shown, f"aro/images/{number}{{:06d}}.jpg")
        rows = [_aro_row(*place, true) for place, true in zip(places, texts, strict=True)]
        export.json(f"aro/visual_genome_{subset}.json", rows, count=subset)
    return export


def attribute_pairs(config: SceneConfig) -> list[tuple[str, str]]:
    """All pairs of attributes of one kind, each in one order, drawn once for the world."""
    kinds = (ADJECTIVES[kind] for kind in ("color", "pattern", "size"))
    rng = generator(config.seed, "attribute pairs")
    pairs = (pair for words in kinds for pair in combinations(words, 2))
    return [(b, a) if rng.random() < 0.5 else (a, b) for a, b in pairs]


def _dressed(scene: Scene, words: tuple[str, str]) -> tuple[Scene, Statement]:
    """The scene with these adjectives of one kind on its first two things, and what it shows."""
    content = scene.content
    for index, word in enumerate(words):
        content = content.with_thing(index, **{KIND_OF[word]: word})
    things = zip(content.things, words, strict=False)
    mentions = tuple(Mention(thing.noun, (word,), "the") for thing, word in things)
    return again(scene, content), Statement(mentions, ("", "and", ""))


def _aro_row(picture: Picture, box: Sequence[int], true: Statement) -> dict[str, Any]:
    if true.relation is not None:
        false = foils.phrases_exchanged(true)
        own: dict[str, Any] = {"relation_name": canonical(true.relation[1])}
    else:
        false = foils.attributes_exchanged(true, 0, 1)
        own = {"attributes": [mention.attributes[0] for mention in true.mentions]}
    name = f"{picture.number}.jpg"
    return _row("aro", picture.number, name, *box, true.text, false.text) | own


# CREPE's productivity sets: captions of 4 to 12 atoms, each against five hard negatives.

COMPLEXITIES = range(4, 13)
N_NEGATIVES = 5
CREPE_FILE = "crepe/data/prod_hard_negatives/{0}/prod_vg_hard_negs_{0}_complexity_{1}.csv"


def export_crepe(config: WorldConfig) -> Export:
    """CREPE: the files of atom, swap and negate by complexity; pictures hold two scenes each.

    Each number of atoms (objects, attributes, relations) from 4 to 12 has about as many captions.
    A kind for which a caption has no five false ones leaves it out.
    """
    export = Export("crepe", counts=dict.fromkeys(("atom", "swap", "negate"), 0))
    shown, complexities = _crepe_scenes(config)
    places = export.show_pairs(shown, "crepe/VG_100K/3{:06d}.jpg")
    rows: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for index, (scene, (picture, box)) in enumerate(zip(shown, places, strict=True)):
        rng = text_generator(config.scenes, "crepe", index)
        true = compound(scene.content, complexities[index], rng)
        n, n_objects = true.n_atoms, len(true.mentions)
        counts = n, n_objects, 1, n - n_objects - 1, n_objects - 1
        for kind, texts in hard_negatives(true, scene, rng).items():
            if len(texts) == N_NEGATIVES:
                cells = picture.number, true.text, *counts, texts, *map(float, box)
                rows[kind, n].append(_row("crepe", *cells))
    for (kind, complexity), entries in sorted(rows.items()):
        export.csv(CREPE_FILE.format(kind, complexity), entries)
        export.counts[kind] += len(entries)
    return export


def _crepe_scenes(config: WorldConfig) -> tuple[list[Scene], list[int]]:
    """Scenes, and for each the number of atoms to state: the highest still wanted that it has."""
    size = config.sizes.crepe
    quota = -(-size // len(COMPLEXITIES))
    found: list[Scene] = []
    complexities: list[int] = []
    for scene in islice(scenes(config.scenes, "crepe"), PATIENCE * size):
        things = scene.content.things
        most = len(things) + 1 + sum(len(thing.attributes) for thing in things)
        fitting = [n for n in COMPLEXITIES if n <= most and complexities.count(n) < quota]
        if fitting:
            found.append(scene)
            complexities.append(fitting[-1])
        if len(found) == size:
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


def hard_negatives(true: Statement, scene: Scene, rng: np.random.Generator) -> dict[str, list[str]]:
    """Up to five false texts of each kind: "atom", "swap" and "negate"."""
    atoms = foils.attributes_replaced(true, scene) + foils.relations_replaced(true, scene)
    for index in range(len(true.mentions)):
        replaced = foils.nouns_replaced(true, index, scene)
        atoms += [replaced[k] for k in rng.permutation(len(replaced))[:3]]
    once = list(foils.exchanges(true))
    swaps = chain(once, (twice for first in once for twice in foils.exchanges(first)))
    swaps = certainly_false(filter(plausible, swaps), scene, true.text, 2 * N_NEGATIVES)
    found = {
        "atom": [false.text for false in certainly_false(atoms, scene, true.text)],
        "swap": [false.text for false in swaps],
        "negate": foils.negations(true),
    }
    return {
        kind: [texts[k] for k in sorted(rng.permutation(len(texts))[:N_NEGATIVES])]
        for kind, texts in found.items()
    }


# VALSE: a caption against a foil, for the linguistic phenomena that the small world has.


VALSE: Mapping[str, tuple[str, Sequence[str], str]] = {
    "actant-swap": ("swap_obj", ("riding", "chasing", "touching"), "actions/images_512"),
    "action-replacement": ("like_rel", ACTIONS, "actions/images_512"),
    "relations": (
        "like_rel",
        [name for name in RELATIONS if name not in ACTIONS],
        "relations/test_images",
    ),
    "existence": ("deny_obj", tuple(RELATIONS), "visual7w/images"),
}
"""Foil, relations of the scenes, and folder of the pictures, where an instrument has its own."""


def export_valse(config: WorldConfig, coco_test: Corpus) -> Export:
    """VALSE: five of the eleven files, every item with the full votes of three annotators.

    The pictures of foil-it are those of COCO's test split, with their own captions, as in VALSE.
    """
    export = Export("valse", left_out=LEFT_OUT["valse"])
    size = config.sizes.valse
    for name, (kind, names, folder) in VALSE.items():
        split = f"valse/{name}"
        shown = spread(config.scenes, split, size, names, swappable=kind == "swap_obj")
        rows = {}
        caption = _existence if name == "existence" else _main
        for item in _items(config, split, shown, kind, caption):
            key = f"{name}_{item.index + 1}"
            export.show(f"valse/data/{folder}/{key}.jpg", item.scene)
            rows[key] = _valse_row(name, f"{key}.jpg", item)
        export.json(f"valse/data/{name}.json", rows, count=name)

    def original(index: int, scene: Scene, rng: np.random.Generator) -> Statement:
        return read(coco_test[index].captions[0], scene.content)

    shown = [item.scene for item in coco_test[:size]]
    items = _items(config, "valse/foil-it", shown, "replace_obj", original)
    rows = {
        f"foil-it_{item.index + 1}": _valse_row("foil-it", coco_test[item.index].filename, item)
        for item in items
    }
    export.json("valse/data/foil-it.json", rows, count="foil-it")
    return export


def _existence(index: int, scene: Scene, rng: np.random.Generator) -> Statement:
    """By turns "there is a cat" and "there is no cat"."""
    there = [thing.noun for thing in scene.content.things]
    noun = pick(rng, absent_nouns(scene) if index % 2 else there)
    return Statement((Mention(noun, (), "no" if index % 2 else None),), ("there is", ""))


def _valse_row(name: str, file: str, item: Item) -> dict[str, Any]:
    true, false = item.true, item.false
    if name in ("existence", "foil-it"):
        pairs = zip(true.mentions, false.mentions, strict=True)
        classes = next((a.noun, b.noun) for a, b in pairs if a != b)
    else:
        classes = true.relation[1], false.relation[1]
    votes = {"foil": 0, "caption": 3, "other": 0}
    cells = "small world", "test", item.index, name, file, true.text, false.text, *classes, votes
    return _row("valse", *cells)
