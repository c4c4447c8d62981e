"""Winoground, SVO-Probes and COLA: which of two pictures, or of many, fits a text."""

import json

import numpy as np
import pytest
from samples import COLA, SVO, SVO_HEADER, WINOGROUND, winoground

from cae_lib.data.benchmarks import cola, load_benchmark, svo_probes
from cae_lib.data.benchmarks.winoground import OFFICIAL, untagged
from cae_lib.errors import ConfigError, DataError

LABELS = ["square white plate", "red cup", "blue dog"]
GQA, PACO = (f"cola/data/{cola.SINGLE.format(name)}" for name in ("GQA", "PACO"))


def entry(number, **changes):
    names = {f"image_{side}": f"ex_{number}_img_{side}" for side in (0, 1)}
    return WINOGROUND | {"id": number} | names | changes


@pytest.fixture
def load(put):
    put({f"winoground/images/ex_{n}_img_{i}.png": None for n in (0, 1) for i in (0, 1)})
    def read(*entries, **options):
        files = winoground(*entries) if entries else {}
        return load_benchmark("winoground", put(files), **options)
    return read


def test_three_scores_share_the_items_of_a_file_read_line_by_line(put, load):
    parts = load(entry(0), entry(1, collapsed_tag="Both"))
    assert [part.task for part in parts] == ["text", "image", "group"]
    assert all(part.n_used == part.n_expected == 2 for part in parts)
    first = parts[0].items[0]
    assert [ref.path.name for ref in first.images] == ["ex_0_img_0.png", "ex_0_img_1.png"]
    assert first.texts[0].startswith("an old") and first.texts[1].startswith("a young")
    assert [item.group for item in parts[2].items] == ["Relation", "Both"]
    # A line separator in a caption ends no line, and a broken line is named.
    text = json.dumps(entry(0, caption_0="an old\u2028person"), ensure_ascii=False)
    put({"winoground/examples.jsonl": text})
    assert load()[0].n_used == 1
    put({"winoground/examples.jsonl": text + '\n{"id": 1'})
    with pytest.raises(DataError, match=r"examples\.jsonl, line 2: not valid JSON"):
        load()


def test_the_untagged_items_of_winoground_are_scores_of_their_own(load):
    assert len(untagged()) == 172 and 313 in untagged() and untagged() < {*range(400)}
    # Tagged by Diwan et al.: 3 "Ambiguously Correct", 72 "Non Minimal", 399 "Non Minimal".
    assert not {3, 72, 399} & untagged()
    parts = load(entry(0), entry(3), entry(313), subsets=list(OFFICIAL), allow_missing=True)
    assert [part.subset for part in parts][2:5] == ["group", "text/untagged", "image/untagged"]
    expected = {part.subset: part.n_expected for part in parts}
    assert (expected["text"], expected["text/untagged"], expected["text/authors"]) == (3, 2, 1)
    assert parts[3].task == "text" and [item.id for item in parts[3].items] == ["0"]
    with pytest.raises(DataError, match="1 items, 171 expected"):
        load(entry(0), subsets=["text/authors"], official=True)


def test_svo_probes_has_the_positive_picture_first_and_groups_by_flag(put):
    flags = ((True, False, False), (False, True, False), (False, True, True))
    pictures = ((1, 2), (2, 3), ("1.0", "2.0"))
    rows = [[*SVO[:5], *p, *f] for p, f in zip(pictures, flags, strict=True)]
    rows.append(['x, "y"\nz', *SVO[1:5], 1, 99, *flags[0]])
    root = put(dict.fromkeys(f"images/{name}" for name in ("1.jpg", "2.jpg", "3.png")))
    put({"svo_probes.csv": [SVO_HEADER, *rows[::-1]]})
    [part] = svo_probes.load(root, allow_missing=True)
    names = [[ref.path.name for ref in item.images] for item in part.items]
    assert names == [["1.jpg", "2.jpg"], ["2.jpg", "3.png"], ["1.jpg", "2.jpg"]]
    assert part.items[0].truth == 0 and part.items[0].texts == ("A girl sits.",)
    assert [item.group for item in part.items] == ["mixed", "verb", "subj"]
    assert part.macro_groups == ("subj", "verb") and part.n_expected == 4
    assert part.counts == {"mixed": 1, "missing_images": 1}


@pytest.fixture
def root(put):
    pictures = dict.fromkeys(f"cola/images/{number}.jpg" for number in (1, 2, 3))
    rows = [["/projectnb/somewhere/1.jpg", {"cup": ["red"]}, [1, 0, 0], [1, 1, 0]],
            ["/projectnb/somewhere/2.jpg", {}, [0, 1, 0], [1, 1, 1]]]
    paco = {"labels": LABELS, "data": [["3.jpg", [0, 0, 1], [0, 0, 1]]]}
    return put(pictures | {f"cola/{cola.MULTI}": [COLA], GQA: [LABELS, rows], PACO: paco}) / "cola"


def test_cola_has_two_pictures_and_two_captions_or_labels_of_pictures(root):
    [part] = load_benchmark("cola", root.parent)
    assert (part.key, part.task, part.items[0].texts) == ("cola/multi", "image", (COLA[1], COLA[3]))
    assert [ref.path.name for ref in part.items[0].images] == ["1.jpg", "2.jpg"]
    pictures = cola.load_single(root, "GQA")
    assert pictures.labels == tuple(LABELS)
    assert [ref.path.name for ref in pictures.images] == ["1.jpg", "2.jpg"]
    np.testing.assert_array_equal(pictures.present, np.array([[1, 0, 0], [0, 1, 0]], bool))
    np.testing.assert_array_equal(pictures.hard, np.array([[1, 1, 0], [1, 1, 1]], bool))
    pictures = cola.load_single(root, "PACO")  # an object with keys, rows without annotation
    assert pictures.present.tolist() == [[False, False, True]]
    assert (len(pictures.images), pictures.n_expected) == (1, 1)


def test_what_is_missing_or_malformed_of_colas_single_objects(root, put):
    (root / "images/2.jpg").unlink()
    with pytest.raises(DataError, match=r"GQA\.json, row 1: its picture"):
        cola.load_single(root)
    pictures = cola.load_single(root, allow_missing=True)
    assert (len(pictures.images), pictures.n_expected) == (1, 2)
    assert pictures.present.tolist() == [[True, False, False]]
    assert pictures.counts == {"missing_images": 1}
    for content, message in (
        ([LABELS, [["1.jpg", {}, [1, 0], [1, 1, 1]]]], r"GQA\.json, row 0: expected a list of 3"),
        ({"labels": LABELS}, r"expected \[labels, rows\]"),
    ):
        put({GQA: content})
        with pytest.raises(DataError, match=message):
            cola.load_single(root)
    with pytest.raises(ConfigError, match="GQA, CLEVR, PACO"):
        cola.load_single(root, "VG")
