"""What a run draws, as functions of seed and step: rows, negatives, masks and placebos."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch
from toys import (
    CAPTIONS,
    FT,
    Toys,
    WordTagger,
    toy_alignment,
    toy_clip,
    toy_pairs,
    toy_run,
)

from cae_lib.attribution.binding import swapped_captions
from cae_lib.errors import ConfigError
from cae_lib.training.batch import (
    Batches,
    RandomStream,
    choose_negatives,
    placebo_roles,
    seeded_generator,
)
from cae_lib.training.distributed import Ranks
from cae_lib.training.trainer import TrainingRun
from cae_lib.words.alignment import align
from cae_lib.words.roles import Swap

PAIRS = toy_pairs(
    negatives=[[f"not {c}", f"never {c}"] for c in CAPTIONS[:-1]] + [[]],
    hard_images=[[(r + 1) % 8, (r + 2) % 8, (r + 3) % 8] for r in range(6)] + [[], [0, 1, 2]],
)


def test_an_epoch_takes_every_row_at_most_once_and_drops_the_rest():
    ours, other = (toy_run(replace(FT, batch_size=3, seed=seed)).batches for seed in (0, 5))
    epochs = [torch.cat([ours.row_numbers(step) for step in steps]) for steps in ((0, 1), (2, 3))]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 6 and set(epoch.tolist()) <= set(range(8))
    assert not torch.equal(*epochs)
    assert torch.equal(ours.row_numbers(1), epochs[0][3:])  # in any order of the steps
    assert not torch.equal(other.row_numbers(1), epochs[0][3:])


def test_streams_epochs_and_seeds_do_not_share_numbers():
    places = list(itertools.product(range(5), RandomStream, range(20)))
    assert len({seeded_generator(*place).initial_seed() for place in places}) == len(places)
    first, again = (
        torch.rand(3, generator=seeded_generator(1, RandomStream.CROP, 2)) for _ in range(2)
    )
    assert torch.equal(first, again)


def test_a_row_brings_one_neighbour_and_both_bring_a_negative_caption_of_their_own() -> None:
    rows = torch.tensor([0, 7, 6])
    seen, picks = [Counter() for _ in rows], Counter()
    for step in range(400):
        both, texts, n_similar = choose_negatives(
            PAIRS, rows, seeded_generator(0, RandomStream.NEGATIVE, step)
        )
        assert both[:3].tolist() == [0, 7, 6] and n_similar == 2
        for row, text in zip(both.tolist(), texts, strict=True):
            assert text is None if row == 7 else text in PAIRS.negatives[row]
        for count, row in zip(seen, both[3:].tolist(), strict=True):
            count[row] += 1
        picks[int(both[3]), texts[0].split()[0], texts[3].split()[0]] += 1
    assert set(seen[0]) == {1, 2, 3} and set(seen[1]) == {0, 1, 2}
    assert set(seen[2]) == {0, 1, 2, 3, 4, 5, 7}  # no neighbour: any row but itself
    assert min(seen[0].values()) > 90
    assert picks.keys() == set(itertools.product((1, 2, 3), *[("not", "never")] * 2))  # apart


@pytest.mark.parametrize("foils", ["given", "exchanged"])
def test_a_caption_brings_one_of_its_negative_captions(foils: str) -> None:
    run = toy_run(replace(FT, foils=foils, batch_size=8), pairs=PAIRS)
    alignment, seen, possible = run.batches.alignment, *([set() for _ in range(8)] for _ in "ab")
    if foils == "given":
        for row, texts in zip(possible, PAIRS.negatives, strict=True):
            row.update(map(tuple, toy_clip().tokenizer(texts).tolist() if texts else []))
    else:
        swaps = swapped_captions(alignment.tokens, alignment.words, alignment.roles)
        for row, _, variant in zip(*swaps, strict=True):
            possible[row].add(tuple(variant.tolist()))
    for step in range(40):
        batch = run.batches.at(step)
        rows = batch.rows[batch.caption_of_negative].tolist()
        assert len(set(rows)) == len(rows) == len(batch.negatives) == sum(map(bool, possible))
        for row, tokens in zip(rows, batch.negatives.tolist(), strict=True):
            seen[row].add(tuple(tokens))
    assert seen == possible and any(len(texts) > 1 for texts in possible)


CAPTION = "a cat on a red dog"
ALTERED = {
    "by default": ({}, "a dog on a red cat"),
    "nouns": ({"attribution": (("swap", "noun"),)}, "a dog on a red cat"),
    "phrases": ({"attribution": (("swap", "phrase"),)}, "a red dog on a cat"),
    "relations": ({"swapped": ("relations",)}, "a dog on a red cat"),
    "this relation": ({"swapped": ("on",)}, "a dog on a red cat"),
    "attributes": ({"swapped": ("attributes",)}, None),
}


@pytest.mark.parametrize(("changes", "expected"), ALTERED.values(), ids=ALTERED)
def test_swaps_of_a_batch_are_those_of_its_rows_and_settings(changes, expected) -> None:
    """Every other caption has a swap of the tagger."""
    clip = toy_clip()
    nouns = tuple((CAPTION.index(word), CAPTION.index(word) + 3) for word in ("cat", "dog"))
    swap, spans = Swap(nouns, ((0, 5), (9, len(CAPTION))), (6, 8)), WordTagger().tag([CAPTION])[0]
    alignment = align([CAPTION] * 8, [spans] * 8, clip.tokenizer, swaps=[[swap], []] * 4)
    settings = replace(FT, foils="exchanged", batch_size=8, **changes)
    run = TrainingRun(settings, clip, toy_pairs([CAPTION] * 8), alignment, Toys())
    batch = run.batches.at(0)
    if expected is None:
        assert not batch.swaps.any() and not len(batch.negatives)
        return
    assert torch.equal(batch.swaps, alignment.swaps[batch.rows])
    assert torch.equal(batch.negatives, clip.tokenizer([expected]).expand(4, -1))
    assert batch.rows[batch.caption_of_negative].remainder(2).eq(0).all()


def test_each_process_has_its_rows_and_their_similar_images() -> None:
    settings, clip = replace(FT, negatives=True, batch_size=4, augment=False), toy_clip()
    parts = settings, PAIRS, toy_alignment(clip), Toys(), clip.tokenizer
    whole = Batches(*parts).at(1)
    for rank, places in enumerate(([0, 1, 4, 5], [2, 3, 6, 7])):  # the second four are similar
        share = Batches(*parts, Ranks(rank, 2)).at(1)
        assert torch.equal(share.tokens, whole.tokens[places])
        assert torch.equal(share.image_inputs, whole.image_inputs[places])


@pytest.mark.parametrize("negatives", [{"negatives": True}, {"foils": "exchanged"}], ids=str)
def test_every_draw_of_a_batch_depends_on_seed_and_step_alone(negatives: dict) -> None:
    def draws(seed: int, step: int) -> list[list]:
        torch.rand(1)  # the global generator must not matter
        batch = toy_run(replace(FT, seed=seed, batch_size=8, **negatives)).batches.at(step)
        similar = [batch.tokens[8:].tolist()] if batch.n_similar else []
        return [
            batch.rows.tolist(),
            batch.negatives.tolist(),
            batch.image_inputs.tolist(),
            *similar,
        ]

    assert draws(1, 2) == draws(1, 2)
    for other in (draws(2, 2), draws(1, 3)):
        assert all(a != b for a, b in zip(draws(1, 2), other, strict=True))


@pytest.mark.parametrize("kind", ["permuted", "random"])
def test_a_placebo_moves_roles_between_words_by_seed_and_row(kind: str) -> None:
    parsed = toy_alignment(toy_clip(), CAPTIONS * 40)
    parsed = replace(parsed, swaps=torch.zeros(320, 1, 5, 2, dtype=torch.int16))
    placebo, places = placebo_roles(parsed, kind, 1), Counter()
    assert placebo.arguments is None and placebo.swaps is None, "it knows neither"
    assert placebo.tokens is parsed.tokens and placebo.roles.dtype == parsed.roles.dtype
    for row, words in enumerate(parsed.words.tolist()):
        before, after = (
            dict(zip(words, a.roles[row].tolist(), strict=True)) for a in (parsed, placebo)
        )
        assert Counter(before.values()) == Counter(after.values())
        assert placebo.roles[row].tolist() == [after[word] for word in words]  # of whole words
        assert after[0] == 0
        assert kind == "random" or all(bool(before[word]) == bool(after[word]) for word in words)
        if row % 8 == 0:
            places.update(word for word, role in after.items() if role == 1)
    words = range(1, 8) if kind == "random" else (2, 3, 4, 5, 7)
    assert set(places) == set(words)  # "a red cat sits on a mat": 40 times 2 of 7, or of 5
    assert min(places.values()) > 2 and len(placebo.roles[::8].unique(dim=0)) > 5
    again = placebo_roles(toy_alignment(toy_clip()), kind, 1)
    assert torch.equal(again.roles, placebo.roles[:8])
    assert torch.equal(
        toy_run(replace(FT, roles=kind, seed=1)).batches.alignment.roles, again.roles
    )
    assert not torch.equal(placebo_roles(parsed, kind, 2).roles, placebo.roles)
    assert placebo_roles(parsed, "parsed", 1) is parsed
    with pytest.raises(ConfigError, match="expected one of parsed, permuted, random"):
        placebo_roles(parsed, "other", 1)
