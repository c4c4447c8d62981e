"""Sets of two pictures: Winoground, SVO-Probes, BiVLC and MMVP-VLM; and COLA of many."""

import json

import numpy as np
import pandas as pd
import pytest
from samples import COLA, SVO, SVO_HEADER, WINOGROUND, lines

from cae_lib.data.benchmarks import cola, load_benchmark, winoground
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
        files = lines("winoground/examples.jsonl", *entries) if entries else {}
        return load_benchmark("winoground", put(files), **options)

    return read


def test_three_scores_share_the_items_of_a_file_read_line_by_line(put, load):
    parts = load(entry(0), entry(1, collapsed_tag="Both"))
    assert [part.task for part in parts[:3]] == ["text", "image", "group"]
    assert all(part.n_used == part.n_expected == 2 for part in parts[:3])
    first, second = parts[0].items
    assert [ref.path.name for ref in first.images] == ["ex_0_img_0.png", "ex_0_img_1.png"]
    assert (first.key, second.key, second.group) == ("0", "1", "Both")
    # A line separator in a caption ends no line, and a broken line is named.
    text = json.dumps(entry(0, caption_0="an old\u2028person"), ensure_ascii=False)
    put({"winoground/examples.jsonl": text})
    assert load()[0].n_used == 1
    put({"winoground/examples.jsonl": text + '\n{"id": 1'})
    with pytest.raises(DataError, match=r"examples\.jsonl, line 2: not valid JSON"):
        load()


def test_an_id_of_winoground_stands_once(load):
    with pytest.raises(DataError, match="winoground/text: two items have the key '0'"):
        load(entry(0), entry(1), entry(0))


def test_the_untagged_items_of_winoground_are_scores_of_their_own(load):
    untagged = winoground.untagged_ids()
    assert len(untagged) == 172 and 313 in untagged and untagged < {*range(400)}
    # Tagged by Diwan et al.: 3 "Ambiguously Correct", 72 "Non Minimal", 399 "Non Minimal".
    assert not {3, 72, 399} & untagged
    parts = load(entry(0), entry(3), entry(313))
    assert [part.subset for part in parts][2:5] == ["group", "text/untagged", "image/untagged"]
    expected = {part.subset: part.n_expected for part in parts}
    assert (expected["text"], expected["text/untagged"], expected["text/authors"]) == (3, 2, 1)
    assert parts[3].task == "text" and [item.key for item in parts[3].items] == ["0"]
    assert len(load(official=True)) == 9
    [part] = load(entry(0), subsets=["text/authors"], official=True)
    assert (part.n_used, part.n_expected) == (1, 171)


def test_svo_probes_has_the_positive_picture_first_and_groups_by_flag(put):
    flags = ((True, False, False), (False, True, False), (False, True, True))
    pictures = ((1, 2), (2, 3), ("1.0", "2.0"))
    rows = [[*SVO[:5], *p, *f] for p, f in zip(pictures, flags, strict=True)]
    rows.append(['x, "y"\nz', *SVO[1:5], 1, 99, *flags[0]])
    put({f"svo-probes/images/{name}": None for name in ("1.jpg", "2.jpg", "3.png")})
    root = put({"svo-probes/svo_probes.csv": [SVO_HEADER, *rows[::-1]]})
    [part] = load_benchmark("svo_probes", root)
    names = [[ref.path.name for ref in item.images] for item in part.items]
    assert names == [["1.jpg", "2.jpg"], ["2.jpg", "3.png"], ["1.jpg", "2.jpg"]]
    assert [item.group for item in part.items] == ["mixed", "verb", "subj"]
    assert part.headline == "micro" and part.n_expected == 4
    assert part.counts == {"mixed": 1, "missing_images": 1}


def test_colas_pictures_are_told_apart_by_caption(put):
    """Each caption has to find its own picture, the first one the first."""
    put({f"cola/images/{number}.jpg": None for number in (1, 2)})
    [part] = load_benchmark(
        "cola",
        put({"cola/data/COLA_multiobjects_matching_benchmark.json": [COLA, [*COLA[:3], COLA[1]]]}),
    )
    assert (part.task, part.headline, part.counts["identical"]) == ("image", "micro", 1)
    assert [ref.path.name for ref in part.items[0].images] == ["1.jpg", "2.jpg"]
    assert part.items[0].texts == ("a red cup on a blue plate", "a blue cup")


@pytest.fixture
def root(put):
    pictures = dict.fromkeys(f"cola/images/{number}.jpg" for number in (1, 2, 3))
    rows = [
        ["/projectnb/somewhere/1.jpg", {"cup": ["red"]}, [1, 0, 0], [1, 1, 0]],
        ["/projectnb/somewhere/2.jpg", {}, [0, 1, 0], [1, 1, 1]],
    ]
    paco = {"labels": LABELS, "data": [["3.jpg", [0, 0, 1], [0, 0, 1]]]}
    return put(pictures | {GQA: [LABELS, rows], PACO: paco})


