"""A double-precision clip-mini with a mixed batch of captions, their roles and image features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cae_lib.models import Clip

CAPTIONS = ["a red dog chases a cat", "the giraffe", "two pterodactyls under a striped tree", ""]
ROLES = [  # the second caption has no composition word, "pterodactyls" has several tokens
    {2: 2, 3: 1, 4: 3, 6: 1},
    {2: 1},
    {2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 3, 9: 2, 10: 1},
    {},
]


@pytest.fixture
def model(tiny_clip: Clip) -> nn.Module:
    """A float64 clip-mini whose scores are far from 0."""
    with torch.no_grad():
        tiny_clip.model.token_embedding.weight.mul_(20)
    return tiny_clip.model.double().train()


@pytest.fixture
def batch(tiny_clip: Clip) -> tuple[Tensor, Tensor, Tensor]:
    """Image features `(4, 128)`, tokens and roles `(4, 77)`."""
    tokens = tiny_clip.tokenizer(CAPTIONS)
    roles = torch.zeros(tokens.shape, dtype=torch.int8)
    for caption, marks in enumerate(ROLES):
        for position, role in marks.items():
            roles[caption, position] = role
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, 128, generator=generator, dtype=torch.float64)
    return F.normalize(images, dim=-1), tokens, roles
