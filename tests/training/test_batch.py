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
from cae_lib.words.alignment import Alignment, align
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


@pytest.mark.parametrize("augment", [True, False])
def test_the_batch_holds_rows_neighbours_and_their_negative_captions(augment: bool) -> None:
    run = toy_run(replace(FT, negatives=True, augment=augment), pairs=PAIRS)
    batch, alignment = run.batches.at(1), run.batches.alignment
    source = seeded_generator(0, RandomStream.NEGATIVE, 1)
    both, texts, n_similar = choose_negatives(PAIRS, batch.rows, source)
    assert batch.n_similar == n_similar
    for name in ("tokens", "roles", "words"):
        assert torch.equal(getattr(batch, name), getattr(alignment, name)[both])
    crops = Toys().crops(both, seeded_generator(0, RandomStream.CROP, 1) if augment else None)
    assert torch.equal(batch.image_inputs, crops)
    false = toy_clip().tokenizer([text for text in texts if text])
    assert torch.equal(batch.negatives, false) and batch.negative_counts == (len(false),)


@pytest.mark.parametrize("foils", ["given", "exchanged"])
def test_a_caption_brings_one_negative_caption_if_it_has_some(foils: str) -> None:
    run = toy_run(replace(FT, foils=foils, batch_size=8), pairs=PAIRS)
    alignment, seen = run.batches.alignment, [set() for _ in range(8)]
    if foils == "given":
        known = [
            {tuple(row) for row in toy_clip().tokenizer(texts).tolist()} if texts else set()
            for texts in PAIRS.negatives
        ]
    else:
        known = [set() for _ in range(8)]
        swaps = swapped_captions(alignment.tokens, alignment.words, alignment.roles)
        for row, _, variant in zip(*swaps, strict=True):
            known[row].add(tuple(variant.tolist()))
    for step in range(40):
        batch = run.batches.at(step)
        rows = batch.rows[batch.caption_of_negative].tolist()
        assert len(set(rows)) == len(rows) == len(batch.negatives) == sum(map(bool, known))
        for row, tokens in zip(rows, batch.negatives.tolist(), strict=True):
            seen[row].add(tuple(tokens))
    assert seen == known and any(len(texts) > 1 for texts in known)


THREE = "a cat near a dog on a mat"
NEAR_SWAPPED = "a dog near a cat on a mat"


def three_objects(on_of: tuple[str, ...]) -> Alignment:
    """`THREE` eight times, where the words that "on" is said of are known."""
    places = tuple((THREE.index(word), THREE.index(word) + len(word)) for word in on_of)
    spans = [
        replace(span, arguments=places if THREE[span.start : span.end] == "on" else ())
        for span in WordTagger().tag([THREE])[0]
    ]
    return align([THREE] * 8, [spans] * 8, toy_clip().tokenizer)


@pytest.mark.parametrize(
    ("on_of", "on_swapped"),
    [
        ((), "a cat near a mat on a dog"),  # the nearest object before "on" is the dog
        (("cat", "mat"), "a mat near a dog on a cat"),
    ],
)
def test_swaps_of_a_batch_follow_the_arguments_and_are_drawn_by_its_step(on_of, on_swapped) -> None:
    tokenizer, settings = toy_clip().tokenizer, replace(FT, foils="exchanged", batch_size=8)
    batches = Batches(settings, toy_pairs([THREE] * 8), three_objects(on_of), Toys(), tokenizer)
    known = {tuple(row) for row in tokenizer([NEAR_SWAPPED, on_swapped]).tolist()}
    draws = []
    for step in range(6):
        torch.manual_seed(step)
        before = torch.get_rng_state()
        draws.append(batches.at(step).negatives)
        assert {tuple(row) for row in draws[-1].tolist()} <= known and len(draws[-1]) == 8
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(step + 100)
        assert torch.equal(batches.at(step).negatives, draws[-1])
    assert {tuple(row) for row in torch.cat(draws).tolist()} == known
    assert len({str(draw.tolist()) for draw in draws}) > 1


def test_a_run_trains_on_the_swaps_that_its_setting_selects() -> None:
    clip = toy_clip()
    places = tuple((THREE.index(word), THREE.index(word) + 3) for word in ("dog", "mat"))
    swap = Swap(places, places, (THREE.index("on"), THREE.index("on") + 2))
    given = align(
        [THREE] * 8, [WordTagger().tag([THREE])[0]] * 8, clip.tokenizer, swaps=[[swap]] * 8
    )
    for swapped, kept in ((("relations",), True), (("attributes",), False), (("on",), True)):
        run = TrainingRun(
            replace(FT, swapped=swapped, foils="exchanged"),
            clip,
            toy_pairs([THREE] * 8),
            given,
            Toys(),
        )
        assert bool(run.batches.alignment.swaps.any()) == kept


