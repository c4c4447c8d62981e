from __future__ import annotations

import pytest

from cae_lib.data.benchmarks import crepe_systematicity, load_benchmark
from cae_lib.errors import ConfigError, DataError

HEADER = [
    "image_id", "caption", "x", "y", "width", "height",
    "valid_hard_negs_atom", "valid_hard_negs_comp", "valid_hard_negs_combined",
]


def row(caption="a red cup", atom="['a blue cup', 'a red dog']", comp="['a cup', 'b', 'c']"):
    return ["7.0", caption, "1.0", "2", "4.0", "3.0", atom, comp, "['d']"]


@pytest.fixture
def root(tmp_path, write_csv, draw):
    folder = tmp_path / "crepe"
    draw(folder / "VG_100K_2", "7.jpg")
    for split in ("seen", "unseen"):
        path = folder / "data/syst_hard_negatives" / crepe_systematicity.FILE.format(split, "laion")
        write_csv(path, HEADER, [row(), row(atom="[]")] if split == "seen" else [row()])
    return folder


def test_a_benchmark_for_each_corpus_split_and_kind(root):
    benchmarks = {b.subset: b for b in load_benchmark("crepe_systematicity", root.parent)}
    assert list(benchmarks) == [
        "laion/seen/atom", "laion/seen/comp", "laion/unseen/atom", "laion/unseen/comp"
    ]
    item = benchmarks["laion/unseen/comp"].items[0]
    assert item.texts == ("a red cup", "a cup", "b", "c") and item.truth == 0
    assert item.images[0].path == root / "VG_100K_2/7.jpg"
    assert item.images[0].crop == (1.0, 2.0, 5.0, 5.0)


def test_rows_without_valid_negatives_ask_nothing_and_are_counted(root):
    atom = crepe_systematicity.load(root)[0]
    assert (atom.n_used, atom.n_expected) == (1, 1)
    assert atom.counts["no_negatives"] == 1
    assert crepe_systematicity.load(root, kinds=["combined"])[0].n_used == 2


def test_one_file_alone_makes_the_other_expected(root):
    (root / "data/syst_hard_negatives/syst_vg_hard_negs_unseen_compounds_in_laion.csv").unlink()
    with pytest.raises(DataError, match="unseen_compounds_in_laion"):
        crepe_systematicity.load(root)


def test_unknown_corpus_kind_and_bad_cell(root, write_csv):
    with pytest.raises(ConfigError, match="openai"):
        crepe_systematicity.load(root, pretrained_on=["openai"])
    with pytest.raises(ConfigError, match="swap"):
        crepe_systematicity.load(root, kinds=["swap"])
    with pytest.raises(DataError, match="no file like"):
        crepe_systematicity.load(root / "data")
    path = root / "data/syst_hard_negatives/syst_vg_hard_negs_seen_compounds_in_laion.csv"
    write_csv(path, HEADER, [row(), row(atom="os.remove('x')")])
    with pytest.raises(DataError, match=r"row ending at line 3: field 'valid_hard_negs_atom'"):
        crepe_systematicity.load(root)
