"""Write the benchmarks of composition: images of scenes, true captions and hard negatives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice

from cae_bench.benchmarks.valse import IMAGE_FOLDERS
from data.recipes.datasets import Dataset
from data.recipes.layouts import (
    add_half_truths,
    add_sugarcrepe,
    add_sugarcrepe_pp,
    to_csv,
    to_json,
    to_json_lines,
)
from data.recipes.synthetic_scenes import edits, grammar
from data.recipes.synthetic_scenes.config import WorldConfig
from data.recipes.synthetic_scenes.corpora import coco_images
from data.recipes.synthetic_scenes.draw import Drawing
from data.recipes.synthetic_scenes.edits import absent_nouns, draw_negative, pick
from data.recipes.synthetic_scenes.grammar import Statement, stated
from data.recipes.synthetic_scenes.scenes import (
    Rng,
    Scene,
    fair_order,
    rearranged,
    sample_scenes,
    spread,
    text_generator,
)
from data.recipes.synthetic_scenes.vocabulary import ACTIONS, RELATIONS, admits

# Winoground's tags, the fields of its two things that the second scene swaps (all, if none is
# named), and in how many of twenty items.
SWAPS = (
    ("Object", "Noun", (), 9),
    ("Relation", "Adjective-Color", ("color",), 9),
    ("Both", "Noun, Adjective-Color", ("noun",), 2),
)
SUGARCREPE = tuple(kind for kind in edits.NEGATIVES if kind not in ("like_rel", "deny_obj"))
SUGARCREPE_STYLE = grammar.CaptionStyle(0.6, 1.0, 1.0, extra=0.5, position=0.2, prefix=0.1)
VL_KINDS = {"color": "color", "material": "pattern", "size": "size"}
# Kind of the negative, and relations of the scenes, of VALSE's instruments; foil-it has COCO's
# test split.
VALSE: Mapping[str, tuple[str, Sequence[str]]] = {
    "actant-swap": ("swap_obj", ("riding", "chasing", "touching")),
    "action-replacement": ("like_rel", ACTIONS),
    "relations": ("like_rel", [name for name in RELATIONS if name not in ACTIONS]),
    "existence": ("deny_obj", tuple(RELATIONS)),
    "foil-it": ("replace_obj", ()),
}


def _with_negatives(
    config: WorldConfig,
    split: str,
    scenes: Sequence[Scene],
    kind: str,
    caption: Callable[[int, Rng], Statement] | None = None,
    tries: int = 1,
) -> Iterator[tuple[int, Scene, Statement, Statement]]:
    """Yield index, scene, true caption and hard negative of scenes that have a negative of a kind.

    `split` names the random stream of the texts; without `caption`, the main relation is stated.
    """
    for index, scene in enumerate(scenes):
        rng = text_generator(config.scenes, split, index)
        # A random caption can state too little to be made false in this way.
        for _ in range(tries):
            true = caption(index, rng) if caption else stated(scene.content)
            negative = draw_negative(kind, true, scene, rng)
            if negative is not None:
                yield index, scene, true, negative
                break


def winoground(config: WorldConfig) -> Dataset:
    """Write items of two scenes and two captions that use the same words."""
    dataset, rows = Dataset("winoground"), []
    order = [kind for *kind, share in SWAPS for _ in range(share)]
    for index, sampled in enumerate(sample_scenes(config.scenes, "winoground")):
        number = len(rows)
        if number == config.sizes.winoground:
            break
        # 7 and 20 have no common factor, so kinds alternate and each keeps its share.
        collapsed, tag, fields = order[7 * number % len(order)]
        first = fair_order(sampled, index)
        if not first.content.swappable():
            continue
        second = rearranged(first, first.content.swapped(*fields))
        words = (
            [(thing.color,) if fields else () for thing in scene.content.things]
            for scene in (first, second)
        )
        true, other = map(stated, (first.content, second.content), words)
        # Each caption has to be false of the other image.
        unclear = true.may_be_true(second) or other.may_be_true(first)
        if unclear or true.text == other.text:
            continue
        names = [f"ex_{number}_img_{side}" for side in (0, 1)]
        for name, scene in zip(names, (first, second), strict=True):
            dataset.images[f"winoground/images/{name}.png"] = Drawing([scene])
        rows.append(
            {
                "id": number,
                "caption_0": true.text,
                "caption_1": other.text,
                "image_0": names[0],
                "image_1": names[1],
                "tag": tag,
                "secondary_tag": "",
                "num_main_preds": 1,
                "collapsed_tag": collapsed,
            }
        )
    text = to_json_lines(rows)
    dataset.add("winoground/examples.jsonl", text, len(rows), "text", "image", "group")
    return dataset


def svo_probes(config: WorldConfig) -> Dataset:
    """Write sentences about an action, each with a scene that fits and others that do not."""
    dataset, rows = Dataset("svo_probes"), []

    def add_image(scene: Scene) -> int:
        number = len(dataset.images) + 1
        dataset.images[f"svo-probes/images/{number}.jpg"] = Drawing([scene])
        return number

    scenes = spread(config.scenes, "svo-probes", config.sizes.svo_probes, ACTIONS)
    for index, scene in enumerate(scenes):
        rng = text_generator(config.scenes, "svo-probes", index)
        true, positive = stated(scene.content), None
        for changed, other in _svo_negatives(scene, true, rng):
            # Only a sentence with a negative needs its image.
            positive = positive or add_image(scene)
            negative = add_image(other)
            rows.append(
                {
                    "sentence": true.text,
                    "pos_triplet": _triplet(true, ","),
                    "neg_triplet": _triplet(stated(other.content), ","),
                    "pos_url": f"images/{positive}.jpg",
                    "neg_url": f"images/{negative}.jpg",
                    "pos_image_id": positive,
                    "neg_image_id": negative,
                    **{f"{part}_neg": changed == part for part in ("subj", "verb", "obj")},
                }
            )
    dataset.add("svo-probes/svo_probes.csv", to_csv(rows), len(rows), "all")
    return dataset


def _svo_negatives(scene: Scene, true: Statement, rng: Rng) -> Iterator[tuple[str, Scene]]:
    """Yield "subj", "obj" and "verb", each with a scene in which that part is false, if any."""
    for role, index in (("subj", 0), ("obj", 1)):
        replaced = pick(rng, edits.nouns_replaced(true, index, scene))
        if replaced is not None:
            noun = replaced.mentions[index].noun
            yield role, rearranged(scene, scene.content.with_thing(index, noun=noun))
    first, second = (thing.noun for thing in scene.content.things[:2])
    names = [name for name in RELATIONS if admits(first, name, second)]
    others = [rearranged(scene, replace(scene.content, relation=name)) for name in names]
    others = [other for other in others if not true.may_be_true(other)]
    # Another action, or else a position.
    other = pick(rng, [o for o in others if o.content.relation in ACTIONS] or others)
    if other is not None:
        yield "verb", other


def _triplet(statement: Statement, between: str = " ") -> str:
    """Return subject, relation and object without articles."""
    subject, obj = (mention.noun for mention in statement.mentions)
    return between.join((subject, statement.relation, obj))


def vl_checklist(config: WorldConfig) -> Dataset:
    """Write short phrases against phrases with one attribute, relation or object changed."""
    dataset, size = Dataset("vl_checklist"), config.sizes.vl_checklist
    dataset.left_out = {
        "Attribute/*/action": "no adjective of the small world is an action",
        "Attribute/*/state": "no adjective of the small world is a state",
        "Attribute/vaw/color": "the official set has no such file",
        "Relation/hake_action": "swig_action and vg/action hold the same actions",
        "Object/*/hake, Object/*/swig": "things of a scene have the roles subject and object only",
    }
    items: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for index, scene in enumerate(sample_scenes(config.scenes, "vl-checklist", size * 3 // 2)):
        rng = text_generator(config.scenes, "vl-checklist", index)
        name = f"VG_100K/{4_000_001 + index}.jpg"
        dataset.images[f"vl-checklist/vg/{name}"] = Drawing([scene])
        # There are more scenes than items, since not every scene has every kind of phrase.
        for corpus, true, negative in _vg_phrases(scene, rng):
            if len(items[corpus]) < size:
                items[corpus].append((name, true, negative))
    split = "vl-checklist/swig"
    scenes = spread(config.scenes, split, size, ACTIONS)
    for index, scene, true, negative in _with_negatives(config, split, scenes, "like_rel"):
        name = f"{scene.content.relation}_{index + 1}.jpg"
        dataset.images[f"vl-checklist/swig/{name}"] = Drawing([scene])
        items["Relation/swig_action"].append((name, _triplet(true), _triplet(negative)))
    for corpus, triples in items.items():
        rows = [[name, {"POS": [true], "NEG": [negative]}] for name, true, negative in triples]
        dataset.add(f"vl-checklist/data/{corpus}.json", to_json(rows), len(rows), corpus)
    return dataset


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
    negative = draw_negative("like_rel", true, scene, rng)
    if negative is not None:
        corpus = "action" if scene.content.relation in ACTIONS else "spatial"
        yield f"Relation/vg/{corpus}", _triplet(true), _triplet(negative)
    for role, index in (("subj", 0), ("obj", int(rng.integers(1, len(things))))):
        nouns = things[index].noun, pick(rng, absent_nouns(scene))
        place = scene.placements[index]
        # VL-CheckList has a file for each place (center, mid, margin) and size of the object.
        off = max(abs(place.x - 0.5), abs(place.y - 0.5))
        where = "center" if off < 0.15 else "mid" if off < 0.25 else "margin"
        size = "small" if place.scale < 0.32 else "medium" if place.scale < 0.45 else "large"
        yield f"Object/Location/vg_location/vg_{role}_{where}", *nouns
        yield f"Object/Size/vg_size/vg_{role}_{size}", *nouns


def _sugarcrepe_items(
    config: WorldConfig, subset: str
) -> Iterator[tuple[int, Scene, Statement, Statement]]:
    """Yield number, scene, rich caption and hard negative of the items of a subset."""
    size = config.sizes.sugarcrepe
    # All subsets sample the same scenes, and so share images.
    sampled = sample_scenes(config.scenes, "sugar-crepe", size * 3 // 2)
    scenes = list(map(fair_order, sampled, count()))

    def caption(index: int, rng: Rng) -> Statement:
        return grammar.describe(scenes[index], SUGARCREPE_STYLE, rng)

    items = _with_negatives(config, f"sugar-crepe/{subset}", scenes, subset, caption, tries=4)
    for index, *item in islice(items, size):
        yield index + 1, *item


def sugarcrepe(config: WorldConfig) -> Dataset:
    """Write rich captions against hard negatives of seven kinds."""
    dataset = Dataset("sugarcrepe")
    for subset in SUGARCREPE:
        items = []
        for number, scene, true, negative in _sugarcrepe_items(config, subset):
            name = f"{number:012d}.jpg"
            dataset.images[f"coco/val2017/{name}"] = Drawing([scene])
            items.append((name, true.text, negative.text))
        add_sugarcrepe(dataset, subset, items)
    return dataset


def sugarcrepe_pp(config: WorldConfig) -> Dataset:
    """Write SugarCrepe's items, except for additions, with a second true caption."""
    dataset = Dataset("sugarcrepe_pp")
    for subset in SUGARCREPE:
        if subset.startswith("add"):
            continue
        items = []
        for number, _, true, negative in _sugarcrepe_items(config, subset):
            rng = text_generator(config.scenes, f"sugarcrepe-pp/{subset}", number)
            second = grammar.paraphrase(true, rng)
            items.append((f"{number:012d}.jpg", true.text, second.text, negative.text))
        add_sugarcrepe_pp(dataset, subset, items)
    return dataset


