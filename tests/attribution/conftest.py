"""A batch of captions that every test of the attribution methods can score."""

from __future__ import annotations

import pytest
from oracles import Batch, make_batch

from cae_lib.models import Clip

CAPTIONS = (
    "a dog",
    "the cat is touching the elephant",
    "an umbrella-shaped pterodactyl, striped and blue, holds two giraffes'  balloons",
    "a small red cup on the left of a tree " * 9,
)


@pytest.fixture
def batch(tiny_clip: Clip) -> Batch:
    """Four captions from 4 to 77 tokens, one of them truncated, in float64."""
    return make_batch(tiny_clip.model, CAPTIONS)
