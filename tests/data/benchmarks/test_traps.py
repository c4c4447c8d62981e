"""What is peculiar to each benchmark, on hand-made rows: one test for each trap."""

import pandas as pd
import pytest
import samples as s

from cae_bench.benchmarks import BENCHMARK_FAMILIES, aro, load_benchmark, valse, winoground
from cae_lib.errors import DataError


def test_aro_symmetric_relations_leave_the_average_but_stay_in_the_items(put):
    assert (len(aro.SYMMETRIC_RELATIONS), len(aro.AUTHORS_SYMMETRIC_RELATIONS)) == (157, 160)
    assert {"next to", "touching", "with"} <= aro.SYMMETRIC_RELATIONS
    assert not {"on", "to the left of", "riding"} & aro.AUTHORS_SYMMETRIC_RELATIONS
    rows = [s.ARO | {"relation_name": name} for name in ("on", "pulling", "next to", "next to")]
    files = {"aro/images/1.jpg": None, "aro/visual_genome_relation.json": rows}
    [relation] = load_benchmark("aro", put(files))
    groups = [item.group for item in relation.items]
    assert [*relation.average.counted_group_sizes(groups)] == ["on", "pulling"]
    assert (relation.average_kind, relation.n_used) == ("macro", 4)
    assert relation.property_counts["symmetric_items"] == 2


def test_aro_pairs_of_attributes_need_25_items(put):
    other = s.ATTRIBUTES | {"attributes": ["big", "red"]}
    file = "aro/visual_genome_attribution.json"
    root = put({"aro/images/1.jpg": None, file: [s.ATTRIBUTES] * 25 + [other] * 24})
    [attribution] = load_benchmark("aro", root)
    groups = [item.group for item in attribution.items]
    assert [*attribution.average.counted_group_sizes(groups)] == ["red_big"]
    assert (attribution.n_used, attribution.property_counts["items_of_small_groups"]) == (49, 24)
    [attribution] = load_benchmark("aro", put({file: [other]}))
    assert attribution.average_kind == "micro", "no pair is large enough"


def test_sugarcrepe_keys_have_gaps_and_items_of_the_same_words_are_counted(put):
    rows = {"0": s.SUGAR, "2": s.SUGAR | {"negative_caption": "A dog."}}
    files = {
        f"sugar-crepe/data/{name}.json": rows
        for name in BENCHMARK_FAMILIES["sugarcrepe"].published_counts
    }
    parts = load_benchmark("sugarcrepe", put(files | {"coco/val2017/1.jpg": None}))
    assert [part.subset for part in parts] == list(
        BENCHMARK_FAMILIES["sugarcrepe"].published_counts
    )
    assert [item.key for item in parts[0].items] == ["0", "2"]
    assert parts[0].property_counts == {"same_words": 1, "identical": 0}


def test_sugarcrepe_pp_asks_by_image_and_by_text_and_some_items_cannot_be_won(put):
    rows = [s.TRIPLE, s.TRIPLE | {"negative_caption": s.TRIPLE["caption2"]}]
    rows.append(s.TRIPLE | {"caption2": s.TRIPLE["caption"]})  # two equal captions, both true
    root = put({"coco/val2017/1.jpg": None, "sugarcrepe-pp/data/swap_obj.json": rows})
    itt, tot = load_benchmark("sugarcrepe_pp", root)
    assert (itt.subset, itt.task, tot.subset, tot.task) == (
        *("itt/swap_obj", "itt"),
        *("tot/swap_obj", "tot"),
    )
    assert itt.items == tot.items and itt.property_counts == {"identical": 1, "unwinnable": 1}


@pytest.mark.parametrize("name", ["actant-swap", "foil-it"])
def test_valse_counts_valid_items_only_and_images_lie_in_several_folders(put, name):
    """`classes` is a number or a list; items whose captions are equal are not valid."""
    shared = s.VALSE | {"mturk": {"caption": 2}, "image_file": "b.jpg", "classes": ["x"]}
    invalid = s.VALSE | {"mturk": {"caption": 1}, "foil": s.VALSE["caption"]}
    image = f"{valse.IMAGE_FOLDERS[name]}/run_1.jpg"
    rows = {"test_0": s.VALSE, "test_1": shared, "test_2": invalid}
    files = {f"valse/data/{name}.json": rows, "valse/data/notes.json": {"unrelated": 1}}
    root = put(files | {image: None, "coco/train2014/b.jpg": None})
    [part] = load_benchmark("valse", root)
    assert (part.n_used, part.n_expected) == (2, 2)
    assert part.property_counts == {"not_valid": 1, "identical": 0}
    paths = [item.images[0].path for item in part.items]
    assert paths == [root / image, root / "coco/train2014/b.jpg"]


