"""A double-precision clip-mini with a mixed batch of captions, and what two processes leave."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import toy_alignment, two_processes

from cae_lib.models import Clip

# The second caption has no composition word, "pterodactyls" has five tokens.
CAPTIONS = ["a red dog chases a cat", "the dog", "two pterodactyls under a striped mat", ""]


@pytest.fixture
def model(tiny_clip: Clip) -> nn.Module:
    """Return a float64 clip-mini whose scores are far from 0."""
    with torch.no_grad():
        tiny_clip.model.token_embedding.weight.mul_(20)
    return tiny_clip.model.double().train()


@pytest.fixture
def batch(tiny_clip: Clip) -> tuple[Tensor, Tensor, Tensor]:
    """Return image features `(4, 128)`, tokens and roles `(4, 77)`."""
    actual, generator = toy_alignment(tiny_clip, CAPTIONS), torch.Generator().manual_seed(1)
    images = torch.randn(4, 128, generator=generator, dtype=torch.float64)
    return F.normalize(images, dim=-1), actual.tokens, actual.roles


@pytest.fixture(scope="module")
def halves(request, tmp_path_factory) -> Path:
    """Run the test file in two processes; returns the folder of what they wrote."""
    folder = tmp_path_factory.mktemp("halves")
    two_processes(request.module.__file__, folder)
    return folder