def test_a_batch_has_the_swaps_of_its_rows_and_negatives_made_by_them() -> None:
    tokenizer = toy_clip().tokenizer
    places = tuple((THREE.index(word), THREE.index(word) + 3) for word in ("dog", "mat"))
    swap = Swap(places, places, (THREE.index("on"), THREE.index("on") + 2))
    spans = WordTagger().tag([THREE])[0]
    given = align([THREE] * 8, [spans] * 8, tokenizer, swaps=[[swap], []] * 4)
    settings = replace(FT, foils="exchanged", batch_size=8)
    batch = Batches(settings, toy_pairs([THREE] * 8), given, Toys(), tokenizer).at(0)
    assert torch.equal(batch.swaps, given.swaps[batch.rows])
    (expected,) = tokenizer([THREE.replace("dog", "x").replace("mat", "dog").replace("x", "mat")])
    assert len(batch.negatives) == 4 and (batch.negatives == expected).all()
    assert batch.rows[batch.caption_of_negative].remainder(2).eq(0).all()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ((), "a dog on a red cat"),
        ((("swap", "noun"),), "a dog on a red cat"),
        ((("swap", "phrase"),), "a red dog on a cat"),
    ],
    ids=str,
)
def test_negatives_are_made_by_the_run_s_kind_of_swap(settings, expected) -> None:
    caption, tokenizer = "a cat on a red dog", toy_clip().tokenizer
    nouns = tuple((caption.index(word), caption.index(word) + 3) for word in ("cat", "dog"))
    phrases = (0, 5), (9, len(caption))
    swap = Swap(nouns, phrases, (6, 8))
    spans = WordTagger().tag([caption])[0]
    given = align([caption] * 8, [spans] * 8, tokenizer, swaps=[[swap]] * 8)
    run = replace(FT, foils="exchanged", batch_size=8, attribution=settings)
    batch = Batches(run, toy_pairs([caption] * 8), given, Toys(), tokenizer).at(0)
    assert torch.equal(batch.negatives, tokenizer([expected]).expand(8, -1))


def test_each_process_has_its_rows_and_their_similar_images() -> None:
    settings, clip = replace(FT, negatives=True, batch_size=4, augment=False), toy_clip()
    parts = settings, PAIRS, toy_alignment(clip), Toys(), clip.tokenizer
    whole = Batches(*parts).at(1)
    for rank, places in enumerate(([0, 1, 4, 5], [2, 3, 6, 7])):  # the second four are similar
        share = Batches(*parts, Ranks(rank, 2)).at(1)
        assert torch.equal(share.tokens, whole.tokens[places])
        assert torch.equal(share.image_inputs, whole.image_inputs[places])


@pytest.mark.parametrize("kind", ["permuted", "random"])
def test_a_placebo_knows_no_arguments_and_no_swaps(kind: str) -> None:
    given = three_objects(("cat", "mat"))
    given = replace(given, swaps=torch.zeros(8, 1, 5, 2, dtype=torch.int16))
    assert given.arguments.any()
    placebo = placebo_roles(given, kind, 0)
    assert placebo.arguments is None and placebo.swaps is None
    assert placebo_roles(given, "parsed", 0) is given


def test_every_draw_of_a_batch_depends_on_seed_and_step() -> None:
    def draws(seed: int, step: int) -> list[list]:
        run = toy_run(replace(FT, seed=seed, negatives=True, batch_size=8))
        batch = run.batches.at(step)
        return [
            batch.rows.tolist(),
            batch.tokens[8:].tolist(),
            batch.negatives.tolist(),
            batch.image_inputs.tolist(),
        ]

    assert draws(1, 2) == draws(1, 2)
    for other in (draws(2, 2), draws(1, 3)):
        assert all(a != b for a, b in zip(draws(1, 2), other, strict=True))


@pytest.mark.parametrize("kind", ["permuted", "random"])
def test_a_placebo_keeps_the_numbers_of_words_and_draws_by_seed_and_row(kind: str) -> None:
    given = toy_alignment(toy_clip(), CAPTIONS * 40)
    actual, places = placebo_roles(given, kind, 1), Counter()
    assert actual.tokens is given.tokens and actual.roles.dtype == given.roles.dtype
    for row, words in enumerate(given.words.tolist()):
        before, after = (
            dict(zip(words, a.roles[row].tolist(), strict=True)) for a in (given, actual)
        )
        assert Counter(before.values()) == Counter(after.values())
        assert actual.roles[row].tolist() == [after[word] for word in words]  # of whole words
        assert after[0] == 0 and (
            kind == "random" or all(bool(before[word]) == bool(after[word]) for word in words)
        )
        if row % 8 == 0:
            places.update(word for word, role in after.items() if role == 1)
    words = range(1, 8) if kind == "random" else (2, 3, 4, 5, 7)
    assert set(places) == set(words)  # "a red cat sits on a mat": 40 times 2 of 7, or of 5
    assert min(places.values()) > 2 and len(actual.roles[::8].unique(dim=0)) > 5
    assert torch.equal(placebo_roles(toy_alignment(toy_clip()), kind, 1).roles, actual.roles[:8])
    assert not torch.equal(placebo_roles(given, kind, 2).roles, actual.roles)
    assert placebo_roles(given, "parsed", 1) is given
    with pytest.raises(ConfigError, match="expected one of parsed, permuted, random"):
        placebo_roles(given, "other", 1)


def test_a_run_trains_on_the_placebo_of_its_seed() -> None:
    given = toy_alignment(toy_clip())
    for seed in (0, 1):
        used = toy_run(replace(FT, roles="permuted", seed=seed)).batches.alignment
        assert torch.equal(used.roles, placebo_roles(given, "permuted", seed).roles)
