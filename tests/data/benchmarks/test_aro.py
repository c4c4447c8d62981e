from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from samples import ARO, ATTRIBUTES

from cae_lib.data.benchmarks import aro
from cae_lib.errors import ConfigError


@pytest.fixture
def load(put):
    def write(relations, attributes):
        put({"images/1.jpg": (20, 10), "visual_genome_relation.json": relations})
        return aro.load(put({"visual_genome_attribution.json": attributes}))

    return write


def test_texts_are_false_then_true_and_the_crop_cuts_the_marked_pixels(load, tmp_path):
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[1:3, 3:7] = 255
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "1.png")
    relation, _ = load([ARO | {"image_path": "1.png"}], [ATTRIBUTES])
    [item] = relation.items
    assert item.texts == ("the mat is on the cat", "the cat is on the mat")
    assert item.truth == 1
    assert item.images[0].crop == (3, 1, 7, 3)
    with Image.open(item.images[0].path) as picture:
        assert np.asarray(picture.crop(item.images[0].crop)).min() == 255
        assert picture.crop(item.images[0].crop).size == (4, 2)


def test_symmetric_relations_leave_the_macro_average_but_stay_in_the_items(load):
    names = ("on", "pulling", "next to", "next to")
    relation, attribution = load([ARO | {"relation_name": name} for name in names], [ATTRIBUTES])
    assert (relation.headline, relation.macro_groups) == ("macro", ("on", "pulling"))
    assert (relation.n_used, relation.counts["symmetric_items"]) == (4, 2)
    assert attribution.headline == "micro" and "no group qualifies" in attribution.rule


def test_the_official_list_has_157_names_and_the_authors_160():
    official, authors = aro.symmetric_relations(), aro.symmetric_relations("authors")
    assert (len(official), len(authors)) == (157, 160)
    assert authors - official == {"pulling", "pulled by", "leaning against"}
    assert {"next to", "touching", "with"} <= official
    assert not {"on", "to the left of", "riding"} & authors
    with pytest.raises(ConfigError, match="symmetric='all'"):
        aro.symmetric_relations("all")


def test_attribution_averages_pairs_of_at_least_25_items(load):
    other = ATTRIBUTES | {"attributes": ["big", "red"]}
    _, attribution = load([ARO], [ATTRIBUTES] * 25 + [other] * 24)
    assert attribution.macro_groups == ("red_big",)
    assert (attribution.n_used, attribution.counts["items_of_small_groups"]) == (49, 24)
