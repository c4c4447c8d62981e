from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cae_lib.config import paths
from cae_lib.errors import ConfigError, DataError
from cae_lib.world import build as module
from cae_lib.world.build import (
    build,
    build_world,
    contact_sheet,
    manifest,
    world_root,
)
from cae_lib.world.config import COCO, PARTS, WEB, WORLDS, Sizes, WorldConfig
from cae_lib.world.draw import render
from cae_lib.world.scenes import SceneConfig, sample_scene

TINY = WorldConfig(
    sizes=Sizes(
        pretrain=5,
        pretrain_captions=2,
        train=8,
        val=4,
        test=4,
        flickr_test=2,
        captions=2,
        aro_relation=2,
        aro_attribution=2,
        winoground=2,
        sugarcrepe=2,
        vl_checklist=2,
        valse=2,
        svo_probes=1,
        crepe=4,
        similarity=6,
    )
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_world(TINY, tmp_path_factory.mktemp("raw") / "world-tiny", pretrain=True)


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_same_bytes_whatever_the_number_of_workers(tiny, tmp_path):
    again = build_world(TINY, tmp_path / "world-tiny", pretrain=True, workers=2)
    assert contents(again) == contents(tiny)
    assert len(contents(tiny)) > 60


def test_a_complete_folder_is_left_alone(smoke_world, tmp_path):
    path = smoke_world / "manifest.json"
    written = path.stat().st_mtime_ns
    started = time.perf_counter()
    assert build("smoke", root=smoke_world.parent) == smoke_world
    assert time.perf_counter() - started < 0.1
    assert path.stat().st_mtime_ns == written


def test_the_manifest_describes_the_folder(tiny):
    content = manifest(tiny)
    assert content["key"] == TINY.key()
    assert content["config"]["sizes"]["train"] == 8
    assert content["counts"]["coco"]["train"] == {"pictures": 6, "captions": 12}
    assert content["counts"]["order"] == {"coco": 8, "flickr30k": 4}
    assert "plurals" in " ".join(content["left_out"]["valse"])
    for name, digest in content["sha256"].items():
        assert hashlib.sha256((tiny / name).read_bytes()).hexdigest() == digest
    texts = {p for p in contents(tiny) if p[-4:] not in (".jpg", ".png")}
    own = {name for name in texts if not name.startswith(("pretrain/", "senteval/"))}
    assert own == {*content["sha256"], "manifest.json"}
    pictures = [name for name in contents(tiny) if name[-4:] in (".jpg", ".png")]
    assert content["pictures"] + 5 == len(pictures)


def test_the_pretraining_corpus_is_built_on_request_only(smoke_world, tiny):
    assert not (smoke_world / "pretrain").exists()
    assert manifest(tiny / "pretrain")["counts"]["pretrain"] == {"pictures": 5, "captions": 10}
    captions = json.loads((tiny / "pretrain/annotations/captions_pretrain.json").read_text("utf-8"))
    for image in captions["images"]:
        assert (tiny / "pretrain/images" / image["file_name"]).is_file()


def test_the_similarity_sets_are_a_folder_of_their_own_with_their_own_key(tmp_path):
    target = build_world(TINY, tmp_path / "world-tiny")
    before = contents(target)
    assert manifest(target / "senteval")["key"] == TINY.key("similarity")
    other = replace(TINY, sizes=replace(TINY.sizes, similarity=7))
    assert other.key() == TINY.key() and other.key("pretrain") == TINY.key("pretrain")
    build_world(other, target)
    after = contents(target)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed and all(name.startswith("senteval/") for name in changed)
    assert manifest(target / "senteval")["counts"]["similarity"]["STS-B/test"] == 7


def test_worlds_built_before_the_similarity_sets_are_still_complete():
    """Their keys are part of the records of every measurement."""
    assert {name: config.key() for name, config in WORLDS.items()} == {
        "smoke": "b7afe5b1eb30",
        "mini": "4f07edbf489e",
    }


def test_another_configuration_replaces_the_folder_and_keeps_the_corpus(tmp_path):
    target = build_world(TINY, tmp_path / "world-tiny", pretrain=True)
    corpus = target / "pretrain/manifest.json"
    written = corpus.stat().st_mtime_ns
    other = replace(TINY, sizes=replace(TINY.sizes, flickr_test=3))
    build_world(other, target)
    assert manifest(target)["key"] == other.key()
    assert len(list((target / "flickr30k/flickr30k-images").iterdir())) == 3
    assert corpus.stat().st_mtime_ns == written
    build_world(replace(other, scenes=SceneConfig(seed=1)), target)
    assert not corpus.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["world-tiny"]


def test_an_interrupted_build_leaves_the_old_folder_and_starts_again(tmp_path, monkeypatch):
    target = build_world(TINY, tmp_path / "world-tiny")
    before = contents(target)
    other = replace(TINY, scenes=SceneConfig(seed=1))

    def interrupt(config):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "export_flickr30k", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_world(other, target)
    assert contents(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["world-tiny"]
    build_world(other, target)
    assert manifest(target)["key"] == other.key()


def test_a_folder_without_manifest_is_not_complete(tmp_path):
    target = tmp_path / "world-tiny"
    target.mkdir()
    (target / "leftover.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="not built here; run `cae world build --profile tiny`"):
        manifest(target)
    build_world(TINY, target)
    assert not (target / "leftover.txt").exists()
    (target / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="Remove the folder"):
        manifest(target)


def test_a_place_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written.*CAE_HOME"):
        build_world(TINY, tmp_path / "file" / "world-tiny")


def test_a_full_disk_is_explained(tmp_path, monkeypatch):
    def full(picture, root):
        raise OSError(28, "No space left on device", str(root))

    monkeypatch.setattr("cae_lib.world.export.Picture.write", full)
    with pytest.raises(DataError, match="No space left on device.*Free some disk space"):
        build_world(TINY, tmp_path / "world-tiny")
    assert list(tmp_path.iterdir()) == []


def test_where_worlds_lie(home):
    assert world_root("smoke") == paths().raw / "world-smoke"
    assert world_root("mini", home) == home / "world-mini"
    with pytest.raises(ConfigError, match="'paper' has no small world: expected one of smoke"):
        build("paper")


def test_keys_cover_what_decides_the_files(monkeypatch):
    base = WORLDS["mini"]

    def changed(other: WorldConfig) -> set[str]:
        return {part for part in PARTS if other.key(part) != base.key(part)}

    assert changed(WorldConfig()) == set() and len(base.key()) == 12
    assert changed(replace(base, coco=replace(COCO, relation=0.1))) == {"world"}
    assert changed(replace(base, web=replace(WEB, relation=0.1))) == {"pretrain"}
    assert changed(replace(base, sizes=replace(base.sizes, pretrain=7))) == {"pretrain"}
    assert changed(replace(base, scenes=SceneConfig(seed=3))) == set(PARTS)
    before = {part: base.key(part) for part in PARTS}
    monkeypatch.setattr("cae_lib.world.layout.BASE_SCALE", 0.3)
    assert all(base.key(part) != before[part] for part in PARTS)


def test_contact_sheet_shows_the_first_test_scenes(tmp_path):
    path = contact_sheet("smoke", tmp_path / "sheet.png", 4)
    sheet = np.asarray(Image.open(path)).astype(float)
    first = render(sample_scene(SceneConfig(), "test", 0))
    enlarged = np.asarray(first.resize((224, 224), Image.Resampling.BICUBIC)).astype(float)
    assert np.array_equal(sheet[10:234, 10:234], enlarged)
    assert (sheet[236:] == 0).any()  # text below
    with pytest.raises(DataError, match="cannot be written.*Name a .png file"):
        contact_sheet("smoke", tmp_path / "sheet.unknown", 2)
