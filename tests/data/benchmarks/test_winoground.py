from __future__ import annotations

import json

import pytest

from cae_lib.data.benchmarks import winoground
from cae_lib.errors import ConfigError, DataError


def line(number=0, **changes):
    return json.dumps(
        {
            "id": number,
            "caption_0": "an old person kisses a young person",
            "caption_1": "a young person kisses an old person",
            "image_0": f"ex_{number}_img_0",
            "image_1": f"ex_{number}_img_1",
            "tag": "Adjective-Age",
            "collapsed_tag": "Relation",
            **changes,
        }
    )


@pytest.fixture
def root(tmp_path, draw):
    draw(tmp_path / "images", *(f"ex_{n}_img_{side}.png" for n in (0, 1) for side in (0, 1)))

    def write(*lines):
        (tmp_path / "examples.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return tmp_path

    return write


def test_last_line_without_newline_counts_and_three_scores_share_the_items(root):
    benchmarks = winoground.load(root(line(0), line(1, collapsed_tag="Both")))
    assert [b.task for b in benchmarks] == ["text", "image", "group"]
    assert [b.chance for b in benchmarks] == [1 / 4, 1 / 4, 1 / 6]
    assert all(b.n_used == b.n_expected == 2 for b in benchmarks)
    first = benchmarks[0].items[0]
    assert [ref.path.name for ref in first.images] == ["ex_0_img_0.png", "ex_0_img_1.png"]
    assert first.texts[0].startswith("an old") and first.texts[1].startswith("a young")
    assert [item.group for item in benchmarks[2].items] == ["Relation", "Both"]


def test_line_separator_inside_a_caption_does_not_end_the_line(root):
    text = line(0).replace("an old person", "an old\u2028person")
    path = root(text)
    (path / "examples.jsonl").write_text(json.dumps(json.loads(text), ensure_ascii=False), "utf-8")
    assert winoground.load(path)[0].n_used == 1


def test_broken_line_is_named(root):
    with pytest.raises(DataError, match=r"examples\.jsonl, line 2: not valid JSON"):
        winoground.load(root(line(0), '{"id": 1'))


def test_missing_second_picture_and_official_count(root):
    path = root(line(0), line(7))
    with pytest.raises(DataError, match=r"ex_7_img_0\.png"):
        winoground.load(path)
    text = winoground.load(path, official=True, allow_missing=True)[0]
    assert (text.n_used, text.n_expected, text.counts["missing_images"]) == (1, 400, 1)


def test_untagged_items_are_172_and_the_authors_lack_one():
    untagged, authors = winoground.part_ids("untagged"), winoground.part_ids("authors")
    assert (len(untagged), len(authors)) == (172, 171)
    assert untagged - authors == {313} and authors < untagged < winoground.part_ids("all")
    # Tagged by Diwan et al.: 3 "Ambiguously Correct", 72 "Non Minimal", 399 "Non Minimal".
    assert not {3, 72, 399} & untagged
    with pytest.raises(ConfigError, match="all, untagged, authors"):
        winoground.part_ids("clean")


def test_parts_are_scores_of_their_own(root):
    path = root(line(0), line(3), line(313))
    loaded = winoground.load(path, parts=winoground.PARTS, allow_missing=True)
    assert [b.subset for b in loaded][2:5] == ["group", "text/untagged", "image/untagged"]
    expected = {b.subset: b.n_expected for b in loaded}
    assert (expected["text"], expected["text/untagged"], expected["text/authors"]) == (3, 2, 1)
    assert loaded[3].task == "text" and [item.id for item in loaded[3].items] == ["0"]
    with pytest.raises(DataError, match="1 items, 171 expected"):
        winoground.load(root(line(0)), parts=["authors"], official=True)
