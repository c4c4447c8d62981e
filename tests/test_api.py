"""What a stranger calls: `import cae_lib as cae`, and nothing deeper."""

import json
from pathlib import Path

import pytest
from PIL import Image

import cae_lib as cae
from cae_lib.data.benchmarks import LAYOUTS
from cae_lib.data.benchmarks.entry import Layout
from cae_lib.errors import ConfigError, DataError


def test_scores_of_a_model_are_those_of_its_stored_answers(smoke_world, home, tiny_clip) -> None:
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(Path(smoke_world).parent)
    table = cae.evaluate(tiny_clip, "sugarcrepe", profile="smoke")
    assert {*table["dataset"].str.partition("/")[0]} == {"sugarcrepe"}
    assert (table["n_used"] == table["n_expected"]).all() and table["value"].between(0, 1).all()
    opened = cae.evaluate(lambda: tiny_clip, "sugarcrepe", profile="smoke")
    assert opened.equals(table)
    with pytest.raises(ConfigError, match="sugarcrape.*Known: aro"):
        cae.evaluate(tiny_clip, "sugarcrape", profile="smoke")


def test_an_entry_is_looked_at_and_its_files_are_read_in_each_call(smoke_world, home, tiny_clip,
                                                                   monkeypatch):
    folder = home / "data" / "raw" / "mine"
    (folder / "images").mkdir(parents=True)
    (folder.parent / Path(smoke_world).name).symlink_to(smoke_world)
    Image.new("RGB", (32, 32)).save(folder / "images" / "a.png")
    rows = [{"picture": "a.png", "caption": "a cat", "false": "a dog"}] * 2
    mine = Layout("mine", {"all": None}, "mine", "{file}.json", columns="picture caption false")
    monkeypatch.setitem(LAYOUTS, "mine", mine)
    for module in ("cae_lib.data.benchmarks", "cae_lib.evaluation.datasets"):
        monkeypatch.setitem(__import__(module, fromlist=["FOLDERS"]).FOLDERS, "mine", "mine")
    monkeypatch.setitem(cae.commands.scores.datasets.FAMILIES, "mine", ())
    for n in (2, 1):
        (folder / "all.json").write_text(json.dumps(rows[:n]), encoding="utf-8")
        assert cae.evaluate(tiny_clip, "mine")["n_used"].tolist() == [n]
    with pytest.raises(ConfigError, match="mine is no set of the profile smoke: give --profile"):
        cae.evaluate(tiny_clip, "mine", profile="smoke")
    monkeypatch.setitem(LAYOUTS, "mine", Layout("mine", {"all": None}, "mine", "{file}.json"))
    with pytest.raises(DataError, match="LAYOUTS"):
        cae.evaluate(tiny_clip, "mine")
