"""The page on the paper's setting: its commands exist, and fetch what the commands need."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cae_lib.cli import build_parser
from cae_lib.config import PROFILES
from cae_lib.data.source_list import load_sources
from cae_lib.records import Record, save_record
from cae_lib.report import paper_scale as page

PAGE = Path(__file__).resolve().parents[2] / "book" / "experiments" / "paper-scale.md"
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = [line for line in LINES if not line.startswith("make ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str):
    words = shlex.split(line, comments=True)
    start = words.index("cae_lib.cli") if words[0] == "torchrun" else 0
    parsed = build_parser().parse_args(words[start + 1 :])
    assert getattr(parsed, "profile", "paper") == "paper"
    if words[start + 1] in ("train", "export"):
        assert parsed.name in PROFILES["paper"].methods
    if words[start + 1] == "run":
        assert (PAGE.parent / f"{parsed.name}.md").is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_one_call_of_make_trains_and_measures_a_row():
    (line,) = (line for line in LINES if line.startswith("make "))
    dry = [*shlex.split(line), "-n", "-C", str(PAGE.parents[2])]
    planned = subprocess.run(dry, capture_output=True, text=True, check=True).stdout
    calls = [shlex.split(text) for text in planned.splitlines() if "/cae " in text]
    assert [words[1] for words in calls] == ["train", "evaluate"]
    for words in calls:
        parsed = build_parser().parse_args(words[1:])
        assert (parsed.name, parsed.seed, parsed.profile) == ("cae-attention", 0, "paper")


def test_what_is_fetched_is_what_the_tables_need():
    fetched = [name for line in COMMANDS if line.startswith("cae data get")
               for name in line.split()[3:]]  # fmt: skip
    needed = [name for name, uses in page.uses().items() if uses not in ([], ["beside the tables"])]
    assert sorted(fetched) == sorted(needed)


def test_shared_pictures_serve_what_needs_them():
    uses = page.uses()
    assert uses["openai-vit-b-32"] == ["start"] and uses["clip-cae"] == []
    assert uses["coco-val2014"] == ["training", "Table 1", "Table 3"]
    assert uses["visual-genome"] == ["Table 1"] and uses["whatsup"] == ["beside the tables"]
    rows = {row[0]: row for row in page.downloads_table().rows}
    assert list(rows) == [f"`{name}`" for name in load_sources()]
    assert rows["`winoground`"][-1].endswith("after accepting terms")


def test_sizes_and_hours_are_sums():
    sources = load_sources()
    training = sum(sources[name].gb for name in ("coco-train2014", "coco-val2014",
                                                 "negclip-captions"))  # fmt: skip
    assert f"training takes {training:.0f} GB" in page.disk_text().source
    n = len(PROFILES["paper"].methods) * PROFILES["paper"].seeds
    assert f"{n} trainings at that price are about {0.8 * n:.0f} hours" in page.hours_text().source


def test_expected_numbers():
    rows = {row[0]: row[1:] for row in page.expected_table().rows}
    assert rows["ARO-R"] == ["58.7", "64.3", "0.40", "69.5", "80.4"]
    assert rows["Winoground"] == ["–", "5.5", "–", "8.0", "–"]
    assert ["STS-B", "Pearson", "59.1", "64.0", "65.2"] in page.expected_similarity_table().rows


def test_progress_counts_seeds(home):
    assert "Nothing of the profile" in page.progress_text().source
    for seed in (0, 2):
        save_record(Record(f"clip-ft/{seed}/retrieval", "0" * 12, {}, {}, {}), "paper")
    table = page.progress_table()
    rows = {row[0]: dict(zip(table.header[1:], row[1:], strict=True)) for row in table.rows}
    assert rows["CLIP-FT"]["retrieval"] == "2 of 3" and rows["CLIP"]["retrieval"] == "0 of 1"
    assert rows["NegCLIP"]["retrieval"] == "–" and rows["NegCLIP"]["phrases"] == "0 of 3"
    assert page.progress_text().source.startswith("2 records")
