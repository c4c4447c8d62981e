from __future__ import annotations

import pytest

from cae_lib.data.benchmarks import crepe
from cae_lib.errors import ConfigError, DataError

HEADER = (
    "image_id,caption,n,n_objects,n_relations,n_attributes,n_connected_components,hard_negs,"
    "x,y,width,height"
).split(",")
NEGATIVES = [f"a cat, on mat's {n}" for n in range(5)]


def row(negatives=NEGATIVES, image=7, caption="a cat on a mat"):
    return [image, caption, 4, 2, 1, 1, 1, str(negatives), "3.0", "1.0", 4, 2]


@pytest.fixture
def root(tmp_path, write_csv, draw):
    draw(tmp_path / "VG_100K", "7.jpg", size=(20, 10))
    draw(tmp_path / "VG_100K_2", "8.jpg", size=(20, 10))

    def write(kind, complexity, *rows):
        name = f"prod_vg_hard_negs_{kind}_complexity_{complexity}.csv"
        write_csv(tmp_path / "data/prod_hard_negatives" / kind / name, HEADER, rows)
        return tmp_path

    return write


def test_true_caption_first_among_six_with_the_crop_of_x_y_width_height(root):
    root("atom", 4, row())
    [benchmark] = crepe.load(root("atom", 12, row(image=8), row()))
    first, second, _ = benchmark.items
    assert first.texts == ("a cat on a mat", *NEGATIVES)
    assert first.truth == 0
    assert first.images[0].crop == (3, 1, 7, 3)
    assert second.images[0].path.parent.name == "VG_100K_2"
    assert [item.group for item in benchmark.items] == ["4", "12", "12"]
    assert benchmark.headline == "macro"
    assert benchmark.chance == pytest.approx(1 / 6)


def test_caption_among_its_negatives_is_counted(root):
    path = root("swap", 5, row([*NEGATIVES[:4], "a cat on a mat"]))
    [benchmark] = crepe.load(path)
    assert benchmark.n_used == 1 and benchmark.counts["identical"] == 1


@pytest.mark.parametrize("literal", ["[1, 2", "['a']", "__import__('os')", "['a', 'b', 3, 4, 5]"])
def test_hard_negatives_must_be_a_literal_list_of_five_texts(root, literal):
    path = root("atom", 4, row(), row(literal))
    with pytest.raises(DataError, match=r"line 3 of prod_vg_hard_negs_atom_complexity_4\.csv"):
        crepe.load(path)
    assert crepe.load(path, allow_missing=True)[0].counts["malformed"] == 1


def test_official_counts(root):
    assert crepe.OFFICIAL == {"atom": 16_727, "swap": 6652, "negate": 16_336}
    path = root("atom", 4, row())
    with pytest.raises(DataError, match="1 items, 16727 expected"):
        crepe.load(path, subsets=["atom"], official=True)
    with pytest.raises(DataError, match="swap: no file"):
        crepe.load(path, official=True, allow_missing=True)
    with pytest.raises(ConfigError, match="add"):
        crepe.load(path, subsets=["add"])


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="no folder of atom, swap, negate"):
        crepe.load(tmp_path)
