from __future__ import annotations

import json

import pytest
from samples import WINOGROUND, winoground

from cae_lib.data.benchmarks import load_benchmark
from cae_lib.data.benchmarks.winoground import OFFICIAL, untagged
from cae_lib.errors import DataError


def entry(number, **changes):
    names = {f"image_{side}": f"ex_{number}_img_{side}" for side in (0, 1)}
    return WINOGROUND | {"id": number} | names | changes


@pytest.fixture
def load(put):
    put({f"winoground/images/ex_{n}_img_{i}.png": None for n in (0, 1) for i in (0, 1)})

    def read(*entries, **options):
        return load_benchmark("winoground", put(winoground(*entries)), **options)

    return read


def test_last_line_without_newline_counts_and_three_scores_share_the_items(load):
    parts = load(entry(0), entry(1, collapsed_tag="Both"))
    assert [part.task for part in parts] == ["text", "image", "group"]
    assert all(part.n_used == part.n_expected == 2 for part in parts)
    first = parts[0].items[0]
    assert [ref.path.name for ref in first.images] == ["ex_0_img_0.png", "ex_0_img_1.png"]
    assert first.texts[0].startswith("an old") and first.texts[1].startswith("a young")
    assert [item.group for item in parts[2].items] == ["Relation", "Both"]


def test_a_line_separator_in_a_caption_ends_no_line_and_a_broken_line_is_named(put, load):
    load(entry(0))
    text = json.dumps(entry(0, caption_0="an old\u2028person"), ensure_ascii=False)
    root = put({"winoground/examples.jsonl": text})
    assert load_benchmark("winoground", root)[0].n_used == 1
    put({"winoground/examples.jsonl": text + '\n{"id": 1'})
    with pytest.raises(DataError, match=r"examples\.jsonl, line 2: not valid JSON"):
        load_benchmark("winoground", root)


def test_untagged_items_are_172():
    assert len(untagged()) == 172 and 313 in untagged() and untagged() < {*range(400)}
    # Tagged by Diwan et al.: 3 "Ambiguously Correct", 72 "Non Minimal", 399 "Non Minimal".
    assert not {3, 72, 399} & untagged()


def test_parts_are_scores_of_their_own(load):
    parts = load(entry(0), entry(3), entry(313), subsets=list(OFFICIAL), allow_missing=True)
    assert [part.subset for part in parts][2:5] == ["group", "text/untagged", "image/untagged"]
    expected = {part.subset: part.n_expected for part in parts}
    assert (expected["text"], expected["text/untagged"], expected["text/authors"]) == (3, 2, 1)
    assert parts[3].task == "text" and [item.id for item in parts[3].items] == ["0"]
    with pytest.raises(DataError, match="1 items, 171 expected"):
        load(entry(0), subsets=["text/authors"], official=True)