def half_truths(config: WorldConfig) -> Dataset:
    """Write a thing, the thing with a second one added, and with a false part in the addition.

    The false part is the noun, an adjective or the relation, each equally often.
    """
    dataset, items = Dataset("half_truths"), []
    sampled = sample_scenes(config.scenes, "half-truths", config.sizes.half_truths)
    for index, scene in enumerate(map(fair_order, sampled, count())):
        rng = text_generator(config.scenes, "half-truths", index)
        kind = ("object", "attribute", "relation")[index % 3]
        words = ((), scene.content.things[1].attributes[-1:] if kind == "attribute" else ())
        full = stated(scene.content, words)
        if kind != "relation":
            full = replace(full.with_piece(1, "and"), relation=None)
        candidates = {
            "object": edits.nouns_replaced(full, 1, scene),
            "attribute": edits.attributes_changed(full, scene),
            "relation": edits.relations_replaced(full, scene),
        }[kind]
        half = pick(rng, edits.certainly_false(candidates, scene, full.text))
        if half is not None:
            name = f"{index + 1}.jpg"
            dataset.images[f"half-truths/images/{name}"] = Drawing([scene])
            items.append((name, kind, full.mentions[0].text, half.text, full.text))
    add_half_truths(dataset, "world", items)
    return dataset


