from __future__ import annotations

import pytest

from cae_lib.data.benchmarks import svo_probes
from cae_lib.errors import DataError

HEADER = (
    "sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id,"
    "subj_neg,verb_neg,obj_neg"
).split(",")


def row(positive=1, negative=2, flags=(True, False, False), sentence="A girl sits on a bench."):
    triplets = ["girl,sit,bench", "boy,sit,bench"]
    return [sentence, *triplets, "http://a/1", "http://a/2", positive, negative, *flags]


@pytest.fixture
def root(tmp_path, write_csv, draw):
    draw(tmp_path / "images", "1.jpg", "2.jpg", "3.png")

    def write(*rows):
        write_csv(tmp_path / "svo_probes.csv", HEADER, rows)
        return tmp_path

    return write


def test_positive_picture_first_and_groups_by_flag(root):
    rows = [row(), row(2, 3, (False, True, False)), row(flags=(False, True, True))]
    [benchmark] = svo_probes.load(root(*rows))
    first, second, third = benchmark.items
    assert [ref.path.name for ref in first.images] == ["1.jpg", "2.jpg"]
    assert [ref.path.name for ref in second.images] == ["2.jpg", "3.png"]
    assert first.truth == 0 and first.texts == ("A girl sits on a bench.",)
    assert [item.group for item in benchmark.items] == ["subj", "verb", "mixed"]
    assert benchmark.macro_groups == ("subj", "verb")
    assert benchmark.counts["mixed"] == 1
    assert benchmark.chance == 0.5


def test_dead_pictures_are_counted_beside_the_rows(root):
    path = root(row(), row(1, 99), row(sentence="x, \"y\"\nz"))
    with pytest.raises(DataError, match=r"99\.jpg"):
        svo_probes.load(path)
    [benchmark] = svo_probes.load(path, allow_missing=True)
    assert (benchmark.n_used, benchmark.n_expected) == (2, 3)
    assert benchmark.items[1].texts == ('x, "y"\nz',)


def test_flag_that_is_no_boolean_is_named_by_line(root):
    path = root(row(), row(flags=("yes", False, False)))
    with pytest.raises(DataError, match=r"ending at line 3: field 'subj_neg' is 'yes'"):
        svo_probes.load(path)


def test_image_ids_written_as_floats(root):
    [benchmark] = svo_probes.load(root(row("1.0", "2.0")))
    assert [ref.path.name for ref in benchmark.items[0].images] == ["1.jpg", "2.jpg"]
