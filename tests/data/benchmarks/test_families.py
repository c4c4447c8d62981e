"""Readers of all families on hand-made rows of the official layouts."""

import pytest
import samples as s

from cae_bench.benchmarks import BENCHMARK_FAMILIES, load_benchmark
from cae_lib.errors import DataError

CLEVR = {"image_path": "data/controlled_clevr/mug_left_of_box.jpeg", "caption_options": ["a"] * 4}
NEG = r"/somebody/coco/images\val2017\000000000139.jpg|1|A cat, but no dog.|A dog."
NEG = [*NEG.split("|"), "No cat.", "A dog, but no cat.", "hybrid"]
NEG_HEADER = "image_path correct_answer caption_0 caption_1 caption_2 caption_3".split()
NEG_HEADER.append("correct_answer_template")
# Subset, annotation file, a right row, its texts, truth and group, malformed rows, and an image
# that is looked for.
# fmt: off
ROWS_BY_HAND = [
    ("aro/relation", "aro/visual_genome_relation.json", s.ARO,
     (("the mat is on the cat", "the cat is on the mat"), 1, "on"),
     [s.ARO | change for change in ({"true_caption": None}, {"bbox_w": "wide"}, {"bbox_h": 0})]
     + [["a", "b"], "text"], "aro/images/1.jpg"),
    ("aro/attribution", "aro/visual_genome_attribution.json", s.ATTRIBUTES,
     (("the mat is on the cat", "the cat is on the mat"), 1, "red_big"),
     [s.ARO | {"attributes": ["red"]}], "aro/images/1.jpg"),
    ("order/coco", "coco/coco_karpathy_test.json", s.ORDER, None,
     [s.ORDER | {"caption": "one"}, {}], "coco/val2014/1.jpg"),
    ("sugarcrepe/swap_obj", "sugar-crepe/data/swap_obj.json", s.SUGAR,
     (("A cat on a\nmat.", "A mat on a cat."), 0, "swap_obj"),
     [s.SUGAR | {"caption": " "}], "coco/val2017/1.jpg"),
    ("sugarcrepe_pp/itt/swap_obj", "sugarcrepe-pp/data/swap_obj.json", s.TRIPLE,
     (("a cat on a mat", "on a mat is a cat", "a mat on a cat"), 0, "swap_obj"),
     [s.TRIPLE | {"caption2": None}], "coco/val2017/1.jpg"),
    ("half_truths/coco_qwen/ordered", "half-truths/data/coco_qwen.json", s.HALF,
     (("a cat and a mat", "a cat", "a cat and a dog"), 0, "entity"),
     [s.HALF | {"image": {"path": None}}, s.HALF | {"anchor": " "}], "half-truths/images/1.jpg"),
    ("vl_checklist/Attribute/vg/size", "vl-checklist/data/Attribute/vg/size.json", s.CHECKLIST,
     (("teal knob", "brown knob"), 1, "Attribute/vg/size"),
     [["a.jpg"], ["a.jpg", {"POS": [], "NEG": ["x"]}], {"POS": ["x"]}],
     "vl-checklist/vg/VG_100K/1.jpg"),
    ("valse/actant-swap", "valse/data/actant-swap.json", s.VALSE,
     (("A dog chases a man.", "A man chases a dog."), 1, "actant-swap"),
     [s.VALSE | {"mturk": votes} for votes in (None, {"caption": 4}, {"caption": -1})]
     + [s.VALSE | {"foil": 5}, "text"], "valse/data/actions/images_512/run_1.jpg"),
    ("svo_probes/all", "svo-probes/svo_probes.csv", s.SVO, (("A girl sits.",), 0, "subj"),
     [[*s.SVO[:7], "yes", False, False], [*s.SVO[:5], 7.5, *s.SVO[6:]]],
     "svo-probes/images/2.jpg"),
    ("crepe/atom", s.CREPE_FILE.format("atom", 4), s.CREPE,
     (("a cat on a mat", *s.NEGATIVES), 0, "4"),
     [[*s.CREPE[:3], cell, *s.CREPE[4:]]
      for cell in ("[1, 2", "['a']", "__import__('os')", "['a', 'b', 3, 4, 5]", str({*"abcdef"}))]
     + [[7.5, *s.CREPE[1:]]], "crepe/VG_100K/7.jpg"),
    ("crepe_systematicity/laion/seen/atom", s.SYST_FILE.format("seen", "laion"), s.SYST,
     (("a cup", "a dog", "a cat"), 0, "laion/seen/atom"),
     [[*s.SYST[:6], "os.remove('x')", *s.SYST[7:]]], "crepe/VG_100K/7.jpg"),
    ("winoground/text", "winoground/examples.jsonl", s.WINOGROUND,
     ((s.WINOGROUND["caption_0"], s.WINOGROUND["caption_1"]), 0, "Relation"),
     [s.WINOGROUND | {"caption_1": 3}], "winoground/images/ex_0_img_1.png"),
    ("cola/multi", "cola/data/COLA_multiobjects_matching_benchmark.json", s.COLA,
     ((s.COLA[1], s.COLA[3]), 0, "multi"), [s.COLA[:3], [*s.COLA, "x"]], "cola/images/2.jpg"),
    ("negbench/coco", "negbench/images/COCO_val_mcq_llama3.1_rephrased.csv", NEG,
     (tuple(NEG[2:6]), 1, "hybrid"),
     [[*NEG[:1], answer, *NEG[2:]] for answer in ("4", "-1", "0.5", "")]
     + [[*NEG[:2], " ", *NEG[3:]], NEG[:6], [*NEG[:6], "hybr"]],
     "coco/val2017/000000000139.jpg"),
    ("whatsup/controlled_clevr", "whatsup/controlled_clevr_dataset.json", CLEVR,
     (("a",) * 4, 0, "left"),
     [CLEVR | {"image_path": "data/x/mug_on_plate.jpeg"}, CLEVR | {"caption_options": "a"}, []]
     + [CLEVR | {"caption_options": ["a"] * n} for n in (3, 7)],
     "whatsup/controlled_clevr/mug_left_of_box.jpeg"),
    ("whatsup/vg_qa_two_obj", "whatsup/vg_qa_two_obj.json", s.QUESTION,
     (tuple(s.QUESTION[1:]), 0, "front"),
     [[1, "a"], ["x", "a b", "c d"], [7.5, "a b", "c d"], [1, "a b", 3]],
     "whatsup/vg_images/7.jpg"),
]
# fmt: on
# How the file of a family holds its rows; a list in a JSON file where nothing is said.
HEADERS = {  # of CSV files
    "svo_probes": s.SVO_HEADER,
    "crepe": s.CREPE_HEADER,
    "crepe_systematicity": s.SYST_HEADER,
    "negbench": NEG_HEADER,
}
JSON_LINES = ("winoground", "half_truths")
JSON_OBJECTS = ("sugarcrepe", "valse")
IMAGES = {
    path: (20, 10)
    for path in (
        "svo-probes/images/1.jpg",
        "winoground/images/ex_0_img_0.png",
        "cola/images/1.jpg",
        *(rows[-1] for rows in ROWS_BY_HAND),
    )
}


