"""Rows and random numbers of a run as functions of seed and step."""

from __future__ import annotations

import pytest
import torch

from cae_lib.errors import ConfigError
from cae_lib.training.order import BatchOrder, Stream, generator, stream_seed


def test_an_epoch_takes_every_row_at_most_once_and_drops_the_rest():
    order = BatchOrder(count=10, batch_size=3, seed=0)
    assert order.steps_per_epoch == 3
    first = torch.cat([order.rows(step) for step in range(3)])
    second = torch.cat([order.rows(step) for step in range(3, 6)])
    for epoch in (first, second):
        assert len(set(epoch.tolist())) == 9 and set(epoch.tolist()) <= set(range(10))
    assert not torch.equal(first, second)


def test_any_step_can_be_asked_for_first():
    whole = BatchOrder(10, 3, seed=4)
    rows = [whole.rows(step) for step in range(8)]
    assert torch.equal(BatchOrder(10, 3, seed=4).rows(7), rows[7])
    assert torch.equal(whole.rows(1), rows[1])
    assert not torch.equal(BatchOrder(10, 3, seed=5).rows(7), rows[7])


def test_streams_epochs_and_seeds_do_not_share_numbers():
    seeds = {
        stream_seed(seed, stream, number)
        for seed in range(5)
        for stream in Stream
        for number in range(20)
    }
    assert len(seeds) == 5 * len(Stream) * 20
    first = torch.rand(3, generator=generator(1, Stream.CROP, 2))
    assert torch.equal(first, torch.rand(3, generator=generator(1, Stream.CROP, 2)))


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_that_cannot_be_filled_is_a_config_error(batch_size):
    with pytest.raises(ConfigError, match="10 rows; choose 1 to 10"):
        BatchOrder(10, batch_size, seed=0)
