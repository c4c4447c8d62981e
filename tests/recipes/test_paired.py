"""Paired photographs: images, captions, balance of the items, and the pool that learns."""

import hashlib
import json
import unittest.mock
from collections import Counter
from pathlib import Path

import job
import numpy as np
import pytest
import torch
from PIL import Image

from cae_bench.benchmarks import load_benchmark
from cae_bench.blind import blind_answers, text_only_baselines
from cae_lab import grid, results
from cae_lab.profiles import load_profile
from cae_lib.data.captions import load_coco_captions, load_negclip_tsv, load_retrieval_set
from cae_lib.models.clip import load_clip
from data.recipes.photographs import paired, pool
from data.recipes.photographs.build import build
from data.recipes.photographs.pairs import Composite, Pair, Photograph, Phrase
from data.recipes.photographs.trunk import fill_trunk

DOG, BALL = Phrase("a brown dog", "dog", "brown"), Phrase("an orange ball", "ball", "orange")


def photograph(number, *lemmas, folder=Path()):
    return Photograph(number, folder / f"{number}_ab.jpg", (), (), frozenset(lemmas))


@pytest.mark.parametrize(
    ("upright", "axis", "name"), [(False, 1, "1_left_2.jpg"), (True, 0, "1_above_2.jpg")]
)
def test_photograph_stands_in_its_half(upright, axis, name, tmp_path):
    for number, color in ((1, "red"), (2, "blue")):
        Image.new("RGB", (64, 48), color).save(tmp_path / f"{number}_ab.jpg")
    first, second = (photograph(number, folder=tmp_path) for number in (1, 2))
    composite = Composite(Pair(DOG, first, BALL, second), upright)
    assert composite.name == name
    composite.write(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        pixels = np.asarray(image).astype(int)
    assert pixels.shape == (224, 224, 3)
    for half, channel in zip(np.split(pixels, 2, axis), (0, 2), strict=True):
        assert half[..., channel].min() > 160 and half[..., 2 - channel].max() < 90


def base_captions(root):
    folder = root / "pretrain"
    return load_coco_captions(folder / "annotations/captions_pretrain.json", folder / "images")


def test_text_alone_is_right_in_half_of_the_items(few):
    root = build("paired")
    counts = json.loads((root / "manifest.json").read_text())["counts"]
    benchmarks = load_benchmark("aro", root)
    assert {part.subset: part.n_used for part in benchmarks} == counts["aro"]
    train = load_negclip_tsv(root / "coco" / "train_neg_clip.tsv", root)
    for part in benchmarks:
        assert part.n_used and all(item.images[0].path.is_file() for item in part.items)
        true, false = (Counter(item.texts[k] for item in part.items) for k in (1, 0))
        assert true == false, "each true caption is the false one of its mirror"
        bags = [sorted(text.split()) for item in part.items for text in item.texts]
        assert bags[::2] == bags[1::2] and not any(a == b for a, b in (i.texts for i in part.items))
        orders = Counter(item.texts[1].partition(" to the ")[2][:4] for item in part.items)
        assert orders["left"] == orders["righ"]
        blind = blind_answers([part], text_only_baselines(train.captions))
        assert (blind.groupby("chooser")["share"].mean() == 0.5).all()


def test_splits_of_paired_photographs_share_no_photograph_and_no_pair_of_phrases(few):
    root = build("paired")
    train, valid = (
        load_negclip_tsv(root / f"coco/{name}_neg_clip.tsv", root) for name in ("train", "valid")
    )
    test, base = load_retrieval_set("coco", root), base_captions(root)
    items = [item for part in load_benchmark("aro", root) for item in part.items]
    assert {path.name for path in test.image_paths} == {i.images[0].path.name for i in items}
    sides = [
        {number for path in some.image_paths for number in path.stem.split("_")[::2]}
        for some in (base, train, valid, test)
    ]
    assert sum(map(len, sides)) == len(set().union(*sides)), "no photograph is in two splits"
    for text, false in zip(train.captions, train.negatives, strict=True):
        first, relation, second = split(text)
        assert false[0] == f"{second}{relation}{first}"
        for adjectives in false[1:]:
            assert sorted(adjectives.split()) == sorted(text.split()) and adjectives != false[0]
    joined = {frozenset(text.split(" and ")) for text in base.captions}
    joined |= {frozenset(split(text)[::2]) for text in train.captions}
    assert not joined & {frozenset(split(text)[::2]) for text in test.captions}
    assert all(train.hard_images)
    with unittest.mock.patch("data.recipes.photographs.build.replacing") as written:
        assert build("paired") == root and not written.called, "it is built once"


def test_items_are_drawn_anew_for_the_same_training(few):
    first, again = build("paired"), build("redrawn")
    for name in ("coco/train_neg_clip.tsv", "coco/valid_neg_clip.tsv", paired.SEEN):
        assert (first / name).read_bytes() == (again / name).read_bytes()
    train = load_negclip_tsv(again / "coco" / "train_neg_clip.tsv", again)
    texts = [*train.captions, *base_captions(again).captions]
    before, after = (
        {
            frozenset(split(text)[::2])
            for part in load_benchmark("aro", root)
            for item in part.items
            for text in item.texts[1:]
        }
        for root in (first, again)
    )
    assert after and not after & before
    assert not after & {frozenset(split(text)[::2]) for text in train.captions}
    assert not after & {frozenset(text.split(" and ")) for text in texts}
    words = {word for text in texts for word in text.split()}
    assert words.issuperset(word for both in after for text in both for word in text.split())


def test_recipe_gives_the_stored_datasets_of_pairs(few):
    """Raise the version of `Paired` if images or captions change; write the new digests here."""
    root = build("paired")
    rows = load_negclip_tsv(root / "coco" / "train_neg_clip.tsv", root)
    names = [path.name for path in rows.image_paths]
    items = [
        [item.images[0].path.name, *item.texts]
        for part in load_benchmark("aro", root)
        for item in part.items
    ]
    digest = hashlib.sha256(json.dumps([rows.captions, rows.negatives, names, items]).encode())
    with Image.open(rows.image_paths[0]) as image:
        pixels = np.asarray(image).mean(axis=(0, 1)).round().tolist()
    expected = 1, "2f2684056e04", [135, 119, 127]
    assert (paired.Paired.VERSION, digest.hexdigest()[:12]) == expected[:2]
    assert np.abs(np.subtract(pixels, expected[2])).max() <= 1, "JPEG decoders round differently"


def split(text):
    """First phrase, relation with its spaces, second phrase of a caption."""
    words = next(f" {w} " for w in paired.RELATIONS.values() if f" {w} " in text)
    first, _, second = text.partition(words)
    return first, words, second


@pytest.mark.slow
def test_base_of_pairs_learns_places_then_captions_and_is_measured(few, short, monkeypatch):
    monkeypatch.setattr(pool, "BATCH", 4)
    short("paired", {"clip-ft": {}}, tower_steps=2, precision="fp32")
    selection = grid.parse_selection(load_profile("paired"), {"runs": "clip-ft"})
    job.make_data(selection.profile)
    job.make_base(selection)
    start = load_clip("clip-photo", load_profile("paired").run("base").path).model
    untrained = load_clip("clip-photo").model
    fill_trunk(untrained)
    for name, value in untrained.visual.trunk.state_dict().items():
        assert torch.equal(start.visual.trunk.state_dict()[name], value.half().to(value.dtype))
    drawn = untrained.visual.head.pool.pos_embed * pool.POSITIONS
    moved = (start.visual.head.pool.pos_embed - drawn).abs().max()
    assert 0 < moved < 0.1, "the pool starts from large positions, and is trained"
    measures = set(results.load("base_training", "paired", ["base"])["measure"])
    assert {"probe_first", "probe_second", "probe_order", "relation"} <= measures
    for run in grid.planned_runs(selection).values():
        job.train_and_measure(run, selection.studies)
    answers = results.load("benchmarks", "paired", ["base", "clip-ft"], 1)
    assert set(answers.family) == {"aro", "order"}


def test_pool_is_its_own_forward():
    head = load_clip("clip-photo").model.visual.head
    grids = torch.randn(2, 1280, 7, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.pool.pos_embed.mul_(20)
        torch.testing.assert_close(pool.pooled(head.pool, grids), head(grids), atol=1e-5, rtol=1e-4)


def test_pool_learns_what_is_where(monkeypatch):
    """Two kinds of photographs, told by one channel each, in random places."""
    monkeypatch.setattr(pool, "BATCH", 16)
    monkeypatch.setattr(pool, "LR", 1e-2)
    net, rng = load_clip("clip-photo").model.visual.head.pool, torch.Generator().manual_seed(0)
    first, upright = torch.randint(2, (64,), generator=rng), torch.arange(64) % 2
    nouns = torch.stack([first, 1 - first], 1)
    grids = torch.zeros(64, 1280, 7, 7, dtype=torch.float16)
    for n in range(64):
        for side, half in enumerate((slice(0, 3), slice(4, 7))):
            where = (half, slice(None)) if upright[n] else (slice(None), half)
            channels = slice(0, 640) if nouns[n, side] == 0 else slice(640, 1280)
            grids[n, channels][:, *where] = 1.0
    seen = pool.Images(
        grids,
        torch.stack([2 * upright, 2 * upright + 1], 1),
        torch.nn.functional.one_hot(nouns, 2).float(),
        nouns,
    )
    heads = pool.learn(net, seen, 40, 0)
    assert pool.measure_heads(net, heads, seen)["probe_order"] > 0.9
    wrong = pool.measure_heads(net, heads, seen._replace(nouns=nouns.flip(1)))
    assert wrong["probe_order"] < 0.1