def test_colas_single_objects_are_labels_of_pictures(root):
    pictures = cola.load_single(root, "GQA")
    assert pictures.labels == tuple(LABELS)
    assert [ref.path.name for ref in pictures.images] == ["1.jpg", "2.jpg"]
    np.testing.assert_array_equal(pictures.present, np.array([[1, 0, 0], [0, 1, 0]], bool))
    np.testing.assert_array_equal(pictures.hard, np.array([[1, 1, 0], [1, 1, 1]], bool))
    pictures = cola.load_single(root, "PACO")  # an object with keys, rows without annotation
    assert pictures.present.tolist() == [[False, False, True]]
    assert (len(pictures.images), pictures.n_expected) == (1, 1)


def test_what_is_missing_or_malformed_of_colas_single_objects(root, put):
    (root / "cola/images/2.jpg").unlink()
    pictures = cola.load_single(root)
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


@pytest.fixture
def bivlc(put):
    """Two files of the hub, with pictures as bytes; the first one repeats a picture."""
    folder = put({f"made/{n}.png": (n, n) for n in (8, 9)}) / "made"

    def image(n):
        return {"bytes": (folder / f"{n}.png").read_bytes(), "path": None}

    def write(*shards):
        for number, rows in enumerate(shards):
            path = folder.parent / f"bivlc/data/test-0000{number}-of-00002-aa.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_parquet(path)
        return folder.parent

    row = {
        "image": image(8),
        "caption": "a cat",
        "negative_caption": "a dog",
        "negative_image": image(9),
        "type": "replace",
        "subtype": "obj",
    }
    return write, row


def test_bivlc_unpacks_both_pictures_of_all_files(bivlc):
    write, row = bivlc
    root = write([row, row | {"caption": "a cow"}], [row | {"type": "add", "subtype": "att"}])
    text, image, group = load_benchmark("bivlc", root)
    assert (text.task, image.task, group.task) == ("text", "image", "group")
    assert text.items == image.items == group.items and text.n_used == text.n_expected == 3
    assert [item.group for item in text.items] == ["replace_obj", "replace_obj", "add_att"]
    first = text.items[0]
    assert first.texts == ("a cat", "a dog")
    assert [ref.path.read_bytes() for ref in first.images] == [
        row["image"]["bytes"],
        row["negative_image"]["bytes"],
    ]
    assert len(list((root / "bivlc/images").iterdir())) == 2


def test_what_is_wrong_with_bivlc_is_named(bivlc):
    write, row = bivlc
    root = write([row, row | {"negative_image": None}])
    with pytest.raises(DataError, match="test-.*parquet, row 1: .* field 'negative_image.path'"):
        load_benchmark("bivlc", root)
    part = load_benchmark("bivlc", write([row]), official=True)[0]
    assert (part.n_used, part.n_expected) == (1, 2933)


@pytest.fixture
def mmvp(put):
    put(
        {
            f"mmvp-vlm/MLLM_VLM Images/{kind}/{n}.jpg": None
            for kind, n in (("Text", 1), ("Text", 2), ("State", 31), ("State", 32))
        }
    )

    def read(*rows, **options):
        header = ["Question ID", "Type", "Statement"]
        return load_benchmark(
            "mmvp_vlm", put({"mmvp-vlm/Questions.csv": [header, *rows]}), **options
        )

    return read


TEXT = ([1, "Text", "the word stop"], [2, "Text", "the word go, in red"])


def test_rows_of_mmvp_are_pairs(mmvp):
    image, text, group = mmvp(*TEXT, [31, "State", "a full cup"], [32, "State", "an empty cup"])
    assert (image.task, text.task, group.task) == ("image", "text", "group")
    assert [item.key for item in image.items] == ["1", "31"] and image.items == group.items
    assert image.items[0].texts == ("a photo of the word stop", "a photo of the word go, in red")
    assert [ref.path.parent.name + ref.path.name for ref in image.items[1].images] == [
        "State31.jpg",
        "State32.jpg",
    ]
    assert (image.headline, [item.group for item in image.items]) == ("macro", ["Text", "State"])


@pytest.mark.parametrize(
    "rows",
    [
        (TEXT[1], TEXT[0]),
        (TEXT[0], [4, *TEXT[1][1:]]),
        ([2, "Text", "x"], [3, "Text", "y"]),
        (TEXT[0], [2, "State", "y"]),
        (TEXT[0], ["two", "Text", "y"]),
        (TEXT[0], [2, "Text", " "]),
    ],
)
def test_rows_of_mmvp_that_are_no_pair_are_named(mmvp, rows):
    with pytest.raises(DataError, match=r"Questions\.csv, row ending at line [23]: .* expected"):
        mmvp(*rows)
    with pytest.raises(DataError, match="3 rows, pairs were expected"):
        mmvp(*rows, TEXT[0])
