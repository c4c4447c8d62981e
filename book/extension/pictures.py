"""Photographs for figures that show what an image of the paired photographs is."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

_FILE = Path(__file__).resolve().parents[1] / "images" / "two-photographs.jpg"


def two_photographs() -> Image.Image:
    """Return a cat beside a cup: photographs of S. van der Walt and R. Michetti, both CC0."""
    return Image.open(_FILE).convert("RGB")
