"""The folder of a small world: what is built anew, and what is left alone."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from toys import TINY as SMALLEST

from cae_lib.errors import DataError
from data.recipes.datasets import stored_key
from data.recipes.synthetic_scenes import build as module
from data.recipes.synthetic_scenes.build import build, build_world
from data.recipes.synthetic_scenes.config import COCO, PARTS, WEB, WORLDS, Sizes
from data.recipes.synthetic_scenes.scenes import SceneConfig

TINY = replace(SMALLEST, sizes=replace(SMALLEST.sizes, pretrain=5, pretrain_captions=2))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_world(TINY, tmp_path_factory.mktemp("raw") / "world-tiny", pretrain=True)


def file_digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_recipe_gives_the_stored_texts(smoke_world, tiny):
    """Raise the version of what changes in config.py, and write the new digest here."""
    digests = {}
    for folder, part in ((smoke_world, ""), (tiny, "senteval"), (tiny, "pretrain")):
        manifest = json.loads((folder / part / "manifest.json").read_text(encoding="utf-8"))
        texts = json.dumps(sorted(manifest["sha256"].items())).encode()
        digests[part] = hashlib.sha256(texts).hexdigest()[:12]
    assert digests == {"": "f09d6f53a1ef", "senteval": "6a0c7d3abdf0", "pretrain": "516162f2ce45"}


def test_complete_folder_is_left_alone(smoke_world, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_write", None)
    assert build("smoke", root=smoke_world.parent) == smoke_world
    assert not (smoke_world / "pretrain").exists()  # which is built on request only
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "manifest.json").write_text(damaged, encoding="utf-8")
        assert stored_key(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "built"),
    [
        ({"sizes": replace(TINY.sizes, similarity=7)}, {"senteval"}),
        ({"sizes": replace(TINY.sizes, flickr_test=3)}, {"", "senteval"}),
        ({"scenes": SceneConfig(seed=1)}, {"", "senteval", "pretrain"}),
    ],
)
def test_other_configuration_replaces_what_it_changes(change, built, tiny, tmp_path):
    other = replace(TINY, **change)
    target = Path(shutil.copytree(tiny, tmp_path / "world-tiny", symlinks=True))
    marks = {name: target / name / "old" for name in ("", "senteval", "pretrain")}
    for mark in marks.values():
        mark.touch()
    build_world(other, target)
    assert {name for name, mark in marks.items() if not mark.exists()} == built
    assert (target / "pretrain").exists() == ("pretrain" not in built)
    assert stored_key(target) == other.key()
    assert stored_key(target / "senteval") == other.key("similarity")
    assert [path.name for path in tmp_path.iterdir()] == ["world-tiny"]


def test_interrupted_build_leaves_the_old_folder(tiny, tmp_path, monkeypatch):
    target = Path(shutil.copytree(tiny, tmp_path / "world-tiny", symlinks=True))
    before = file_digests(target)
    monkeypatch.setattr(module, "make_datasets", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_world(replace(TINY, scenes=SceneConfig(seed=1)), target)
    assert file_digests(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["world-tiny"]


def test_place_that_cannot_be_written_is_explained(tmp_path, monkeypatch):
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
def test_key_of_a_part_covers_what_decides_its_files(change, parts, monkeypatch):
    base = WORLDS["mini"]
    assert base.key() == "0eb0a36c84c9"  # which stands in the records of every measurement
    assert {part for part in PARTS if replace(base, **change).key(part) != base.key(part)} == parts
    before = {part: base.key(part) for part in PARTS}
    monkeypatch.setattr("data.recipes.synthetic_scenes.layout.BASE_SCALE", 0.3)
    assert all(base.key(part) != before[part] for part in PARTS)
