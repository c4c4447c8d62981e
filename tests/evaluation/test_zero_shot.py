"""Zero-shot classification on hand-made vectors, and on the pictures of the small world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cae_lib.data.labelled import LabelledImages, load_labelled_folder
from cae_lib.errors import DataError
from cae_lib.evaluation import zero_shot as module
from cae_lib.evaluation.embed import Encoder
from cae_lib.evaluation.zero_shot import (
    PROMPTS,
    class_ranks,
    class_vectors,
    labelled_sets,
    with_article,
    world_pictures,
    zero_shot,
)

CLASSES = ("apple", "bed", "cup")


def encoder_of(hand_encoder, pictures, classes=((1, 0), (0, 1), (-1, 0))):
    """Classes lie where they are put; both prompts of a class give its vector."""
    texts = {
        prompt.format(with_article(name)): np.array(vector, float)
        for name, vector in zip(CLASSES, classes, strict=True)
        for prompt in PROMPTS
    }
    return hand_encoder(pictures, texts)


def labelled(**labels) -> LabelledImages:
    return LabelledImages([Path(name) for name in labels], list(labels.values()), CLASSES,
                          len(labels) + 1)


def test_one_class_a_picture_is_top_k_accuracy(hand_encoder):
    near_apple = (0.8, 0.6)  # cosines .8, .6, -.8
    encoder = encoder_of(hand_encoder, {"a": near_apple, "b": near_apple, "c": near_apple})
    found = class_ranks(encoder, labelled(a=(0,), b=(1,), c=(2,)))
    assert found["rank"].tolist() == [1, 2, 3]
    assert found.label.tolist() == ["apple", "bed", "cup"] and found.picture.tolist() == [0, 1, 2]


def test_classes_of_one_picture_do_not_compete(hand_encoder):
    encoder = encoder_of(hand_encoder, {"a": (0.8, 0.6), "b": (0.8, 0.6)})
    found = class_ranks(encoder, labelled(a=(0, 1), b=(2, 1)))
    assert found["rank"].tolist() == [1, 1, 2, 2]
    assert found.label.tolist() == ["apple", "bed", "cup", "bed"]
    assert found.picture.tolist() == [0, 0, 1, 1]
    assert class_ranks(encoder, labelled(a=(0, 2)))["rank"].tolist() == [1, 2]


def test_a_tie_is_wrong(hand_encoder):
    encoder = encoder_of(hand_encoder, {"a": (1, 0)}, ((1, 0), (1, 0), (0, 1)))
    assert class_ranks(encoder, labelled(a=(0,)))["rank"].tolist() == [2]


def test_a_class_is_the_mean_of_its_prompts(hand_encoder):
    texts = {"a photo of an apple": (1.0, 0.0), "an apple": (0.0, 1.0)}
    vectors = class_vectors(hand_encoder({}, texts), ["apple"])
    np.testing.assert_allclose(vectors, [[2**-0.5, 2**-0.5]], rtol=1e-6)


def test_the_world_names_what_its_pictures_show(smoke_world, monkeypatch, tiny_clip):
    pictures = world_pictures(smoke_world, *module.WORLD_SETS["coco"])
    graphs = json.loads((smoke_world / module.WORLD_SETS["coco"][2]).read_text("utf-8"))
    gold = {image["file_name"]: {t["noun"] for t in image["things"]} for image in graphs["images"]}
    assert len(pictures.paths) == 24 and all(path.is_file() for path in pictures.paths)
    for path, labels in zip(pictures.paths, pictures.labels, strict=True):
        assert {pictures.classes[i] for i in labels} == gold[path.name] and len(labels) >= 2
    labelled_sets.cache_clear()
    monkeypatch.setattr(module, "data_root", lambda profile: smoke_world)
    found = zero_shot(Encoder(tiny_clip), "smoke")
    assert found.columns.tolist() == ["set", "picture", "label", "rank"]
    assert found.groupby("set").picture.nunique().to_dict() == {"coco": 24, "flickr30k": 16}
    assert found["rank"].between(1, len(pictures.classes)).all()
    labelled_sets.cache_clear()


def test_a_world_without_its_gold_is_refused(smoke_world, tmp_path):
    with pytest.raises(DataError, match="build the small world"):
        world_pictures(tmp_path, *module.WORLD_SETS["coco"])


def test_the_paper_profile_takes_any_labelled_set(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "data_root", lambda profile: tmp_path)
    labelled_sets.cache_clear()
    with pytest.raises(DataError, match="no set of labelled pictures. Put each set into a folder"):
        labelled_sets("paper")
    picture(tmp_path / "zero-shot" / "pets" / "tabby_cat" / "1.jpg")
    assert labelled_sets("paper")["pets"].classes == ["tabby cat"]
    labelled_sets.cache_clear()


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def test_a_folder_a_class(tmp_path):
    for name in ("b/2.png", "b/1.png", "a_c/3.jpg"):
        picture(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    found = load_labelled_folder(tmp_path)
    assert [path.name for path in found.paths] == ["3.jpg", "1.png", "2.png"]
    assert (found.classes, found.labels) == (["a c", "b"], [(0,), (1,), (1,)])


def test_a_list_of_labels(tmp_path):
    picture(tmp_path / "x" / "1.png")
    path = tmp_path / "labels.csv"
    path.write_text("image,label\nx/1.png,red_car\n")
    found = load_labelled_folder(tmp_path)
    assert (found.classes, found.labels, found.n_expected) == (["red car"], [(0,)], 1)
    path.write_text("image,label\nx/1.png,red_car\nx/2.png,bus\n")
    with pytest.raises(DataError, match="line 3: picture '2.png'"):
        load_labelled_folder(tmp_path)
    path.write_text("file,class\n")
    with pytest.raises(DataError, match="expected image, label"):
        load_labelled_folder(tmp_path)
    path.write_text("image,label\n")
    with pytest.raises(DataError, match="no labelled picture"):
        load_labelled_folder(tmp_path)
