"""A batch of captions that every test of the attribution methods can score."""

from collections.abc import Callable
from typing import Any

import pytest
from oracles import Batch, make_batch

from cae_lib.attribution import Attribution, get_method
from cae_lib.models import Clip

CAPTIONS = (
    "a dog",
    "the cat is touching the elephant",
    "an umbrella-shaped pterodactyl, striped and blue, holds two giraffes'  balloons",
    "a small red cup on the left of a tree " * 9,
)


@pytest.fixture
def batch(tiny_clip: Clip) -> Batch:
    """Return four captions from 4 to 77 tokens, one of them truncated, in float64."""
    return make_batch(tiny_clip.model, CAPTIONS)


@pytest.fixture
def attribute() -> Callable[..., Attribution]:
    """Return a function that scores a batch by a method; `call` are arguments of the call."""

    def scored(
        batch: Batch, name: str, call: dict[str, Any] | None = None, **parameters: Any
    ) -> Attribution:
        method = get_method(name, **parameters)
        return method(batch.model, batch.tokens, batch.image_features, **(call or {}))

    return scored
