"""Train one step with the lines of README.md, on a small open_clip model with random weights."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

import cae_lib as cae

README = Path(__file__).resolve().parents[1] / "README.md"
CAPTIONS = ["a red cat chases a dog", "two small birds sit on a wooden fence"]


def block(mark: str) -> str:
    """The one block of Python in the README that holds `mark`."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.M | re.S)
    (found,) = (text for text in blocks if mark in text)
    return found


def step() -> None:
    """One step; the captions have words of both groups, and gradients reach the text tower."""
    torch.manual_seed(0)
    loaded = cae.load_clip("clip-mini")
    model, size = loaded.model, loaded.model.visual.image_size[0]
    names = {
        "model": model,
        "tokenizer": loaded.tokenizer,
        "images": torch.rand(len(CAPTIONS), 3, size, size),
        "captions": CAPTIONS,
    }
    exec(block("ClipLoss("), names)
    names["loss"].backward()
    assert names["loss"].isfinite() and names["output"].loss.requires_grad
    assert names["output"].n_objects > 0 and names["output"].n_composition > 0
    for name, parameter in model.named_parameters():
        if name.startswith(("transformer.", "token_embedding.", "text_projection")):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert model.token_embedding.weight.grad.abs().max() > 0


if __name__ == "__main__":
    place = Path(cae.__file__)
    assert place.is_relative_to(sys.prefix), f"cae_lib comes from {place}, not from the wheel"
    step()
    print(f"One step of the README's lines went well, with {place.parent}")
