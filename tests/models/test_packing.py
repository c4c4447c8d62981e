"""Packed rows, on a case worked out by hand."""

from __future__ import annotations

import torch

from cae_lib.models.packed import owners_of_prefixes, pack_rows


def test_captions_of_two_and_four_positions() -> None:
    packing = pack_rows(torch.tensor([1, 3]))
    assert packing.length == 4
    assert packing.active.tolist() == [0, 1, 4, 5, 6, 7]
    assert packing.rows.tolist() == [0, 0, 1, 1, 1, 1]
    assert packing.positions.tolist() == [0, 1, 0, 1, 2, 3]
    assert packing.source.tolist() == [0, 1, 1, 1, 2, 3, 4, 5]
    assert packing.ends.tolist() == [1, 5]


def test_variant_shares_the_states_before_its_start() -> None:
    eot = torch.tensor([1, 3, 3])
    packing = pack_rows(eot, torch.tensor([[0] * 4, [1] * 4, [1, 1, 2, 2]]))
    assert packing.active.tolist() == [0, 1, 4, 5, 6, 7, 10, 11]
    assert packing.source.view(3, 4)[2].tolist() == [2, 3, 6, 7]  # positions 0, 1 of row 1
    assert packing.ends.tolist() == [1, 5, 7]


def test_pack_then_spread_repeats_the_end() -> None:
    packing = pack_rows(torch.tensor([1, 3]))
    padded = torch.arange(8.0).view(2, 4, 1)
    spread = packing.spread(packing.pack(padded))
    assert spread[..., 0].tolist() == [[0, 1, 1, 1], [4, 5, 6, 7]]


def test_a_beginning_in_common_is_computed_once() -> None:
    # start a red cat end | start a red cat sits end | start a red dog end | start the dog end
    texts = [[8, 1, 2, 3, 9, 0], [8, 1, 2, 3, 4, 9], [8, 1, 2, 5, 9, 0], [8, 6, 5, 9, 0, 0]]
    tokens, eot = torch.tensor(texts), torch.tensor([4, 5, 4, 3])
    packing = pack_rows(eot, owners_of_prefixes(tokens, eot))
    assert packing.positions.tolist() == [0, 1, 2, 3, 4, 4, 5, 3, 4, 1, 2, 3]
    assert packing.rows.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert packing.ends.tolist() == [4, 6, 8, 11]
    assert packing.source.view(4, 6).tolist() == [
        [0, 1, 2, 3, 4, 4],
        [0, 1, 2, 3, 5, 6],
        [0, 1, 2, 7, 8, 8],
        [0, 9, 10, 11, 11, 11],
    ]