@pytest.fixture(params=ROWS_BY_HAND, ids=[rows[0] for rows in ROWS_BY_HAND])
def family(request, put):
    """A writer of the rows of one subset, a reader of it, and the rest of its entry."""
    key, file, right, item, wrong, image = request.param
    name, subset = key.split("/", 1)

    def write(*rows):
        if name in HEADERS:
            rows = [HEADERS[name], *rows]
        elif name in JSON_LINES:
            return put(s.lines(file, *(row | {"id": n} for n, row in enumerate(rows))))
        elif name in JSON_OBJECTS:
            rows = {f"key {number}": row for number, row in enumerate(rows)}
        return put({file: rows})

    root = put(IMAGES)

    def read(**options):
        parts = load_benchmark(name, root, **options)
        return next(part for part in parts if part.subset == subset)

    return write, read, right, item, wrong, root / image, root / file


def test_rows_by_hand_are_of_each_family():
    """`test_traps.py` reads the two families whose files are no rows of text."""
    by_hand = {key.split("/")[0] for key, *_ in ROWS_BY_HAND}
    assert by_hand == set(BENCHMARK_FAMILIES) - {"bivlc", "mmvp_vlm"}


def test_rows_become_items_and_are_counted(family, put):
    """A manifest, or the published number, says how many items there should be."""
    write, read, right, expected_item, _, _, file = family
    write(right)
    part = read()
    unit = 2 if part.key == "order/coco" else 1  # captions of a row
    assert part.n_used == part.n_expected == unit and "missing_images" not in part.property_counts
    item = part.items[0]
    assert expected_item in (None, (item.texts, item.truth, item.group))
    assert all(image.path.is_file() for image in item.images)
    assert item.images[0].crop in (None, (3, 1, 7, 3), (1, 2, 5, 5))  # left, top, right, bottom
    published = BENCHMARK_FAMILIES[part.name].published_counts.get(part.subset)
    write(*[right] * min(3, published or 3))  # not more rows than are published
    assert read(is_published=True).n_expected == (published or 3 * unit)
    write(right, right, right)
    put({"manifest.json": {"counts": {part.name: {part.subset: 5 * unit}}}})
    assert (read().n_used, read().n_expected) == (3 * unit, 5 * unit)
    put({"manifest.json": {"counts": {part.name: {part.subset: 2 * unit}}}})
    with pytest.raises(DataError, match=f"{3 * unit} items of {part.key}"):
        read()
    file.unlink()
    with pytest.raises(DataError, match=part.name):
        load_benchmark(part.name, put({}))


