from __future__ import annotations

import pytest
from samples import CREPE, NEGATIVES, SYST, SYST_FILE, SYST_HEADER, crepe

from cae_lib.data.benchmarks import load_benchmark
from cae_lib.data.benchmarks.crepe import OFFICIAL
from cae_lib.errors import DataError

SEEN, UNSEEN = (SYST_FILE.format(split, "laion") for split in ("seen", "unseen"))


@pytest.fixture
def load(put):
    put({"crepe/VG_100K/7.jpg": (20, 10), "crepe/VG_100K_2/8.jpg": (20, 10)})
    return lambda files, **options: load_benchmark("crepe", put(files), **options)


def test_true_caption_first_among_six_with_the_crop_of_x_y_width_height(load):
    [part] = load(crepe() | crepe("atom", 12, [8, *CREPE[1:]], CREPE))
    first, second, _ = part.items
    assert first.texts == ("a cat on a mat", *NEGATIVES) and first.truth == 0
    assert first.images[0].crop == (3, 1, 7, 3)
    assert second.images[0].path.parent.name == "VG_100K_2"
    assert [(item.group, item.id) for item in part.items] == [
        ("4", "4/2"), ("12", "12/2"), ("12", "12/3")
    ]
    assert (part.headline, part.macro_groups) == ("macro", None)
    assert OFFICIAL == {"atom": 16_727, "swap": 6652, "negate": 16_336}


def test_negatives_may_be_a_set_and_hold_the_caption(load):
    cell = "{'one', 'a cat on a mat', 'three', 'four', 'five'}"
    [part] = load(crepe("swap", 5, [*CREPE[:3], cell, *CREPE[4:]]))
    assert part.items[0].texts[1:] == ("one", "a cat on a mat", "three", "four", "five")
    assert part.n_used == 1 and part.counts["identical"] == 1


@pytest.fixture
def root(put):
    rows = [SYST_HEADER, SYST]
    empty = [*SYST[:6], "[]", *SYST[7:]]
    return put({"crepe/VG_100K_2/7.jpg": None, SEEN: [*rows, empty], UNSEEN: rows})


def systematicity(root, *subsets):
    options = {"subsets": subsets} if subsets else {}
    return {part.subset: part for part in load_benchmark("crepe_systematicity", root, **options)}


def test_a_benchmark_for_each_corpus_split_and_kind(root):
    parts = systematicity(root)
    names = ["laion/seen/atom", "laion/seen/comp", "laion/unseen/atom", "laion/unseen/comp"]
    assert list(parts) == names
    item = parts["laion/unseen/comp"].items[0]
    assert item.texts == ("a cup", "a", "b", "c") and item.truth == 0
    assert item.images[0].path == root / "crepe/VG_100K_2/7.jpg"
    assert item.images[0].crop == (1.0, 2.0, 5.0, 5.0)
    assert systematicity(root, "laion/seen/combined")["laion/seen/combined"].n_used == 2


def test_rows_without_valid_negatives_ask_nothing_and_are_counted(root):
    atom = systematicity(root)["laion/seen/atom"]
    assert (atom.n_used, atom.n_expected, atom.counts["no_negatives"]) == (1, 1, 1)


def test_one_file_alone_makes_the_other_expected(root):
    (root / UNSEEN).unlink()
    with pytest.raises(DataError, match="unseen_compounds_in_laion"):
        systematicity(root)
