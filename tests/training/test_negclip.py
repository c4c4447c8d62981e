"""NegCLIP's loss on numbers worked out by hand, its draws, and a run that uses both."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.errors import CheckpointError, DataError
from cae_lib.models.clip import load_clip
from cae_lib.training.batch import Batches
from cae_lib.training.loop import train
from cae_lib.training.losses import contrastive_loss
from cae_lib.training.negclip import choose_negatives, negclip_loss
from cae_lib.training.order import Stream, generator
from cae_lib.training.run import Run
from cae_lib.words.alignment import align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, Span

PLAIN = Experiment("negclip", "smoke", steps=3, batch_size=4, warmup=1, lr=1e-3, negatives=True)
CAE = replace(PLAIN, name="negclip-cae", method="attention", weight=1.0, margin=0.5)
COLOURS = ("red", "blue", "green", "black")


class Pictures:
    """Random pictures in memory; a crop is stood in for by noise from the generator."""

    def __init__(self) -> None:
        self.pixels = torch.randn(4, 3, 112, 112, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, index, generator=None):
        return self.pixels[index] + torch.randn(len(index), 3, 1, 1, generator=generator)


def toy_pairs(negatives: list[list[str]] | None = None) -> Pairs:
    """Eight captions over four pictures; the last row has no negative, row 6 no neighbour."""
    captions = [f"a {colour} {noun}" for noun in ("cat", "dog") for colour in COLOURS]
    if negatives is None:
        negatives = [[f"not {caption}", f"never {caption}"] for caption in captions[:-1]] + [[]]
    hard = [[(row + 1) % 8, (row + 2) % 8, (row + 3) % 8] for row in range(8)]
    hard[6] = []
    paths = [Path(f"{i}.png") for i in range(4)]
    return Pairs(paths, captions, torch.arange(8) % 4, "toy", 8, 8, negatives, hard)


def toy_alignment(pairs: Pairs, tokenizer):
    spans = []
    for caption in pairs.captions:
        noun = caption.rindex(" ") + 1
        spans.append([Span(noun, len(caption), OBJECT), Span(2, noun - 1, ATTRIBUTE)])
    return align(pairs.captions, spans, tokenizer)


@pytest.fixture(scope="module")
def tokenizer():
    return load_clip("clip-mini").tokenizer


def run_steps(experiment: Experiment, out: Path, pairs: Pairs, **options):
    clip = load_clip("clip-mini", seed=0)
    alignment = toy_alignment(pairs, clip.tokenizer)
    result = train(experiment, clip, pairs, alignment, Pictures(), out, log=False, **options)
    return clip, [json.loads(line) for line in result.log.read_text().splitlines()]


def test_false_captions_are_extra_columns_of_the_images_only() -> None:
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    negatives = torch.tensor([[0.8, 0.6]])
    # logits at scale 2: [[2, 1.2 | 1.6], [0, 1.6 | 1.2]]
    first = math.log(1 + math.exp(-0.8) + math.exp(-0.4))
    second = math.log(1 + math.exp(-1.6) + math.exp(-0.4))
    columns = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(-0.4))) / 2
    loss = negclip_loss(images, texts, negatives, torch.tensor(2.0))
    assert loss.item() == pytest.approx(((first + second) / 2 + columns) / 2, rel=1e-6)


def test_without_false_captions_it_is_the_contrastive_loss() -> None:
    images, texts = F.normalize(torch.randn(2, 5, 8), dim=-1)
    scale = torch.tensor(7.0)
    loss = negclip_loss(images, texts, texts[:0], scale)
    assert loss.item() == pytest.approx(contrastive_loss(images, texts, scale).item(), rel=1e-6)


def test_a_row_brings_one_neighbour_and_both_bring_a_false_caption_of_their_own() -> None:
    pairs = toy_pairs()
    rows = torch.tensor([0, 7, 6])
    seen = [Counter() for _ in rows]
    for step in range(300):
        chosen = choose_negatives(pairs, rows, generator(0, Stream.NEGATIVE, step))
        assert chosen.rows[:3].tolist() == [0, 7, 6] and chosen.n_similar == 2
        for row, text in zip(chosen.rows.tolist(), chosen.negatives, strict=True):
            assert text is None if row == 7 else text in pairs.negatives[row]
        for count, row in zip(seen, chosen.rows[3:].tolist(), strict=True):
            count[row] += 1
    assert set(seen[0]) == {1, 2, 3} and set(seen[1]) == {0, 1, 2}
    assert set(seen[2]) == {0, 1, 2, 3, 4, 5, 7}  # no neighbour: any row but itself
    assert min(seen[0].values()) > 70


def test_pictures_and_false_captions_are_drawn_apart() -> None:
    """Of row 0 and its neighbour every choice occurs with every other choice."""
    pairs, seen = toy_pairs(), Counter()
    for step in range(400):
        chosen = choose_negatives(pairs, torch.tensor([0]), generator(0, Stream.NEGATIVE, step))
        picks = [pairs.negatives[r].index(text) for r, text in
                 zip(chosen.rows.tolist(), chosen.negatives, strict=True)]
        seen[(int(chosen.rows[1]), *picks)] += 1
    assert seen.keys() == set(itertools.product((1, 2, 3), (0, 1), (0, 1)))


def test_the_draw_is_a_function_of_seed_and_step() -> None:
    pairs, rows = toy_pairs(), torch.arange(8)

    def draw(seed: int, step: int):
        chosen = choose_negatives(pairs, rows, generator(seed, Stream.NEGATIVE, step))
        return chosen.rows.tolist(), chosen.negatives

    assert draw(1, 5) == draw(1, 5)
    assert draw(1, 5) != draw(1, 6) and draw(1, 5) != draw(2, 5)


def test_the_batch_holds_rows_neighbours_and_their_false_captions(tokenizer) -> None:
    pairs = toy_pairs()
    alignment = toy_alignment(pairs, tokenizer)
    batch = Batches(PLAIN, pairs, alignment, Pictures(), tokenizer).at(1)
    chosen = choose_negatives(pairs, batch.rows, generator(0, Stream.NEGATIVE, 1))
    assert batch.rows.tolist() == chosen.rows[:4].tolist()
    assert torch.equal(batch.tokens, alignment.tokens[chosen.rows])
    assert torch.equal(batch.roles, alignment.roles[chosen.rows])
    crops = generator(0, Stream.CROP, 1)
    assert torch.equal(batch.pixels, Pictures().batch(chosen.rows % 4, crops))
    texts = [text for text in chosen.negatives if text]
    assert torch.equal(batch.negatives, tokenizer(texts))


def test_every_draw_of_a_batch_depends_on_seed_and_step(tokenizer) -> None:
    class Noise(Pictures):
        def batch(self, index, generator=None):
            return torch.randn(2, generator=generator)

    pairs = toy_pairs([[f"{word} {row}" for word in ("no", "not", "never")] for row in range(8)])
    pairs.hard_images[6] = [7, 0, 1]
    alignment = toy_alignment(pairs, tokenizer)
    rows_of = {tuple(tokens.tolist()): row for row, tokens in enumerate(alignment.tokens)}

    def draws(seed: int, step: int) -> list[list]:
        """Rows, then what is drawn for the places of a batch, whatever rows are there."""
        run = replace(PLAIN, seed=seed, batch_size=8)
        batch = Batches(run, pairs, alignment, Noise(), lambda texts: texts).at(step)
        rows = [rows_of[tuple(tokens.tolist())] for tokens in batch.tokens]
        similar = [pairs.hard_images[r].index(s) for r, s in zip(rows[:8], rows[8:], strict=True)]
        return [rows[:8], similar, [t.split()[0] for t in batch.negatives], batch.pixels.tolist()]

    assert draws(1, 2) == draws(1, 2)
    for other in (draws(2, 2), draws(1, 3)):
        assert all(a != b for a, b in zip(draws(1, 2), other, strict=True))


@pytest.mark.parametrize("experiment", [PLAIN, CAE], ids=["plain", "cae"])
def test_the_first_loss_is_that_of_open_clips_features(experiment, tmp_path, tokenizer) -> None:
    pairs = toy_pairs()
    _, lines = run_steps(experiment, tmp_path, pairs)
    alignment = toy_alignment(pairs, tokenizer)
    batch = Batches(experiment, pairs, alignment, Pictures(), tokenizer).at(0)
    model = load_clip("clip-mini", seed=0).model
    with torch.no_grad():
        images = model.encode_image(batch.pixels, normalize=True)
        texts = model.encode_text(torch.cat([batch.tokens, batch.negatives]), normalize=True)
        logits = model.logit_scale.exp() * images @ texts.T
        target = torch.arange(8)
        expected = F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :8].T, target)
    assert lines[0]["contrastive"] == pytest.approx(expected.item() / 2, abs=1e-4)
    assert lines[0]["n_negatives"] == len(batch.negatives)
    assert lines[0]["n_similar"] == batch.n_similar
    if experiment.method:
        hinge = lines[0]["objects"] - lines[0]["composition"] + experiment.margin
        assert lines[0]["loss"] == pytest.approx(lines[0]["contrastive"] + max(0, hinge), abs=1e-5)
        assert lines[0]["n_objects"] == 8  # the originals, rows and neighbours; no false caption
    else:
        assert lines[0]["loss"] == lines[0]["contrastive"]


@pytest.mark.parametrize("experiment", [PLAIN, CAE], ids=["plain", "cae"])
def test_batches_without_a_false_caption_are_trained_on_all_the_same(experiment, tmp_path) -> None:
    pairs = toy_pairs([[]] * 7 + [["one"]])
    _, lines = run_steps(replace(experiment, steps=2), tmp_path, pairs)
    assert min(line["n_negatives"] for line in lines) == 0
    assert all(math.isfinite(line["loss"]) for line in lines)


def test_a_resumed_run_is_the_uninterrupted_one_and_knows_its_negatives(tmp_path) -> None:
    pairs = toy_pairs()
    whole, _ = run_steps(CAE, tmp_path / "whole", pairs)
    run_steps(CAE, tmp_path / "parts", pairs, stop_after=1)
    other = toy_pairs([["another"]] * 8)
    with pytest.raises(CheckpointError, match="state of another run"):
        run_steps(CAE, tmp_path / "parts", other)
    resumed, _ = run_steps(CAE, tmp_path / "parts", pairs)
    expected = whole.model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in resumed.model.state_dict().items())


def test_a_set_without_negatives_is_refused(tokenizer) -> None:
    clip = load_clip("clip-mini", seed=0)
    pairs = toy_pairs()
    alignment = toy_alignment(pairs, tokenizer)
    bare = replace(pairs, negatives=None, hard_images=None)
    with pytest.raises(DataError, match="toy has no hard negatives"):
        Run(PLAIN, clip, bare, alignment, Pictures())
    with pytest.raises(DataError, match="none of its 8 rows has a false caption"):
        Run(PLAIN, clip, toy_pairs([[]] * 8), alignment, Pictures())