def test_vl_checklist_counts_the_first_of_three_pairs_and_each_file_finds_its_images(put):
    """Some phrases begin with a space, as a subject was left out; SWiG's places are empty."""
    images = {"hake": "hico/1.jpg", "swig": "run_1.jpg", "vg": "VG_100K/1.jpg"}
    phrases = {"POS": ["ON", "a man", "men"], "NEG": [" customers", "dog", "dogs"]}
    root = put({f"vl-checklist/{source}/{name}": None for source, name in images.items()})
    names = BENCHMARK_FAMILIES["vl_checklist"].published_counts
    assert len(names) == 12 + 2 + 2 * 3 * 7 and "Object/Size/hake_size/hake_obj_large" in names
    for name in names:
        source = next(source for source in images if source in name.replace("vaw", "vg"))
        put({f"vl-checklist/data/{name}.json": [[images[source], phrases]]})
    put({"vl-checklist/data/Object/Location/swig_location/swig_place/swig_place_mid.json": []})
    parts = load_benchmark("vl_checklist", root)
    assert {part.subset: part.n_used for part in parts} == dict.fromkeys(names, 1)
    assert parts[0].items[0].texts == (" customers", "ON")


def test_svo_probes_has_the_matching_image_first_and_groups_by_flag(put):
    """Some image ids went through floats, and sentences hold quotes and line breaks."""
    flags = ((True, False, False), (False, True, False), (False, True, True))
    images = ((1, 2), (2, 3), ("1.0", "2.0"))
    rows = [[*s.SVO[:5], *i, *f] for i, f in zip(images, flags, strict=True)]
    rows.append(['x, "y"\nz', *s.SVO[1:5], 1, 99, *flags[0]])
    put({f"svo-probes/images/{name}": None for name in ("1.jpg", "2.jpg", "3.jpg")})
    root = put({"svo-probes/svo_probes.csv": [s.SVO_HEADER, *rows[::-1]]})
    [part] = load_benchmark("svo_probes", root)
    names = [[ref.path.name for ref in item.images] for item in part.items]
    assert names == [["1.jpg", "2.jpg"], ["2.jpg", "3.jpg"], ["1.jpg", "2.jpg"]]
    assert [item.group for item in part.items] == ["mixed", "verb", "subj"]
    assert part.n_expected == 4 and part.property_counts == {"mixed": 1, "missing_images": 1}


def test_crepe_files_are_read_by_complexity_and_images_lie_in_two_folders(put):
    files = s.crepe() | s.crepe("atom", 12, [8, *s.CREPE[1:]], s.CREPE)
    root = put(files | {"crepe/VG_100K/7.jpg": (20, 10), "crepe/VG_100K_2/8.jpg": (20, 10)})
    [part] = load_benchmark("crepe", root)
    assert [(i.group, i.key) for i in part.items] == [("4", "4/2"), ("12", "12/2"), ("12", "12/3")]
    assert part.items[0].texts == ("a cat on a mat", *s.NEGATIVES) and part.average_kind == "macro"
    assert part.items[1].images[0].path.parent.name == "VG_100K_2"


def test_crepe_complexities_that_are_missing_are_named(put, capsys):
    [atom, *_] = load_benchmark("crepe", put(s.crepe("atom", 12)), is_published=True)
    assert atom.n_expected == 16_727
    printed = capsys.readouterr().out
    assert "complexity_4.csv" in printed and "atom_complexity_11.csv" in printed
    assert "atom_complexity_12.csv" not in printed
    with pytest.raises(DataError, match=r"complexity_4 \(1\)\.csv: the name"):
        load_benchmark("crepe", put(s.crepe("atom", "4 (1)")))  # a copy of a file


def test_crepe_negatives_may_be_a_set_and_hold_the_true_caption(put):
    for cell, negatives, counts in (
        ("{'b', 'a cat on a mat', 'c', 'd'}", ("b", "a cat on a mat", "c", "d"), {"identical": 1}),
        ("{'b', 'c', 'b', 'd'}", ("b", "c", "d"), {"identical": 0}),
    ):
        rows = s.crepe("swap", 5, [*s.CREPE[:3], cell, *s.CREPE[4:]])
        [part] = load_benchmark("crepe", put(rows | {"crepe/VG_100K/7.jpg": (20, 10)}))
        assert part.items[0].texts[1:] == negatives
        assert part.property_counts == counts | {"fewer_negatives": 1}


