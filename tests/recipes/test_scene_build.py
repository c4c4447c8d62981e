import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from toys import TINY as SMALLEST

from cae_lib.errors import DataError
from data.recipes.datasets import Dataset, stored_key, write_datasets
from data.recipes.synthetic_scenes import build as module
from data.recipes.synthetic_scenes.build import build, build_world
from data.recipes.synthetic_scenes.config import COCO, PARTS, WEB, WORLDS, Sizes
from data.recipes.synthetic_scenes.scenes import SceneConfig

TINY = replace(SMALLEST, sizes=replace(SMALLEST.sizes, pretrain=5, pretrain_captions=2))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_world(TINY, tmp_path_factory.mktemp("raw") / "world-tiny", pretrain=True)


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def manifest(root: Path) -> dict[str, Any]:
    return json.loads((root / "manifest.json").read_text(encoding="utf-8"))


def test_the_manifest_describes_the_folder_which_is_the_same_each_time(tiny, tmp_path):
    names, content = contents(tiny), manifest(tiny)
    assert contents(build_world(TINY, tmp_path / "world-tiny", pretrain=True)) == names
    assert content["key"] == TINY.key()
    assert content["counts"]["coco"]["train"] == {"pictures": 5, "captions": 10}
    assert content["counts"]["order"] == {"coco": 2, "flickr30k": 4}
    assert content["sha256"].items() <= names.items()
    texts = {name for name in names if name[-4:] not in (".jpg", ".png")}
    own = {name for name in texts if not name.startswith(("pretrain/", "senteval/"))}
    assert own == {*content["sha256"], "manifest.json"}
    assert content["pictures"] + 5 == len(names) - len(texts)
    assert manifest(tiny / "pretrain")["counts"]["pretrain"] == {"pictures": 5, "captions": 10}


def test_a_complete_folder_is_left_alone(smoke_world, monkeypatch):
    monkeypatch.setattr(module, "_write", None)
    assert build("smoke", root=smoke_world.parent) == smoke_world
    assert not (smoke_world / "pretrain").exists()  # which is built on request only


@pytest.mark.parametrize(
    ("change", "built"),
    [
        ({"sizes": replace(TINY.sizes, similarity=7)}, {"senteval"}),
        ({"sizes": replace(TINY.sizes, flickr_test=3)}, {"", "senteval"}),
        ({"scenes": SceneConfig(seed=1)}, {"", "senteval", "pretrain"}),
    ],
)
def test_another_configuration_replaces_what_it_changes(change, built, tiny, tmp_path):
    other = replace(TINY, **change)
    target = Path(shutil.copytree(tiny, tmp_path / "world-tiny", symlinks=True))
    marks = {name: target / name / "old" for name in ("", "senteval", "pretrain")}
    for mark in marks.values():
        mark.touch()
    build_world(other, target)
    assert {name for name, mark in marks.items() if not mark.exists()} == built
    assert (target / "pretrain").exists() == ("pretrain" not in built)
    assert manifest(target)["key"] == other.key()
    assert manifest(target / "senteval")["key"] == other.key("similarity")
    assert [path.name for path in tmp_path.iterdir()] == ["world-tiny"]


def test_an_interrupted_build_leaves_the_old_folder(tiny, tmp_path, monkeypatch):
    target = Path(shutil.copytree(tiny, tmp_path / "world-tiny", symlinks=True))
    before = contents(target)
    monkeypatch.setattr(module, "make_datasets", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_world(replace(TINY, scenes=SceneConfig(seed=1)), target)
    assert contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["world-tiny"]


def test_the_number_of_files_is_known_before_the_first_is_written(tmp_path, capsys):
    """The bar would otherwise be full before the work is done."""
    first = Dataset("first", texts={"1.txt": "1", "2.txt": "2"})
    others = (Dataset(name, texts={f"{name}.txt": name}) for name in ("second", "third"))
    for number, dataset in enumerate(write_datasets(tmp_path, [first, *others], "sets"), 1):
        assert len([*tmp_path.iterdir()]) == number + 1, f"{dataset.name} and no other"
    lines = [line for line in capsys.readouterr().err.splitlines() if "files" in line]
    assert "0/4" in lines[0] and "4/4" in lines[-1]


def test_a_folder_without_a_whole_manifest_is_not_complete(tmp_path):
    assert stored_key(tmp_path) is None
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "manifest.json").write_text(damaged, encoding="utf-8")
        assert stored_key(tmp_path) is None


def test_a_place_that_cannot_be_written_is_explained(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written.*CAE_HOME"):
        build_world(TINY, tmp_path / "file" / "world-tiny")
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr("data.recipes.synthetic_scenes.draw.Drawing.write", full)
    with pytest.raises(DataError, match="No space left on device.*Free some disk space"):
        build_world(TINY, tmp_path / "other" / "world-tiny")
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({}, set()),
        ({"coco": replace(COCO, relation=0.1)}, {"world"}),
        ({"web": replace(WEB, relation=0.1)}, {"pretrain"}),
        ({"sizes": Sizes(pretrain=7)}, {"pretrain"}),
        ({"sizes": Sizes(similarity=7)}, {"similarity"}),
        ({"scenes": SceneConfig(seed=3)}, set(PARTS)),
    ],
)
def test_keys_cover_what_decides_the_files(change, parts, monkeypatch):
    base = WORLDS["mini"]
    assert base.key() == "0eb0a36c84c9"  # which stands in the records of every measurement
    assert {part for part in PARTS if replace(base, **change).key(part) != base.key(part)} == parts
    before = {part: base.key(part) for part in PARTS}
    monkeypatch.setattr("data.recipes.synthetic_scenes.layout.BASE_SCALE", 0.3)
    assert all(base.key(part) != before[part] for part in PARTS)
