from __future__ import annotations

import json

import numpy as np
import pytest

from cae_lib.data.benchmarks import BENCHMARKS, load_benchmark, whatsup
from cae_lib.errors import ConfigError, DataError
from cae_lib.evaluation.choice import answers
from cae_lib.evaluation.items import items

CONTROLLED = {
    "controlled_images": ("left_of", "right_of", "on", "under"),
    "controlled_clevr": ("left_of", "right_of", "in-front_of", "behind"),
}


def scene(subset, preposition, first="mug", second="plate"):
    name = f"{first}_{preposition}_{second}.jpeg"
    true = f"A {first} {preposition.replace('_', ' ')} a {second}"
    false = [f"A {first} {other} a {second}" for other in ("a", "b", "c")]
    return {"image_path": f"data/{subset}/{name}", "caption_options": [true, *false]}


@pytest.fixture
def root(tmp_path, write_json, draw):
    folder = tmp_path / "whatsup"
    for subset, prepositions in CONTROLLED.items():
        rows = [scene(subset, p) for p in prepositions]
        rows.append(scene(subset, prepositions[1], "bowl", "tray"))
        rows.append(scene(subset, prepositions[0], "bowl", "tray"))
        write_json(folder / f"{subset}_dataset.json", rows)
        for row in rows:
            draw(folder, row["image_path"].removeprefix("data/"))
    draw(folder, "val2017/000000000042.jpg", "vg_images/7.jpg")
    questions = {
        "coco_qa_one_obj": [42, "A photo of a cup on the left", "A photo of a cup on the right"],
        "coco_qa_two_obj": [42, "A cup above a dog", "A cup below a dog"],
        "vg_qa_one_obj": [7, "A photo of a cat at the top", "A photo of a cat at the bottom"],
        "vg_qa_two_obj": [7, "A cup in front of a dog", "A cup behind a dog"],
    }
    for name, row in questions.items():
        write_json(folder / f"{name}.json", [row])
    return folder


def test_six_subsets_with_the_true_caption_first(root):
    benchmarks = {b.subset: b for b in load_benchmark("whatsup", root.parent)}
    assert list(benchmarks) == list(whatsup.OFFICIAL)
    item = benchmarks["controlled_images"].items[2]
    assert item.texts[0] == "A mug on a plate" and len(item.texts) == 4 and item.truth == 0
    groups = {name: b.items[0].group for name, b in benchmarks.items()}
    assert groups["coco_qa_one_obj"] == "left" and groups["coco_qa_two_obj"] == "above"
    assert groups["vg_qa_one_obj"] == "top" and groups["vg_qa_two_obj"] == "front"
    assert "whatsup" not in BENCHMARKS


def test_paths_carry_the_official_folder_and_ids_are_padded_in_coco_only(root):
    benchmarks = {b.subset: b for b in whatsup.load(root)}
    path = benchmarks["controlled_clevr"].items[2].images[0].path
    assert path == root / "controlled_clevr/mug_in-front_of_plate.jpeg"
    assert benchmarks["coco_qa_two_obj"].items[0].images[0].path.name == "000000000042.jpg"
    assert benchmarks["vg_qa_one_obj"].items[0].images[0].path == root / "vg_images/7.jpg"


@pytest.mark.parametrize("subset", list(CONTROLLED))
def test_pairs_and_sets_are_keyed_by_file_names(root, subset):
    [benchmark] = whatsup.load(root, subsets=[subset])
    assert benchmark.sets["pair_accuracy"] == ((0, 1), (2, 3), (5, 4))
    assert benchmark.sets["set_accuracy"] == ((0, 1, 2, 3),)
    assert (benchmark.counts["incomplete_pairs"], benchmark.counts["incomplete_sets"]) == (1, 1)


def test_pair_and_set_accuracy_by_hand(root, hand_scores):
    [benchmark] = whatsup.load(root, subsets=["controlled_images"])
    right = [True, True, True, False, True, True]
    found = answers([benchmark], hand_scores(benchmark, right))
    joint = items([benchmark], None, world=False)
    assert found["correct"].mean() == pytest.approx(5 / 6)

    def share(name: str, correct) -> float:
        number = joint[f"joint_{name}"]
        return correct[number >= 0].groupby(number).all().mean()

    assert share("pair_accuracy", found["correct"]) == pytest.approx(2 / 3)
    assert share("set_accuracy", found["correct"]) == 0
    found = answers([benchmark], hand_scores(benchmark, [True] * 6))
    assert share("set_accuracy", found["correct"]) == 1


@pytest.fixture
def hand_scores():
    """An encoder under which the items marked right, and no others, are right."""

    def make(benchmark, right):
        names = [item.images[0].path.name for item in benchmark.items]

        class Marks:
            def images(self, refs):
                marks = [right[names.index(ref.path.name)] for ref in refs]
                return np.array([[1.0 if mark else -1.0] for mark in marks], dtype=np.float32)

            def texts(self, texts):
                true = {item.texts[0] for item in benchmark.items}
                return np.array([[1.0 if text in true else 0.0] for text in texts], np.float32)

        return Marks()

    return make


def test_official_counts_missing_pictures_and_unknown_subsets(root):
    assert sum(whatsup.OFFICIAL.values()) == 4958
    with pytest.raises(DataError, match="6 items, 412 expected"):
        whatsup.load(root, official=True)
    with pytest.raises(ConfigError, match="coco_qa_three_obj"):
        whatsup.load(root, subsets=["coco_qa_three_obj"])
    (root / "val2017/000000000042.jpg").unlink()
    with pytest.raises(DataError, match=r"coco_qa_one_obj\.json, row 0: its picture"):
        whatsup.load(root)
    [part] = whatsup.load(root, subsets=["coco_qa_one_obj"], allow_missing=True)
    assert (part.n_used, part.n_expected) == (0, 1)


@pytest.mark.parametrize(
    "row",
    [
        {"image_path": "data/x/mug_beside_plate.jpeg", "caption_options": ["a"] * 4},
        {"image_path": "data/x/mug_on_plate.jpeg", "caption_options": "text"},
        ["list"],
    ],
)
def test_malformed_row_is_named(root, write_json, row):
    path = root / "controlled_images_dataset.json"
    rows = json.loads(path.read_text("utf-8"))
    write_json(path, [rows[0], row])
    with pytest.raises(DataError, match=r"controlled_images_dataset\.json, row 1"):
        whatsup.load(root, subsets=["controlled_images"])


@pytest.mark.parametrize("row", [[1, "a"], ["x", "a b", "c d"], [1, "a b", 3]])
def test_malformed_question_is_named(root, write_json, row):
    write_json(root / "vg_qa_two_obj.json", [row])
    with pytest.raises(DataError, match=r"vg_qa_two_obj\.json, row 0"):
        whatsup.load(root, subsets=["vg_qa_two_obj"])
