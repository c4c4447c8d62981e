"""What a stranger calls of the packages, and nothing deeper."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import cae_bench
from cae_bench.benchmarks import BENCHMARK_FAMILIES, FOLDER_OF_FAMILY, Family, ImageRef, Item
from cae_lab.profiles import load_profile
from cae_lib.data.rows import json_rows
from cae_lib.errors import ConfigError, DataError


def test_a_model_or_what_opens_one_is_scored(smoke_world, home, tiny_clip) -> None:
    (home / "data").mkdir()
    (home / "data" / "raw").symlink_to(Path(smoke_world).parent)
    smoke = load_profile("smoke").datasets
    table = cae_bench.evaluate(tiny_clip, "sugarcrepe", datasets=smoke)
    assert {*table["dataset"].str.partition("/")[0]} == {"sugarcrepe"}
    assert (table["n_used"] == table["n_expected"]).all() and table["value"].between(0, 1).all()
    assert cae_bench.evaluate(lambda: tiny_clip, "sugarcrepe", datasets=smoke).equals(table)


def test_the_files_of_a_family_are_read_in_each_call(smoke_world, home, tiny_clip, monkeypatch):
    folder = home / "data" / "raw" / "mine"
    folder.mkdir(parents=True)
    (folder.parent / Path(smoke_world).name).symlink_to(smoke_world)
    Image.new("RGB", (32, 32)).save(folder / "a.png")

    def read(root: Path, subset: str) -> Iterator[Item]:
        for row in json_rows(root / "mine/all.json"):
            yield Item(row.key, (ImageRef(root / "mine/a.png"),), (row.text("0"), row.text("1")))

    mine = Family("mine", "mine", read, {"all": None}, ("mine/all.json",), "in mine/")
    monkeypatch.setitem(BENCHMARK_FAMILIES, "mine", mine)
    monkeypatch.setitem(FOLDER_OF_FAMILY, "mine", "mine")
    for n in (2, 1):
        (folder / "all.json").write_text(json.dumps([["a cat", "a dog"]] * n), encoding="utf-8")
        assert cae_bench.evaluate(tiny_clip, "mine")["n_used"].tolist() == [n]
    with pytest.raises(ConfigError, match="no benchmark mine"):
        cae_bench.evaluate(tiny_clip, "mine", datasets=load_profile("smoke").datasets)
    (folder / "all.json").unlink()
    with pytest.raises(DataError, match="cae data get mine"):
        cae_bench.evaluate(tiny_clip, "mine")


@pytest.mark.parametrize("items", [None, [], pd.DataFrame(), pd.DataFrame({"family": ["aro"]})])
def test_weights_are_of_a_table_of_items(items) -> None:
    with pytest.raises(DataError, match="stratum"):
        cae_bench.score_weights(items)
