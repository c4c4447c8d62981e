"""Photographs side by side: pictures, captions, balance of the items, and the pool that learns."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from cae_lib import results, runs
from cae_lib.commands import perform
from cae_lib.config import PROFILES
from cae_lib.data.benchmarks import load_benchmark
from cae_lib.data.captions import load_coco_captions, load_negclip_tsv, load_retrieval_set
from cae_lib.data.layouts import Captioned
from cae_lib.errors import DataError
from cae_lib.evaluation.blind import blind_answers, text_choosers
from cae_lib.grid import Choice, grid
from cae_lib.models.clip import load_clip
from cae_lib.photo import pairs, pool
from cae_lib.photo.build import name_similar
from cae_lib.photo.pairs import Composite, Pair, Photograph, Phrase
from cae_lib.photo.trunk import fill_trunk

DOG, BALL = Phrase("a brown dog", "dog", "brown"), Phrase("an orange ball", "ball", "orange")
SHOWN, COLORS = ("dog", "man", "car"), ("white", "black", "red", "green")


@pytest.fixture
def few(flickr, monkeypatch):
    """Forty-eight pictures, each of one thing in one colour, the test's in two, and few composites
    of them."""
    texts, lines, names = flickr / "Flickr8k_text", [], []
    for n in range(48):
        names.append(f"{500 + n}_cd.jpg")
        color, noun = COLORS[n // 3 % (4 if n < 36 else 2)], SHOWN[n % 3]
        Image.new("RGB", (224, 224), (5 * n, 0, 0)).save(flickr / "Flicker8k_Dataset" / names[-1])
        lines += [f"{names[-1]}#{k}\tA {color} {noun} is here ." for k in range(5)]
    (texts / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for split, chosen in (("train", names[:24]), ("dev", names[24:36]), ("test", names[36:])):
        (texts / f"Flickr_8k.{split}Images.txt").write_text("\n".join(chosen) + "\n")
    monkeypatch.setattr(pairs, "PICTURES", {"pretrain": 24, "train": 12, "valid": 12})
    monkeypatch.setattr(pairs, "TEST", 4)
    monkeypatch.setattr(pairs.foils.Vocabulary, "may_be_said_too", lambda *_: False)
    return flickr


def photograph(number, *phrases, said=()):
    return Photograph(number, f"{number}_ab.jpg", phrases, phrases, frozenset(said))


def test_a_photograph_stands_in_its_half(tmp_path):
    for number, color in ((1, "red"), (2, "blue")):
        Image.new("RGB", (64, 48), color).save(tmp_path / f"{number}_ab.jpg")
    first, second = photograph(1), photograph(2)
    for upright, axis, name in ((False, 1, "1_left_2.jpg"), (True, 0, "1_above_2.jpg")):
        composite = Composite(first, second, upright)
        assert composite.name == name
        composite.write(tmp_path / name, tmp_path)
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(image).astype(int)
        assert pixels.shape == (224, 224, 3)
        for half, channel in zip(np.split(pixels, 2, axis), (0, 2), strict=True):
            assert half[..., channel].min() > 160 and half[..., 2 - channel].max() < 90


@pytest.mark.parametrize(("relation", "expected"), [
    ("left", "a brown dog to the left of an orange ball"),
    ("right", "an orange ball to the right of a brown dog"),
    ("above", "a brown dog above an orange ball"), ("below", "an orange ball below a brown dog"),
])
def test_captions_by_hand(relation, expected):
    assert pairs.caption(relation, DOG.text, BALL.text) == expected


def test_adjectives_are_exchanged_with_their_articles_where_that_is_false():
    red = Phrase("a red ball", "ball", "red")
    old = Phrase("an old man", "man", "old")
    young = Phrase("a young dog", "dog", "young")
    one, other = photograph(1, said={"brown", "dog"}), photograph(2, said={"red", "ball"})
    assert Pair(DOG, one, red, other).exchanged() == ("a red dog", "a brown ball")
    assert Pair(young, one, old, other).exchanged() == ("an old dog", "a young man")
    assert Pair(DOG, one, old, other).exchanged() is None, "nothing speaks against an old dog"
    assert Pair(DOG, one, BALL, other).exchanged() is None, "brown may be called orange"
    assert Pair(DOG, photograph(1, said={"red"}), red, other).exchanged() is None
    assert not pairs.contradict("", "red") and not pairs.contradict("small", "young")
    assert pairs.contradict("little", "old") and pairs.contradict("little", "large")


def test_phrases_of_captions():
    (found,) = pairs.photographs([Captioned(1, "1_ab.jpg", [
        "A brown dog runs behind a red ball.", "Two dogs and a ball.", "The man's dog runs.",
        "Dogs run.", "A small brown dog sleeps."])])
    assert [(p.text, p.noun, p.adjective) for p in found.firsts] == [
        ("a brown dog", "dog", "brown"), ("two dogs", "dog", ""), ("a small brown dog", "dog", "")]
    assert [p.text for p in found.coloured] == ["a brown dog", "a red ball"]
    assert {"dog", "ball", "run", "sleep"} <= found.said


def test_sets_are_balanced_official_and_apart(few, monkeypatch):
    monkeypatch.setattr(pairs, "name_similar", lambda folder: None)
    root = pairs.build("side-by-side")
    counts = json.loads((root / "manifest.json").read_text())["counts"]
    found = load_benchmark("aro", root)
    assert {part.subset: part.n_used for part in found} == counts["aro"]
    train = load_negclip_tsv(root / "coco" / "train_neg_clip.tsv", root)
    for part in found:
        assert part.n_used and all(item.images[0].path.is_file() for item in part.items)
        true, false = (Counter(item.texts[k] for item in part.items) for k in (1, 0))
        assert true == false, "each true caption is the false one of its mirror"
        bags = [sorted(text.split()) for item in part.items for text in item.texts]
        assert bags[::2] == bags[1::2] and not any(a == b for a, b in (i.texts for i in part.items))
        orders = Counter(item.texts[1].partition(" to the ")[2][:4] for item in part.items)
        assert orders["left"] == orders["righ"]
        blind = blind_answers([part], text_choosers(train.captions))
        assert (blind.groupby("chooser")["share"].mean() == 0.5).all()
    test = load_retrieval_set("coco", root)
    asked = {item.images[0].path.name for part in found for item in part.items}
    assert {path.name for path in test.image_paths} == asked
    assert counts["order"] == {"coco": test.n_used}
    valid = load_negclip_tsv(root / "coco" / "valid_neg_clip.tsv", root)
    base = load_coco_captions(root / "pretrain" / "annotations" / "captions_pretrain.json",
                              root / "pretrain" / "images")
    sides = [{number for path in some.image_paths for number in path.stem.split("_")[::2]}
             for some in (base, train, valid, test)]
    assert sum(map(len, sides)) == len(set().union(*sides)), "no photograph is in two splits"
    for text, false in zip(train.captions, train.negatives, strict=True):
        first, relation, second = split(text)
        assert false[0] == f"{second}{relation}{first}"
        for adjectives in false[1:]:
            assert sorted(adjectives.split()) == sorted(text.split()) and adjectives != false[0]
    joined = {frozenset(text.split(" and ")) for text in base.captions}
    joined |= {frozenset(split(text)[::2]) for text in train.captions}
    assert not joined & {frozenset(split(text)[::2]) for text in test.captions}
    name_similar(root)
    similar = load_negclip_tsv(root / "coco" / "train_neg_clip.tsv", root)
    assert similar.captions == train.captions and all(similar.hard_images)
    before = (root / "manifest.json").stat().st_mtime_ns
    assert pairs.build("side-by-side") == root
    assert (root / "manifest.json").stat().st_mtime_ns == before


def split(text):
    """First phrase, relation with its spaces, second phrase of a caption."""
    words = next(f" {words} " for words in pairs.RELATIONS.values() if f" {words} " in text)
    first, _, second = text.partition(words)
    return first, words, second


def test_the_base_learns_places_then_captions_and_is_measured(few, monkeypatch):
    monkeypatch.setattr("cae_lib.config.repository", lambda: None)  # no base is shipped
    monkeypatch.setattr(pool, "BATCH", 4)
    known, short = PROFILES["side-by-side"], {"steps": 2, "batch_size": 4, "warmup": 1}
    monkeypatch.setitem(PROFILES, "side-by-side", dataclasses.replace(
        known, seeds=1, base=known.base | short | {"tower_steps": 2, "precision": "fp32"},
        training=known.training | short, methods={"clip-ft": {}}))
    perform._sets("side-by-side")
    start = load_clip("clip-photo", runs.checkpoint_path("base", "side-by-side")).model
    untrained = load_clip("clip-photo").model
    fill_trunk(untrained)
    for name, value in untrained.visual.trunk.state_dict().items():
        torch.testing.assert_close(start.visual.trunk.state_dict()[name].float(), value.float(),
                                   atol=1e-3, rtol=1e-3)
    drawn = untrained.visual.head.pool.pos_embed * pool.POSITIONS
    moved = (start.visual.head.pool.pos_embed - drawn).abs().max()
    assert 0 < moved < 0.1, "the pool starts from large positions, and is trained"
    told = results.load("base_training", "side-by-side", ["base"]).set_index("measure")["value"]
    assert {"probe_first", "probe_second", "probe_order", "relation"} <= set(told.index)
    choice = Choice(studies=True)
    for label, job in grid("side-by-side", choice).items():
        if label.startswith("run/"):
            perform.perform("side-by-side", choice, label, job)
    answers = results.load("benchmarks", "side-by-side", ["base", "clip-ft"], 1)
    assert set(answers.family) == {"aro", "order"}


def test_a_file_that_is_not_there_is_said(flickr):
    (flickr / "Flickr8k_text" / "Flickr_8k.devImages.txt").unlink()
    with pytest.raises(DataError, match="devImages.txt: no such file. Get the official files"):
        pairs.build("side-by-side")
    assert not (flickr.parent / "side-by-side").exists()


def test_the_pool_is_its_own_forward():
    head = load_clip("clip-photo").model.visual.head
    grids = torch.randn(2, 1280, 7, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        head.pool.pos_embed.mul_(20)
        torch.testing.assert_close(pool.pooled(head.pool, grids), head(grids), atol=1e-5, rtol=1e-4)


def test_the_pool_learns_what_is_where(monkeypatch):
    """Two kinds of photographs, told by one channel each, in random places."""
    monkeypatch.setattr(pool, "BATCH", 16)
    monkeypatch.setattr(pool, "LR", 1e-2)
    net, rng = load_clip("clip-photo").model.visual.head.pool, torch.Generator().manual_seed(0)
    seen = object.__new__(pool.Pictures)
    seen.vocabulary = ["dog", "ball"]
    seen.nouns = torch.stack([order := torch.randint(2, (64,), generator=rng), 1 - order], 1)
    upright = torch.arange(64) % 2
    seen.places = torch.stack([2 * upright, 2 * upright + 1], 1)
    seen.words = torch.nn.functional.one_hot(seen.nouns, 2).float()
    seen.grids = torch.zeros(64, 1280, 7, 7, dtype=torch.float16)
    for n in range(64):
        for side, half in enumerate((slice(0, 3), slice(4, 7))):
            part = (half, slice(None)) if upright[n] else (slice(None), half)
            channels = slice(0, 640) if seen.nouns[n, side] == 0 else slice(640, 1280)
            seen.grids[n, channels][:, *part] = 1.0
    heads = pool.learn(net, seen, 40, 0)
    assert pool.told(net, heads, seen)["probe_order"] > 0.9
    seen.nouns = seen.nouns.flip(1)
    wrong = pool.told(net, heads, seen)
    assert wrong["probe_order"] < 0.1 and set(wrong) == {
        "probe_first", "probe_second", "probe_order"}
