"""Flickr8k as it is released, the datasets built of its captions, and what the trunk sees."""

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from cae_bench.benchmarks import FOLDER_OF_FAMILY, load_benchmark
from cae_bench.blind import TrigramModel
from cae_bench.similarity import load_similarity_set
from cae_lib.data.captions import (
    ImageCaptionPairs,
    load_coco_captions,
    load_negclip_tsv,
    load_retrieval_set,
)
from cae_lib.errors import DataError
from cae_lib.models.clip import load_clip
from cae_lib.models.trunk import TRUNK_FILE, TRUNK_PACKAGE
from data.recipes.photographs import build as module
from data.recipes.photographs import flickr8k, trunk
from data.recipes.photographs.single import Single
from data.recipes.photographs.versions import VERSIONS


def test_flickr8k_captions_are_read_as_people_write_them(flickr):
    splits = flickr8k.load(flickr)
    assert [len(splits[name]) for name in ("train", "dev", "test")] == [8, 2, 6]
    first = splits["train"][0]
    assert (first.number, first.path) == (100, "100_ab.jpg")
    assert first.captions[0] == "A red dog is standing on a black boy."
    assert first.captions[3] == "The dog's boy is black." and first.captions[4].count(" ,") == 0
    (flickr / "Flicker8k_Dataset" / "100_ab.jpg").unlink()
    assert len(flickr8k.load(flickr)["train"]) == 7


def test_damaged_caption_file_of_flickr8k_is_named(flickr):
    text = flickr / "Flickr8k_text" / "Flickr8k.token.txt"
    lines = text.read_text().splitlines()
    text.write_text("\n".join(lines[1:]))
    with pytest.raises(DataError, match="trainImages.txt: 100_ab.jpg has 4 captions.*5 expected"):
        flickr8k.load(flickr)
    for line in ("no caption", r"1_ab.jpg#x\tA dog", r"1_ab.jpg#0\t "):
        text.write_text("\n".join([*lines, line.replace(r"\t", "\t")]))
        with pytest.raises(DataError) as caught:
            flickr8k.load(flickr)
        assert f"token.txt, line 82: '{line}'; expected name.jpg#0" in str(caught.value)
    text.unlink()
    with pytest.raises(DataError, match="no such file. Get the official files with `cae data get"):
        flickr8k.load(flickr)


def test_trunk_sees_pixels_as_it_was_trained_to():
    """Against timm's own network on pixels from -1 to 1; the edges differ by their padding."""
    clip = load_clip("clip-photo")
    trunk.fill_trunk(clip.model)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    folder = Path(importlib.util.find_spec(TRUNK_PACKAGE).origin).parent
    stored = torch.load(folder / "models" / TRUNK_FILE, weights_only=True)
    names = [name for name in network.state_dict() if "classifier" not in name]
    network.load_state_dict(dict(zip(names, stored.values(), strict=False)))
    noise = np.random.default_rng(0).integers(0, 255, (14, 14, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((224, 224))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()[None] / 127.5 - 1
    body = clip.model.visual.trunk
    with torch.no_grad():
        expected = network.blocks[:2](network.bn1(network.conv_stem(pixels)))
        actual = body.blocks[:2](body.bn1(body.conv_stem(clip.preprocess(picture)[None])))
    inner = np.s_[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(actual[inner], expected[inner], atol=1e-3, rtol=1e-3)


def test_similar_images_are_the_nearest_other_ones():
    """Five images on a circle at 0, 10, 30, 100 and 180 degrees; the first has two captions."""
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 30.0, 100.0, 180.0]))
    paths, index = [Path(f"{i}.jpg") for i in range(5)], torch.tensor([0, 1, 2, 3, 4, 0])
    pairs = ImageCaptionPairs(paths, ["text"] * 6, index, "toy", 6, 6)
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    rows = module.similar_rows(pairs, features)
    images = [[int(index[row]) for row in similar] for similar in rows]
    assert images == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 4, 1], [3, 2, 1], [1, 2, 3]]
    assert module.nearest_rows(features, 2, chunk=3) == [[1, 2], [0, 2], [1, 0], [2, 4], [3, 2]]


