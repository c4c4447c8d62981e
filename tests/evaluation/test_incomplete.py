"""Real sets that are there in part, or not at all: what is used, and what is expected."""

import json
import re
import shutil

import pytest
from PIL import Image
from toys import forget

from book.studies import ALL_SUITES
from cae_bench import datasets
from cae_bench.benchmarks import load_benchmark
from cae_bench.encoder import Encoder
from cae_lab.dataset_sizes import subset_table
from cae_lab.profiles import load_profile
from cae_lab.required_data import data_digests
from cae_lib.errors import ConfigError, DataError

HTML = "<!DOCTYPE html><title>404 Not Found</title>"


@pytest.fixture
def put(raw):
    """Write pictures (None, or a text in place of one) and JSON by their places."""

    def write(files):
        for name, content in files.items():
            path = raw / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".jpg" and content is None:
                colour = [len(name) * 5, ord(path.stem[-1]) * 3 % 256, 90]
                Image.new("RGB", (40, 40), tuple(colour)).save(path)
            else:
                path.write_text(content if isinstance(content, str) else json.dumps(content))

    return write


def sugarcrepe(*names):
    rows = [
        {"filename": name, "caption": "a cat on a mat", "negative_caption": "a mat on a cat"}
        for name in names
    ]
    return {str(number): row for number, row in enumerate(rows)}


@pytest.fixture
def sugar(put):
    """One file of seven, whose three pictures are one, a web page and an empty file."""
    put(
        {
            "sugar-crepe/data/swap_obj.json": sugarcrepe("1.jpg", "4.jpg", "2.jpg", "3.jpg"),
            "coco/val2017/1.jpg": None,
            "coco/val2017/2.jpg": HTML,
            "coco/val2017/3.jpg": "",
        }
    )


def used_and_expected(frame, suite):
    frame = frame[frame.suite == suite]
    return frame.groupby("family")[["n_used", "n_expected"]].sum().T.to_dict("list")


def test_a_broken_picture_costs_its_own_items_and_absent_files_are_expected(
    sugar, tiny_clip, capsys
):
    paper = load_profile("paper")
    parts = {
        part.subset: part for part in datasets.load_benchmarks(paper.datasets, ("sugarcrepe",))
    }
    assert sum(part.n_expected for part in parts.values()) == 7511
    part = parts.pop("swap_obj")
    assert (part.n_used, part.n_expected, len(parts)) == (1, 245, 6)
    assert not any(other.n_used for other in parts.values())
    assert part.property_counts["same_words"] == 1, "rows that are not used are not counted"
    output = capsys.readouterr().out
    assert "sugarcrepe/swap_obj" in output and "1 used of 245" in output and "add_att" in output
    left_out = re.findall(r"item (\d): its image .*/(\d).jpg (cannot|is missing)", output)
    assert left_out == [("2", "2", "cannot"), ("3", "3", "cannot"), ("1", "4", "is missing")]
    answered = ALL_SUITES["benchmarks"](Encoder(tiny_clip), paper)
    assert answered.family.tolist() == ["sugarcrepe"]
    assert used_and_expected(subset_table(paper), "benchmarks")["sugarcrepe"] == [1, 7511]


def test_a_picture_that_is_gone_makes_the_data_others(sugar, raw):
    paper = load_profile("paper")
    before = data_digests(paper, ["benchmarks"])
    assert data_digests(paper, ["benchmarks"]) == before
    (raw / "coco/val2017/1.jpg").unlink()
    assert data_digests(paper, ["benchmarks"]) != before


