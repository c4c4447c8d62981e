"""Data of one's own: a file of choices, or of captions, in the formats that people have."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import save_random
from PIL import Image

import cae_bench
from cae_bench.benchmarks.base import ImageRef
from cae_bench.encoder import Encoder
from cae_lab.cli import main
from cae_lib.errors import DataError

COLORS = ("red", "green", "blue", "white")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for color in COLORS:
        Image.new("RGB", (32, 32), color).save(tmp_path / f"{color}.png")
    return tmp_path


def expected(clip: object, folder: Path, n_negatives: int) -> float:
    """The share of colours whose name is closer than those of the next colours."""
    encoder = Encoder(clip)
    images = encoder.encode_images([ImageRef(folder / f"{color}.png") for color in COLORS])
    texts = encoder.encode_texts([f"a {color} wall" for color in COLORS])
    cosine = images @ texts.T
    others = range(1, n_negatives + 1)
    return sum(all(cosine[n, n] > cosine[n, (n + i) % 4] for i in others) for n in range(4)) / 4


def rows(*names: str) -> list[dict[str, object]]:
    image, caption, negative = names
    return [
        {
            image: f"{color}.png",
            caption: f"a {color} wall",
            negative: f"a {COLORS[(n + 1) % 4]} wall",
        }
        for n, color in enumerate(COLORS)
    ]


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("mine.csv", ("image", "caption", "negative")),
        ("mine.tsv", ("filepath", "title", "negative_caption")),
        ("mine.json", ("file_name", "text", "negatives")),
        ("mine.jsonl", ("path", "caption", "negative")),
    ],
)
def test_a_file_of_choices_is_scored(file, names, folder, tiny_clip) -> None:
    path, table, n_negatives = folder / file, pd.DataFrame(rows(*names)), 1
    if path.suffix in (".csv", ".tsv"):
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    else:
        dicts = rows(*names)
        if path.suffix == ".json":  # several negatives
            n_negatives, walls = 3, [row[names[2]] for row in dicts] * 2
            dicts = [row | {names[2]: walls[n : n + 3]} for n, row in enumerate(dicts)]
        lines = [json.dumps(row) for row in dicts]
        path.write_text(f"[{','.join(lines)}]" if path.suffix == ".json" else "\n".join(lines))
    (row,) = cae_bench.evaluate_file(tiny_clip, path).itertuples()
    assert row.value == expected(tiny_clip, folder, n_negatives)
    assert (row.dataset, row.n_used, row.n_expected) == ("mine/all", 4, 4)
    assert row.chance == 1 / (1 + n_negatives)


@pytest.mark.parametrize(("file", "header"), [("mine.csv", True), ("mine.txt", False)])
def test_a_file_of_captions_is_scored_as_retrieval(file, header, folder, tiny_clip) -> None:
    path = folder / file
    pairs = [(f"{color}.png", f"a {color} wall, {n}") for color in COLORS for n in range(2)]

    def evaluated(pairs: list[tuple[str, str]]) -> pd.DataFrame:
        if header:  # as CLIP_benchmark
            pd.DataFrame(pairs, columns=["filepath", "title"]).to_csv(path, index=False)
        else:  # as Flickr8k
            path.write_text(
                "".join(f"{image}#{n}\t{text} .\n" for n, (image, text) in enumerate(pairs))
            )
        return cae_bench.evaluate_file(lambda: tiny_clip, path)

    table = evaluated(pairs)
    pd.testing.assert_frame_equal(evaluated(pairs[::2] + pairs[1::2]), table)
    assert table["metric"].tolist() == [
        f"{way}, R@{k}" for way in ("image to text", "text to image") for k in (1, 5, 10)
    ]
    assert (table["n_used"] == 8).all() and table["value"].between(0, 1).all()
    assert table["value"].tolist()[-2:] == [1.0, 1.0], "of four images, the true one is in five"


def test_rows_that_cannot_be_used_are_printed_and_counted(folder, tiny_clip, capsys) -> None:
    path, lost = folder / "mine.json", {"image": "no.png", "caption": "a", "negative": "b"}
    path.write_text(json.dumps([*rows("image", "caption", "negative"), lost]))
    (row,) = cae_bench.evaluate_file(tiny_clip, path).itertuples()
    assert (row.n_used, row.n_expected) == (4, 5)
    assert re.search("row 4: its image .*no.png is missing", capsys.readouterr().out)
    elsewhere = shutil.copy(path, folder.parent / "mine.json")
    with pytest.raises(DataError, match="red.png is missing.*--images"):
        cae_bench.evaluate_file(tiny_clip, elsewhere)
    assert len(cae_bench.evaluate_file(tiny_clip, elsewhere, folder)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"picture": "red.png", "caption": "a", "negative": "b"}], "name it image, filepath"),
        ([{"image": "red.png", "negative": "b"}], "no column for the caption"),
        ([{"image": "red.png", "caption": "a", "negative": 3}], "a text was expected"),
        ([{"image": "red.png", "caption": "a", "negative": []}], "1 texts or more|a text was"),
        (["red.png"], "no column for the image|NAME#NUMBER"),
    ],
)
def test_a_wrong_file_names_the_row_and_what_was_expected(content, message, folder, tiny_clip):
    path = folder / "mine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        cae_bench.evaluate_file(tiny_clip, path)
    assert "row 0" in str(caught.value)


def test_the_command_scores_a_file(folder, home, capsys) -> None:
    path, weights = folder / "mine.json", save_random(home / "own", seed=3)
    path.write_text(json.dumps(rows("image", "caption", "negative")))
    assert main(["evaluate", "clip-mini:none", "--data", str(path)]) == 2, "no such model"
    assert main(["evaluate", str(weights), "--data", str(path), "-o", str(home)]) == 0
    assert "mine/all" in capsys.readouterr().out
    assert (home / f"{weights.stem}.csv").is_file()