def test_datasets_of_photographs_are_in_official_layouts(flickr, monkeypatch):
    root = module.build("photo")
    counts = json.loads((root / "manifest.json").read_text())["counts"]
    parts = {
        part.key: part
        for name in counts.keys() & FOLDER_OF_FAMILY.keys() - {"order"}
        for part in load_benchmark(name, root)
    }
    assert {key.partition("/")[0] for key in parts} >= {"aro", "sugarcrepe", "half_truths"}
    assert counts["sugarcrepe"]["swap_att"] == 6, "an exchange need not be hard for language"
    language = TrigramModel(c for p in flickr8k.load(flickr)["train"] for c in p.captions)
    for key, part in parts.items():
        assert part.n_used == part.n_expected
        for item in part.items:
            assert item.images[0].path.is_file() and len(set(item.texts)) == len(item.texts)
        if key.startswith("sugarcrepe/"):
            per_word = "add_" in key  # else it is always the shorter one
            likelier = [
                language.log_likelihood(a, per_word) < language.log_likelihood(b, per_word)
                for a, b in (item.texts for item in part.items)
            ]
            assert 2 * sum(likelier) == len(likelier), "language is right as often as wrong"
        if key.startswith("aro/"):
            asked = {(item.images[0].path, item.texts[1]) for item in part.items}
            assert len(asked) == len(part.items), "one exchange a caption"
            bare = [
                [re.sub("red|black|brown|white", "", text) for text in item.texts]
                for item in part.items
            ]
            assert all((a == b) == (key == "aro/attribution") for a, b in bare)
        if key == "crepe/atom":
            assert {len(item.texts) for item in part.items} == {6}
            assert {int(item.group) for item in part.items} <= set(range(4, 13))
        if key == "half_truths/flickr8k":
            assert all(item.texts[1].startswith(f"{item.texts[0]} ") for item in part.items)
    pairs = load_negclip_tsv(root / "coco" / "train_neg_clip.tsv", root)
    base = load_coco_captions(
        root / "pretrain" / "annotations" / "captions_pretrain.json", root / "pretrain" / "images"
    )
    assert (len(base.image_paths), len(pairs.image_paths)) == (6, 2)
    assert not {p.name for p in base.image_paths} & {p.name for p in pairs.image_paths}
    valid = load_negclip_tsv(root / "coco" / "valid_neg_clip.tsv", root)
    assert [path.name for path in valid.image_paths] == ["108_ab.jpg", "109_ab.jpg"]
    for row, similar in enumerate(pairs.hard_images):
        assert similar and all(pairs.image_index[row] != pairs.image_index[n] for n in similar)
    assert any(pairs.negatives)
    sentences = load_similarity_set("STS-B", root / "senteval")
    assert len(sentences.first) == 18 and (sentences.human_scores <= 5).all()
    test = load_retrieval_set("coco", root)
    assert (len(test.image_paths), test.n_used) == (6, 30)
    for part in parts.values():  # nothing is asked of a picture that was trained on
        assert {item.images[0].path.name for item in part.items} <= {
            p.name for p in test.image_paths
        } | {f"{110 + n}.jpg" for n in range(6)}
    monkeypatch.setattr(module, "replacing", Mock(side_effect=KeyboardInterrupt))
    assert module.build("photo") == root, "it is built once"
    text = flickr / "Flickr8k_text" / "Flickr8k.token.txt"
    text.write_text(text.read_text().replace("tree", "house"))
    with pytest.raises(KeyboardInterrupt):  # another caption, another set
        module.build("photo")


def test_datasets_have_the_versions_that_the_workflow_reads():
    assert {name: recipe.VERSION for name, recipe in module.RECIPES.items()} == VERSIONS


def test_recipe_gives_the_stored_datasets_of_photographs(flickr):
    """Raise the version of `Single` if the texts change, and write the new digest here."""
    root = module.build("photo")  # similar images, in .tsv, may differ on another processor
    files = [p for p in sorted(root.rglob("*")) if p.suffix in (".json", ".csv", ".txt", ".jsonl")]
    texts = b"".join(path.read_bytes() for path in files if path.name != "manifest.json")
    assert (Single.VERSION, hashlib.sha256(texts).hexdigest()[:12]) == (2, "06d81338e8d4")
