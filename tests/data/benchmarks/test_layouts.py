"""What all loaders share: expected numbers, missing pictures, malformed rows, missing files."""

import re

import pytest
import samples as s

from cae_lib.data.benchmarks import BENCHMARKS, FURTHER, load_benchmark
from cae_lib.errors import ConfigError, DataError

CLEVR = {"image_path": "data/controlled_clevr/mug_left_of_box.jpeg", "caption_options": ["a"] * 4}
NEG = ["/somebody/coco/images\\val2017\\000000000139.jpg", "0", "A cat, but no dog.", "A dog.",
       "No cat.", "A dog, but no cat.", "hybrid"]
# Annotation file, a right row and malformed ones, a picture that is looked for, its subset, and
# the published number of items.
LAYOUTS = {
    "aro": ("aro/visual_genome_relation.json", s.ARO,
        [s.ARO | change for change in ({"true_caption": None}, {"bbox_w": "wide"}, {"bbox_h": 0})]
        + [["a", "b"], "text"], "aro/images/1.jpg", "relation", 23_937),
    "aro ": ("aro/visual_genome_attribution.json", s.ATTRIBUTES,
        [s.ARO | {"attributes": ["red"]}], "aro/images/1.jpg", "attribution", 28_748),
    "order": ("coco/coco_karpathy_test.json", s.ORDER, [s.ORDER | {"caption": "one"}, {}],
        "coco/val2014/1.jpg", "coco", 25_010),
    "sugarcrepe": ("sugar-crepe/data/swap_obj.json", s.SUGAR, [s.SUGAR | {"caption": " "}],
        "coco/val2017/1.jpg", "swap_obj", 245),
    "vl_checklist": ("vl-checklist/data/Attribute/vg/size.json", s.CHECKLIST,
        [["a.jpg"], ["a.jpg", {"POS": [], "NEG": ["x"]}], {"POS": ["x"]}],
        "vl-checklist/vg/VG_100K/1.jpg", "Attribute/vg/size", 2695),
    "valse": ("valse/data/actant-swap.json", s.VALSE,
        [s.VALSE | {"mturk": None}, s.VALSE | {"foil": 5}, "text"],
        "valse/data/actions/images_512/run_1.jpg", "actant-swap", 949),
    "svo_probes": ("svo-probes/svo_probes.csv", s.SVO, [[*s.SVO[:7], "yes", False, False]],
        "svo-probes/images/2.jpg", "all", None),
    "crepe": (s.CREPE_FILE.format("atom", 4), s.CREPE,
        [[*s.CREPE[:3], cell, *s.CREPE[4:]]
         for cell in ("[1, 2", "['a']", "__import__('os')", "['a', 'b', 3, 4, 5]")],
        "crepe/VG_100K/7.jpg", "atom", 16_727),
    "crepe_systematicity": (s.SYST_FILE.format("seen", "laion"), s.SYST,
        [[*s.SYST[:6], "os.remove('x')", *s.SYST[7:]]],
        "crepe/VG_100K/7.jpg", "laion/seen/atom", None),
    "winoground": ("winoground/examples.jsonl", s.WINOGROUND, [s.WINOGROUND | {"caption_1": 3}],
        "winoground/images/ex_0_img_1.png", "text", 400),
    "cola": ("cola/data/COLA_multiobjects_matching_benchmark.json", s.COLA, [s.COLA[:3]],
        "cola/images/2.jpg", "multi", 210),
    "negbench": ("negbench/images/COCO_val_mcq_llama3.1_rephrased.csv", NEG,
        [[*NEG[:1], answer, *NEG[2:]] for answer in ("4", "-1", "0.5", "")]
        + [[*NEG[:2], " ", *NEG[3:]], NEG[:6]],
        "coco/val2017/000000000139.jpg", "coco", 5914),
    "whatsup": ("whatsup/controlled_clevr_dataset.json", CLEVR,
        [CLEVR | {"image_path": "data/x/mug_on_plate.jpeg"}, CLEVR | {"caption_options": "a"}, []],
        "whatsup/controlled_clevr/mug_left_of_box.jpeg", "controlled_clevr", 408),
    "whatsup ": ("whatsup/vg_qa_two_obj.json", s.QUESTION,
        [[1, "a"], ["x", "a b", "c d"], [1, "a b", 3]],
        "whatsup/vg_images/7.jpg", "vg_qa_two_obj", 291),
}
NEG_HEADER = ["image_path", "correct_answer", *(f"caption_{n}" for n in range(4)),
              "correct_answer_template"]
HEADERS = dict(svo_probes=s.SVO_HEADER, crepe=s.CREPE_HEADER, crepe_systematicity=s.SYST_HEADER,
               negbench=NEG_HEADER)
