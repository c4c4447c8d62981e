"""CREPE: files by complexity, and lists of negatives."""

from samples import CREPE, NEGATIVES, SYST, SYST_FILE, SYST_HEADER, crepe

from cae_lib.data.benchmarks import load_benchmark

SEEN, UNSEEN = (SYST_FILE.format(split, "laion") for split in ("seen", "unseen"))


def test_crepes_true_caption_is_first_and_negatives_may_be_a_set_and_hold_it(put):
    put({"crepe/VG_100K/7.jpg": (20, 10), "crepe/VG_100K_2/8.jpg": (20, 10)})

    def load(files):
        return load_benchmark("crepe", put(files))

    [part] = load(crepe() | crepe("atom", 12, [8, *CREPE[1:]], CREPE))
    first, second, _ = part.items
    assert first.texts == ("a cat on a mat", *NEGATIVES)
    assert second.images[0].path.parent.name == "VG_100K_2"
    assert [(i.group, i.key) for i in part.items] == [("4", "4/2"), ("12", "12/2"), ("12", "12/3")]
    assert part.headline == "macro" and "complexities" in part.rule
    cell = "{'one', 'a cat on a mat', 'three', 'four', 'five'}"
    part = load(crepe("swap", 5, [*CREPE[:3], cell, *CREPE[4:]]))[1]
    assert part.items[0].texts[1:] == ("one", "a cat on a mat", "three", "four", "five")
    assert part.n_used == 1 and part.counts == {"identical": 1}
    cell = "{'two', 'one', 'two', 'a cat'}"
    part = load(crepe("swap", 5, [*CREPE[:3], cell, *CREPE[4:]]))[1]
    assert part.items[0].texts[1:] == ("two", "one", "a cat")
    assert part.counts == {"identical": 0, "fewer_negatives": 1}
    cell = "{'one', 'two', 'three', 'four'}"
    part = load(crepe("swap", 5, [*CREPE[:3], cell, *CREPE[4:]], CREPE))[1]
    assert part.counts == {"identical": 0, "fewer_negatives": 1}


def test_systematicity_has_a_benchmark_for_each_corpus_split_and_kind(put):
    """Rows without valid negatives ask nothing."""
    rows, empty = [SYST_HEADER, SYST], [*SYST[:6], "[]", *SYST[7:]]
    root = put({"crepe/VG_100K_2/7.jpg": None, SEEN: [*rows, empty], UNSEEN: rows})

    def load(**options):
        found = load_benchmark("crepe_systematicity", root, **options)
        return {part.subset: part for part in found}

    parts = load()
    names = [f"laion/{split}/{kind}" for split in ("seen", "unseen") for kind in ("atom", "comp")]
    assert list(parts) == names
    item = parts["laion/unseen/comp"].items[0]
    assert item.texts == ("a cup", "a", "b", "c")
    assert item.images[0].path == root / "crepe/VG_100K_2/7.jpg"
    atom = parts[names[0]]
    assert (atom.n_used, atom.n_expected, atom.counts["no_negatives"]) == (1, 1, 1)