def test_crepe_systematicity_rows_without_valid_negatives_ask_nothing(put):
    rows, empty = [s.SYST_HEADER, s.SYST], [*s.SYST[:6], "[]", *s.SYST[7:]]
    seen, unseen = (s.SYST_FILE.format(split, "laion") for split in ("seen", "unseen"))
    root = put({"crepe/VG_100K_2/7.jpg": None, seen: [*rows, empty], unseen: rows})
    parts = {part.subset: part for part in load_benchmark("crepe_systematicity", root)}
    names = [f"laion/{split}/{kind}" for split in ("seen", "unseen") for kind in ("atom", "comp")]
    assert list(parts) == names
    assert parts["laion/unseen/comp"].items[0].texts == ("a cup", "a", "b", "c")
    atom = parts[names[0]]
    assert (atom.n_used, atom.n_expected, atom.property_counts["no_negatives"]) == (1, 1, 1)


def test_whatsup_paths_carry_an_official_folder_and_ids_are_padded_in_coco_only(put):
    groups = {"controlled_images": "on", "controlled_clevr": "in-front"}
    names = [f"{name}/mug_{place}_plate.jpeg" for name, place in groups.items()]
    texts = ["A mug on a plate", "b", "c", "d"]
    for name, image in zip(groups, names, strict=True):
        row = {"image_path": f"data/{image}", "caption_options": texts}
        put({f"whatsup/{image}": None, f"whatsup/{name}_dataset.json": [row]})
    groups |= {"coco_qa_one_obj": "left", "vg_qa_two_obj": "front"}
    left = [42, "A photo of a cup on the left", "A photo of a cup on the right"]
    root = put(
        {
            "whatsup/coco_qa_one_obj.json": [left],
            "whatsup/vg_qa_two_obj.json": [s.QUESTION],
            "whatsup/val2017/000000000042.jpg": None,
            "whatsup/vg_images/7.jpg": None,
        }
    )
    items = {part.subset: part.items[0] for part in load_benchmark("whatsup", root)}
    assert {name: item.group for name, item in items.items()} == groups
    paths = [
        item.images[0].path.relative_to(root / "whatsup").as_posix() for item in items.values()
    ]
    assert paths == [*names, "val2017/000000000042.jpg", "vg_images/7.jpg"]
    assert items["controlled_images"].texts == tuple(texts)


@pytest.fixture
def winoground_parts(put):
    put({f"winoground/images/ex_0_img_{side}.png": None for side in (0, 1)})

    def read(*changes, **options):
        rows = s.lines("winoground/examples.jsonl", *(s.WINOGROUND | change for change in changes))
        return load_benchmark("winoground", put(rows), **options)

    return read


def test_winoground_id_stands_once(winoground_parts):
    parts = winoground_parts({}, {"id": 1, "collapsed_tag": "Both"})
    assert [part.task for part in parts[:3]] == ["text", "image", "group"]
    assert [(item.key, item.group) for item in parts[0].items] == [("0", "Relation"), ("1", "Both")]
    names = [ref.path.name for ref in parts[0].items[0].images]
    assert names == ["ex_0_img_0.png", "ex_0_img_1.png"]
    with pytest.raises(DataError, match=r"examples\.jsonl: .*'0'"):
        winoground_parts({}, {"id": 1}, {})
    with pytest.raises(DataError, match=r"examples\.jsonl, line 2: field 'id' is 7\.5"):
        winoground_parts({}, {"id": 7.5})


def test_winoground_untagged_items_are_scores_of_their_own(winoground_parts):
    untagged = winoground.untagged_ids()
    assert len(untagged) == 172 and 313 in untagged and untagged < {*range(400)}
    assert not {3, 72, 399} & untagged, "tagged by Diwan et al."
    parts = {part.subset: part for part in winoground_parts({}, {"id": 3}, {"id": 313})}
    used = {name: [item.key for item in part.items] for name, part in parts.items()}
    assert used["text"] == ["0", "3", "313"]
    assert (used["text/untagged"], used["text/authors"]) == (["0", "313"], ["0"])
    assert parts["image/untagged"].task == "image"
    parts = {part.subset: part for part in winoground_parts({}, is_published=True)}
    assert (parts["text/authors"].n_used, parts["text/authors"].n_expected) == (1, 171)