NAMED = r"(row 1|row key 1|row 2|line [23])\b.*: .*(expected|no field)"
PICTURES = {path: None for path in (
    "svo-probes/images/1.jpg", "winoground/images/ex_0_img_0.png", "cola/images/1.jpg",
    *(layout[3] for layout in LAYOUTS.values()),
)}


@pytest.fixture(params=LAYOUTS)
def family(request, put):
    """Writer of the rows of one family, and a reader of its one subset."""
    name = request.param.strip()
    file, right, wrong, picture, subset, official = LAYOUTS[request.param]
    def write(*rows):
        if file.endswith(".csv"):
            rows = [HEADERS[name], *rows]
        elif file.endswith(".jsonl"):
            return put(s.winoground(*(row | {"id": n} for n, row in enumerate(rows))))
        elif name in ("sugarcrepe", "valse"):
            rows = {f"key {number}": row for number, row in enumerate(rows)}
        return put({file: rows})
    root = put(PICTURES)
    def read(**options):
        return load_benchmark(name, root, subsets=[subset], **options)[0]
    return write, read, right, wrong, root / picture, root / file, official


def test_expected_numbers_are_the_rows_the_published_ones_or_those_of_the_manifest(family, put):
    write, read, right, _, _, file, official = family
    write(right)
    part = read()
    unit = 2 if part.key == "order/coco" else 1
    assert part.n_used == part.n_expected == unit and "missing_images" not in part.counts
    assert part.items[0].truth in (0, 1) and all(i.path.is_file() for i in part.items[0].images)
    write(right, right, right)
    if official is not None:
        with pytest.raises(DataError, match=f"{3 * unit} items, {official} expected"):
            read(official=True)
        assert read(official=True, allow_missing=True).n_expected == official
    put({"manifest.json": {"counts": {part.name: {part.subset: 5}}}})
    with pytest.raises(DataError, match=f"{3 * unit} items, 5 expected"):
        read()
    assert read(allow_missing=True).n_expected == 5
    assert read(expected={part.subset: 3 * unit}).n_used == 3 * unit
    file.unlink()
    with pytest.raises(DataError, match="no such annotation file|no file"):
        read(expected={part.subset: 1})


def test_a_missing_picture_is_named_or_counted(family):
    write, read, right, _, picture, _, _ = family
    write(right, right)
    picture.unlink()
    with pytest.raises(DataError, match=rf"its picture .*{picture.stem}.* of (2 of 2|4 of 4) rows"):
        read()
    part = read(allow_missing=True)
    assert part.n_used == 0 and part.counts["missing_images"] == part.n_expected


def test_a_malformed_row_is_named_or_counted(family):
    write, read, right, wrong, _, file, _ = family
    for row in wrong:
        write(right, row)
        with pytest.raises(DataError, match=NAMED):
            read()
        part = read(allow_missing=True)
        assert part.counts["malformed"] == 1 and part.n_used == part.n_expected - 1


def test_rows_that_are_left_out_are_told_with_file_and_reason(family, capsys):
    write, read, right, wrong, _, file, _ = family
    write(right, *[wrong[0]] * 12)
    part = read(allow_missing=True)
    first, *rows = capsys.readouterr().out.splitlines()
    assert f"12 rows of {part.name}, {file.parent}" in first  # CREPE's rows name the file
    assert f"{part.n_used} used of {part.n_expected} expected" in first and len(rows) == 10
    assert all(re.search("expected|no field", row) for row in rows) and re.search(NAMED, rows[0])


@pytest.mark.parametrize("name", [*BENCHMARKS, *FURTHER])
def test_nothing_there_and_unknown_subsets(put, name):
    root = put({})
    with pytest.raises(DataError, match="no such annotation file|no annotation file is there"):
        load_benchmark(name, root)
    with pytest.raises((ConfigError, DataError), match="has no subset .*no_such|examples.jsonl"):
        load_benchmark(name, root, subsets=["no_such"])


def test_with_data_allowed_to_be_missing_the_files_that_are_there_are_read(put):
    root = put({"sugar-crepe/data/add_att.json": {"0": s.SUGAR}, "coco/val2017/1.jpg": None})
    with pytest.raises(DataError, match=r"add_obj\.json: no such annotation file"):
        load_benchmark("sugarcrepe", root)
    [part] = load_benchmark("sugarcrepe", root, official=True, allow_missing=True)
    assert (part.subset, part.n_used, part.n_expected) == ("add_att", 1, 692)


def test_unknown_benchmark_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="sugarcrepe"):
        load_benchmark("sugar", tmp_path)