def test_families_that_are_asked_for_have_to_be_there_and_readable(sugar, put, raw):
    paper = load_profile("paper").datasets
    with pytest.raises(DataError, match=r"no item of valse can be used.* valse$"):
        datasets.load_benchmarks(paper, ("sugarcrepe", "valse"))
    put({"sugar-crepe/data/swap_att.json": '{"0": {"filename": "1.jpg", "capt'})
    with pytest.raises(DataError, match=r"swap_att\.json.* line 1, column 2"):
        load_benchmark("sugarcrepe", raw, is_published=True)
    put({"flickr30k/flickr30k_test.json": "[{"})
    with pytest.raises(DataError, match=r"flickr30k_test\.json"):
        datasets.retrieval_sets(paper)
    shutil.rmtree(raw)
    raw.mkdir()
    forget()
    with pytest.raises(DataError, match="cae data get coco-val2017 sugarcrepe .*valse"):
        datasets.load_benchmarks(paper, ("sugarcrepe", "valse"))


def test_a_built_world_has_to_be_whole(raw, smoke_world):
    raw.mkdir(parents=True)
    shutil.copytree(smoke_world, raw / "world-smoke")
    next((raw / "world-smoke/coco/val2017").iterdir()).unlink()
    with pytest.raises(DataError, match="items of sugarcrepe/.* build it again"):
        datasets.load_benchmarks(load_profile("smoke").datasets, ("sugarcrepe",))


def test_families_are_read_alone_and_once(raw, smoke_world):
    raw.parent.mkdir()
    raw.symlink_to(smoke_world.parent)
    smoke = load_profile("smoke").datasets
    (part,) = datasets.load_benchmarks(smoke, ("order",))[:1]
    assert part.name == "order" and part is datasets.load_benchmarks(smoke)[2]
    names = [part.name for part in datasets.load_benchmarks(smoke, ("crepe", "aro"))]
    assert [*dict.fromkeys(names)] == ["aro", "crepe"], "in the order of all benchmarks"
    for wrong in (("aro", "valse2", "x"), ("cola",)):
        with pytest.raises(ConfigError, match="no benchmark (valse2, x. Known: aro, .*valse|cola)"):
            datasets.load_benchmarks(smoke, wrong)


def test_captions_without_pictures_leave_a_set_out_and_with_some_are_counted(put, raw, tiny_clip):
    rows = [{"image": f"val2014/{n}.jpg", "caption": [f"cat {n}", f"dog {n}"]} for n in range(4)]
    rows[2]["caption"][1] = "!"  # CLIP's tokenizer takes it for a word
    flickr = [{"image": "1.jpg", "caption": ["a", "b"]}]
    put({"coco/coco_karpathy_test.json": rows, "flickr30k/flickr30k_test.json": flickr})
    encoder = Encoder(tiny_clip)
    assert datasets.retrieval_sets(load_profile("paper").datasets) == {}
    assert ALL_SUITES["retrieval"](encoder, load_profile("paper")).empty
    with pytest.raises(DataError, match="coco: captions are there"):
        ALL_SUITES["phrases"](encoder, load_profile("paper"))
    assert used_and_expected(subset_table(load_profile("paper")), "retrieval") == {
        "coco": [0, 25_010],
        "flickr30k": [0, 5000],
    }
    put({"coco/val2014/0.jpg": None, "coco/val2014/1.jpg": HTML, "coco/val2014/2.jpg": None})
    ranks = ALL_SUITES["retrieval"](encoder, load_profile("paper"))
    assert set(ranks["set"]) == {"coco"} and ranks["rank"].notna().all()
    assert ranks.direction.value_counts().to_dict() == {"text to image": 4, "image to text": 2}
    used = subset_table(load_profile("paper"))
    assert used_and_expected(used, "retrieval") == {"coco": [4, 25_010], "flickr30k": [0, 5000]}
    assert used_and_expected(used, "phrases") == {"coco": [4, 500]}
    assert used_and_expected(used, "attribution") == {"coco": [4, 500]}
    assert used_and_expected(used, "faithfulness") == {"coco": [4, 120]}
    scores = ALL_SUITES["attribution"](encoder, load_profile("paper"))
    assert scores["caption"].nunique() == 4