def test_cola_images_are_found_by_the_end_of_their_address(put):
    put({f"cola/images/{number}.jpg": None for number in (1, 2)})
    rows = [s.COLA, [*s.COLA[:3], s.COLA[1]]]
    root = put({"cola/data/COLA_multiobjects_matching_benchmark.json": rows})
    [part] = load_benchmark("cola", root)
    assert (part.task, part.property_counts["identical"]) == ("image", 1)
    assert [ref.path.name for ref in part.items[0].images] == ["1.jpg", "2.jpg"]
    assert part.items[0].texts == ("a red cup on a blue plate", "a blue cup")


def test_bivlc_unpacks_the_images_of_all_files_once(put):
    root = put({f"made/{n}.png": (n, n) for n in (8, 9)})
    images = [{"bytes": (root / f"made/{n}.png").read_bytes(), "path": None} for n in (8, 9)]
    row = {"image": images[0], "caption": "a cat", "negative_image": images[1]}
    row |= {"negative_caption": "a dog", "type": "replace", "subtype": "obj"}
    (root / "bivlc/data").mkdir(parents=True)

    def write(number, *rows):
        pd.DataFrame(rows).to_parquet(root / f"bivlc/data/test-0000{number}.parquet")

    write(0, row, row | {"caption": "a cow"})
    write(1, row | {"type": "add", "subtype": "att"})
    text, image, group = load_benchmark("bivlc", root)
    assert (text.task, image.task, group.task) == ("text", "image", "group")
    assert text.items == image.items == group.items
    assert [item.group for item in text.items] == ["replace_obj", "replace_obj", "add_att"]
    assert text.items[0].texts == ("a cat", "a dog")
    contents = [ref.path.read_bytes() for ref in text.items[0].images]
    assert contents == [image["bytes"] for image in images]
    assert len(list((root / "bivlc/images").iterdir())) == 2
    write(1, row | {"negative_image": None})
    with pytest.raises(DataError, match=r"00001\.parquet, row 0"):
        load_benchmark("bivlc", root)


def test_half_truths_are_scored_twice_from_tables_or_lines(put):
    root = put({"half-truths/images/1.jpg": None})
    image = (root / "half-truths/images/1.jpg").read_bytes()
    put(s.lines("half-truths/data/coco_qwen.json", s.HALF))
    row = s.HALF | {"image": {"bytes": image, "path": None}}
    pd.DataFrame([row] * 2).to_parquet(root / "half-truths/data/cc3m_qwen.parquet")
    parts = {part.subset: part for part in load_benchmark("half_truths", root)}
    for name in ("coco_qwen", "cc3m_qwen"):
        half, ordered = parts[name], parts[f"{name}/ordered"]
        assert (half.task, half.items[0].texts) == ("choice", ("a cat", "a cat and a dog"))
        assert ordered.task == "ordered"
        assert ordered.items[0].texts == ("a cat and a mat", "a cat", "a cat and a dog")
        assert half.items[0].images[0].path.read_bytes() == image
    first, second = parts["cc3m_qwen"].items
    assert first.images == second.images, "written once"


TEXT = ([1, "Text", "the word stop"], [2, "Text", "the word go, in red"])


@pytest.fixture
def mmvp(put):
    images = (("Text", 1), ("Text", 2), ("State", 31), ("State", 32))
    put({f"mmvp-vlm/MLLM_VLM Images/{kind}/{n}.jpg": None for kind, n in images})

    def read(*rows):
        header = ["Question ID", "Type", "Statement"]
        return load_benchmark("mmvp_vlm", put({"mmvp-vlm/Questions.csv": [header, *rows]}))

    return read


def test_mmvp_rows_are_pairs(mmvp):
    image, text, group = mmvp(*TEXT, [31, "State", "a full cup"], [32, "State", "an empty cup"])
    assert (image.task, text.task, group.task) == ("image", "text", "group")
    assert [item.key for item in image.items] == ["1", "31"] and image.items == group.items
    assert image.items[0].texts == ("a photo of the word stop", "a photo of the word go, in red")
    assert image.average_kind == "macro"
    assert [item.group for item in image.items] == ["Text", "State"]
    names = [ref.path.parent.name + ref.path.name for ref in image.items[1].images]
    assert names == ["State31.jpg", "State32.jpg"]


@pytest.mark.parametrize(
    "rows",
    [
        *((TEXT[1], TEXT[0]), (TEXT[0], [4, *TEXT[1][1:]]), ([2, "Text", "x"], [3, "Text", "y"])),
        *((TEXT[0], [2, "State", "y"]), (*TEXT, TEXT[0])),
    ],
)
def test_mmvp_rows_that_are_no_pair_are_named(mmvp, rows):
    with pytest.raises(DataError, match=r"Questions\.csv, row ending at line"):
        mmvp(*rows)
