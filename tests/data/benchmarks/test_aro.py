from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cae_lib.data.benchmarks import aro
from cae_lib.errors import ConfigError, DataError


def relation_row(name="on", **changes):
    return {
        "image_id": "1",
        "image_path": "1.jpg",
        "bbox_x": 3,
        "bbox_y": 1,
        "bbox_w": 4,
        "bbox_h": 2,
        "relation_name": name,
        "true_caption": f"the cat is {name} the mat",
        "false_caption": f"the mat is {name} the cat",
        **changes,
    }


def attribute_row(pair=("red", "big"), **changes):
    a, b = pair
    row = relation_row(attributes=[a, b], **changes)
    row["true_caption"], row["false_caption"] = f"the {a} cat", f"the {b} cat"
    return row


@pytest.fixture
def root(tmp_path, write_json, draw):
    draw(tmp_path / "images", "1.jpg", size=(20, 10))

    def write(relations, attributes):
        write_json(tmp_path / "visual_genome_relation.json", relations)
        write_json(tmp_path / "visual_genome_attribution.json", attributes)
        return tmp_path

    return write


def test_texts_are_false_then_true_and_the_crop_is_x_y_right_bottom(root):
    relation, _ = aro.load(root([relation_row()], [attribute_row()]))
    [item] = relation.items
    assert item.texts == ("the mat is on the cat", "the cat is on the mat")
    assert item.truth == 1
    assert item.images[0].crop == (3, 1, 7, 3)


def test_crop_cuts_the_marked_pixels(root, tmp_path):
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[1:3, 3:7] = 255
    path = root([relation_row(image_path="1.png")], [])
    Image.fromarray(pixels).save(tmp_path / "images" / "1.png")
    [item] = aro.load(path)[0].items
    with Image.open(item.images[0].path) as picture:
        assert np.asarray(picture.crop(item.images[0].crop)).min() == 255
        assert picture.crop(item.images[0].crop).size == (4, 2)


def test_symmetric_relations_leave_the_macro_average_but_stay_in_the_items(root):
    rows = [relation_row(name) for name in ("on", "pulling", "next to", "next to")]
    relation, _ = aro.load(root(rows, []))
    assert relation.n_used == relation.n_expected == 4
    assert relation.macro_groups == ("on", "pulling")
    assert relation.counts["symmetric_items"] == 2
    assert relation.headline == "macro"
    assert aro.load(root(rows, []), symmetric="authors")[0].macro_groups == ("on",)
    assert aro.load(root(rows, []), symmetric=["on"])[0].macro_groups == ("next to", "pulling")


def test_the_official_list_has_157_names_and_the_authors_160():
    official, authors = aro.symmetric_relations(), aro.symmetric_relations("authors")
    assert (len(official), len(authors)) == (157, 160)
    assert authors - official == {"pulling", "pulled by", "leaning against"}
    assert {"next to", "touching", "with"} <= official
    assert not {"on", "to the left of", "riding"} & authors
    with pytest.raises(ConfigError, match="symmetric='all'"):
        aro.symmetric_relations("all")


def test_attribution_averages_pairs_of_at_least_25_items(root):
    rows = [attribute_row(("red", "big"))] * 25 + [attribute_row(("big", "red"))] * 24
    _, attribution = aro.load(root([relation_row()], rows))
    assert attribution.macro_groups == ("red_big",)
    assert attribution.counts["items_of_small_groups"] == 24
    assert attribution.n_used == 49


def test_without_a_group_for_the_macro_average_the_headline_is_micro_and_says_so(root):
    _, attribution = aro.load(root([relation_row()], [attribute_row()]))
    assert attribution.headline == "micro"
    assert "no group qualifies" in attribution.rule


def test_official_counts_are_required_when_asked_for(root):
    path = root([relation_row()], [attribute_row()])
    with pytest.raises(DataError, match="1 items, 23937 expected"):
        aro.load(path, official=True)
    relation, attribution = aro.load(path, official=True, allow_missing=True)
    assert (relation.n_used, relation.n_expected) == (1, 23_937)
    assert attribution.n_expected == 28_748


def test_missing_picture_names_row_and_number_and_is_counted_when_allowed(root):
    path = root([relation_row(), relation_row(image_path="2.jpg")], [attribute_row()])
    with pytest.raises(DataError, match=r"relation\.json, row 1: its picture .*2\.jpg.* 1 of 2"):
        aro.load(path)
    relation, _ = aro.load(path, allow_missing=True)
    assert (relation.n_used, relation.n_expected) == (1, 2)
    assert relation.counts["missing_images"] == 1


@pytest.mark.parametrize(
    "row, message",
    [
        (relation_row(true_caption=None), "no field 'true_caption'"),
        (relation_row(bbox_w="wide"), "field 'bbox_w' is 'wide'"),
        (["a", "b"], "has 2 fields"),
        ("text", "is a str"),
    ],
)
def test_malformed_row_is_named_and_counted_when_allowed(root, row, message):
    path = root([relation_row(), row], [attribute_row()])
    with pytest.raises(DataError, match=rf"relation\.json, row 1: .*{message}"):
        aro.load(path)
    assert aro.load(path, allow_missing=True)[0].counts["malformed"] == 1


def test_attributes_must_be_two_texts(root):
    path = root([relation_row()], [relation_row(attributes=["red"])])
    with pytest.raises(DataError, match="list of two texts"):
        aro.load(path)