def valse(config: WorldConfig) -> Dataset:
    """Write a caption against a hard negative for each phenomenon; foil-it has captions of COCO."""
    dataset, size = Dataset("valse"), config.sizes.valse
    dataset.left_out = {
        "coreference-hard, coreference-standard": "captions have no pronouns",
        "counting-adversarial, counting-hard, counting-small-quant, plurals": (
            "no scene has two things of one noun"
        ),
    }
    coco = coco_images(config, "test")[:size]

    def existence(index: int, rng: Rng) -> Statement:
        nouns = [thing.noun for thing in scenes[index].content.things]
        noun = pick(rng, absent_nouns(scenes[index]) if index % 2 else nouns)
        mention = grammar.Mention(noun, article="no" if index % 2 else None)
        return Statement((mention,), ("there is", ""))

    captions = {"existence": existence, "foil-it": lambda index, rng: coco[index].statements[0]}
    for name, (kind, relations) in VALSE.items():
        split, rows = f"valse/{name}", {}
        if name == "foil-it":
            scenes = [image.scene for image in coco]
        else:
            swappable = kind == "swap_obj"
            scenes = spread(config.scenes, split, size, relations, swappable=swappable)
        items = _with_negatives(config, split, scenes, kind, captions.get(name))
        for index, scene, true, negative in items:
            classes = true.relation, negative.relation
            if name in captions:
                pairs = zip(true.mentions, negative.mentions, strict=True)
                classes = next((a.noun, b.noun) for a, b in pairs if a != b)
            key = f"{name}_{index + 1}"
            image = coco[index].name if name == "foil-it" else f"{key}.jpg"
            # foil-it asks about COCO's own images.
            if name != "foil-it":
                dataset.images[f"{IMAGE_FOLDERS[name]}/{image}"] = Drawing([scene])
            rows[key] = {
                "dataset": "small world",
                "original_split": "test",
                "dataset_idx": index,
                "linguistic_phenomena": name,
                "image_file": image,
                "caption": true.text,
                "foil": negative.text,
                "classes": classes[0],
                "classes_foil": classes[1],
                "mturk": {"foil": 0, "caption": 3, "other": 0},
            }
        dataset.add(f"valse/data/{name}.json", to_json(rows), len(rows), name)
    return dataset
