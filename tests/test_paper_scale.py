"""The page on the paper's setting: its commands exist, and fetch what the tables need."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest
from conftest import REPOSITORY

from cae_lib.cli import build_parser
from cae_lib.config import PROFILES
from cae_lib.data.sources import load_sources
from cae_lib.pages.source import read_page

PAGE = REPOSITORY / "book" / "experiments" / "paper-scale.md"
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = [line for line in LINES if not line.startswith("make ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str) -> None:
    words = shlex.split(line, comments=True)
    start = words.index("cae_lib.cli") if words[0] == "torchrun" else 0
    parsed = build_parser().parse_args(words[start + 1 :])
    assert getattr(parsed, "profile", "paper") == "paper"
    if words[start + 1] in ("train", "export"):
        assert parsed.name in PROFILES["paper"].methods
    if words[start + 1] == "run":
        assert (PAGE.parent / f"{parsed.name}.md").is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_one_call_of_make_trains_and_measures_a_row() -> None:
    (line,) = (line for line in LINES if line.startswith("make "))
    dry = [*shlex.split(line), "-n", "-C", str(REPOSITORY)]
    planned = subprocess.run(dry, capture_output=True, text=True, check=True).stdout
    calls = [shlex.split(text)[1:] for text in planned.splitlines() if "/cae " in text]
    assert [words[0] for words in calls] == ["train", "evaluate"]
    for words in calls:
        parsed = build_parser().parse_args(words)
        assert (parsed.name, parsed.seed, parsed.profile) == ("cae-attention", 0, "paper")


def test_the_table_names_what_is_fetched() -> None:
    """Shared pictures serve whatever shows them; what no table reads is left out."""
    page: dict = {}
    for cell in read_page(PAGE).cells:
        if cell.cell_type == "code" and "provenance" not in cell.metadata.get("tags", []):
            exec(compile(cell.source, PAGE.name, "exec"), page)
    served, wanted = page["served"], page["wanted"]
    fetched = [name for line in COMMANDS if line.startswith("cae data get")
               for name in line.split()[3:]]
    assert sorted(fetched) == sorted(name for name in served if served[name])
    assert served["coco-val2014"] == ["training", "Table 1", "Table 3"]
    assert served["visual-genome"] == ["Table 1"] and served["clip-cae"] == []
    assert wanted.loc["<code>winoground</code>", "accept terms"] == "yes"
    known = [load_sources()[name].gb for name in fetched]
    assert len(wanted) == len(fetched)
    assert wanted["GB"].sum() == pytest.approx(sum(filter(None, known)))