def test_missing_image_of_an_item_is_counted_and_named(family, capsys):
    write, read, right, _, _, image, _ = family
    write(right, right)
    image.unlink()
    part = read()
    assert part.n_used == 0 and part.property_counts["missing_images"] == part.n_expected
    printed = capsys.readouterr().out
    assert f"{part.name}/" in printed and image.stem in printed


def test_malformed_benchmark_row_is_named(family):
    write, read, right, _, wrong, _, file = family
    for row in wrong:
        write(right, row)
        with pytest.raises(DataError, match=r"(row 1|row key 1|row 2|line [23])\b") as caught:
            read()
        assert str(file) in str(caught.value)


def test_number_of_missing_items_is_not_0_where_it_is_unknown(put, capsys):
    load_benchmark("crepe_systematicity", put({}), is_published=True)
    printed = capsys.readouterr().out
    assert "unknown number of items" in printed and "0 items" not in printed
    images = {f"svo-probes/images/{n}.jpg": None for n in (1, 2)}
    put({"svo-probes/svo_probes.csv": [s.SVO_HEADER, s.SVO, s.SVO]} | images)
    load_benchmark("svo_probes", put({}), is_published=True)
    assert "2 items read of all; number published unknown" in capsys.readouterr().out
    put({"sugar-crepe/data/swap_obj.json": {"0": s.SUGAR}, "coco/val2017/1.jpg": None})
    load_benchmark("sugarcrepe", put({}), is_published=True)
    printed = capsys.readouterr().out
    assert "sugarcrepe/swap_obj" in printed and "1 used of 245" in printed
    assert "244 are not in its annotation files: remove these, fetch" in printed
    load_benchmark("vl_checklist", put({}), is_published=True)
    printed = capsys.readouterr().out
    assert "372,274 items and an unknown number of items of 10 of these" in printed


def test_generated_benchmark_file_may_be_empty_if_the_manifest_says_so(put):
    file = {"sugar-crepe/data/swap_obj.json": {}}
    root = put(file | {"manifest.json": {"counts": {"sugarcrepe": {"swap_obj": 0}}}})
    assert load_benchmark("sugarcrepe", root) == []
    put({"manifest.json": {"counts": {"sugarcrepe": {"swap_obj": 1}}}})
    with pytest.raises(DataError, match="swap_obj.json: .*no rows"):
        load_benchmark("sugarcrepe", root)


def test_published_numbers_add_up():
    sizes = {
        name: sum(filter(None, family.published_counts.values()))
        for name, family in BENCHMARK_FAMILIES.items()
    }
    assert (sizes["sugarcrepe"], sizes["valse"], sizes["whatsup"]) == (7511, 7702, 4958)
    assert (sizes["cola"], sizes["mmvp_vlm"], sizes["bivlc"]) == (210, 3 * 135, 3 * 2933)
    assert (sizes["aro"], sizes["order"], sizes["crepe"]) == (23_937 + 28_748, 30_010, 39_715)
    assert (sizes["sugarcrepe_pp"], sizes["vl_checklist"]) == (2 * 4757, 372_274)


def test_negbench_caption_that_equals_the_true_one_makes_an_item_identical(put):
    """NegBench's true caption stands at any place; two false ones may be the same."""
    put({"coco/val2017/000000000139.jpg": None})
    rows = [[*NEG[:2], *texts, NEG[-1]] for texts in ("xyxz", "xyzy", "xyxx")]
    root = put({"negbench/images/COCO_val_mcq_llama3.1_rephrased.csv": [NEG_HEADER, *rows]})
    [part] = load_benchmark("negbench", root)
    assert [item.truth for item in part.items] == [1] * 3 and part.property_counts == {
        "identical": 1
    }


def test_items_keep_their_numbers_whichever_are_left_out(put):
    rows = {str(n): s.SUGAR | {"filename": f"{n}.jpg"} for n in range(3)}
    images = {f"coco/val2017/{n}.jpg": None for n in (0, 2)}
    [part] = load_benchmark("sugarcrepe", put({"sugar-crepe/data/swap_obj.json": rows} | images))
    assert [(number, item.key) for number, item in part.numbered_items()] == [(0, "0"), (2, "2")]
