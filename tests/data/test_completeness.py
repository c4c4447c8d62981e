"""`cae data check`: what is counted, and what is missing, by name."""

from __future__ import annotations

import json

from cae_lib.data.completeness import check
from cae_lib.data.fetch import get
from cae_lib.data.sources import Pictures, Rows, Source


def test_missing_and_unreadable_files_are_named(toy: Source):
    get(toy)
    (toy.root / "images/b.jpg").unlink()
    assert check(toy).lines() == [
        "toy: incomplete; 1 of 1 files, 2 of 2 rows, 1 of 2 pictures",
        "  pictures missing: toy/images/b.jpg",
    ]
    many = [{"image": f"{i}.jpg"} for i in range(1200)]
    (toy.root / "data/rows.json").write_text(json.dumps(many))
    assert check(toy).lines() == [
        "toy: incomplete; 1 of 1 files, 1,200 of 2 rows, 0 of 1,200 pictures",
        "  pictures missing: toy/images/0.jpg, toy/images/1.jpg, toy/images/2.jpg and 1,197 more",
    ]
    (toy.root / "data/rows.json").write_text("[")
    report = check(toy)
    assert report.state == "incomplete"
    assert "rows.json: cannot be read" in report.lines()[-1]


def test_other_layouts_of_rows(make_source):
    entry = make_source(
        rows=(
            Rows("a.csv", 2), Rows("b.tsv", 1), Rows("c.jsonl", 2), Rows("d.txt", 2),
            Rows("e.csv", 3, lines=True, skip=1), Rows("f.json", 2, at="images"),
            Rows("pictures/*.jpg", 3), Rows("maybe.txt"),
        ),
        pictures=(
            Pictures("a.csv", ("id",), ("p", "q"), ("{}.jpg", "{}.png")),
            Pictures("f.json", ("x",), ("p",)),
            Pictures("g.json", (0,), ("p",), ("{:04d}.jpg",)),
            Pictures("h.json", (0, 1), ("p",), drop="data/", base=True),
        ),
    )
    texts = {
        "a.csv": 'id,text\n7.0,"two\nlines"\n8,x\n', "b.tsv": "a\tb\n1\t2\n",
        "c.jsonl": '{"a": 1}\n\n{"a": 2}', "d.txt": "1\n\n2\n", "e.csv": 'h\n"1\n2\n3\n',
        "f.json": '{"images": [1, 2]}', "g.json": '[[12, "x"]]',
        "h.json": '[["data/u/v.jpg", "http://w/z.jpg"]]', "q/8.png": "", "p/7.jpg": "",
        "p/0012.jpg": "", "p/v.jpg": "", "pictures/1.jpg": "",
    }
    for name, text in texts.items():
        (entry.root / name).parent.mkdir(parents=True, exist_ok=True)
        (entry.root / name).write_text(text)
    files, rows, pictures = check(entry).tallies
    assert (rows.found, rows.expected) == (12, 12)
    assert files.missing == ["toy/pictures/*.jpg (2)", "toy/maybe.txt"]
    assert (files.found, files.expected) == (7, 10)
    assert (pictures.found, pictures.missing) == (4, ["toy/p/z.jpg"])
