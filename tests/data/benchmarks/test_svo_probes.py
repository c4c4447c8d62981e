from __future__ import annotations

import pytest
from samples import SVO, SVO_HEADER

from cae_lib.data.benchmarks import svo_probes


def row(positive=1, negative=2, flags=(True, False, False), sentence="A girl sits."):
    return [sentence, *SVO[1:5], positive, negative, *flags]


@pytest.fixture
def load(put):
    root = put(dict.fromkeys(f"images/{name}" for name in ("1.jpg", "2.jpg", "3.png")))

    def read(*rows, **options):
        put({"svo_probes.csv": [SVO_HEADER, *rows]})
        return svo_probes.load(root, **options)[0]

    return read


def test_positive_picture_first_and_groups_by_flag(load):
    part = load(row(), row(2, 3, (False, True, False)), row("1.0", "2.0", (False, True, True)))
    pictures = [[ref.path.name for ref in item.images] for item in part.items]
    assert pictures == [["1.jpg", "2.jpg"], ["2.jpg", "3.png"], ["1.jpg", "2.jpg"]]
    assert part.items[0].truth == 0 and part.items[0].texts == ("A girl sits.",)
    assert [item.group for item in part.items] == ["subj", "verb", "mixed"]
    assert part.macro_groups == ("subj", "verb") and part.counts == {"mixed": 1}


def test_dead_pictures_are_counted_beside_the_rows(load):
    part = load(row(), row(1, 99), row(sentence='x, "y"\nz'), allow_missing=True)
    assert (part.n_used, part.n_expected) == (2, 3)
    assert part.items[1].texts == ('x, "y"\nz',)
