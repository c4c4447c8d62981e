"""Drawn pictures with human-like captions in Flickr8k's official layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

THINGS = ("dog", "boy", "girl", "horse", "car", "ball")
COLORS = ("red", "black", "brown", "white")
PLACES = ("on", "near", "behind")


def caption(n: int, k: int) -> str:
    """Caption `k` of picture `n`, split into words as Flickr8k's are."""
    first, second = THINGS[n % 6], THINGS[(n + 1 + n // 6) % 6]
    color, other = COLORS[n % 4], COLORS[(n + 1) % 4]
    return [f"A {color} {first} is standing {PLACES[n % 3]} a {other} {second} .",
            f"A {first} {PLACES[n % 3]} a {other} {second} in the grass .",
            f"a {color} {first} and a {second}", f"The {first} 's {second} is {other} .",
            f"A {color} {first} , a {other} {second} and a tree ."][k]


@pytest.fixture
def flickr(home: Path) -> Path:
    """Sixteen drawn pictures as train, dev and test split."""
    root = home / "data" / "raw" / "flickr8k"
    (root / "Flicker8k_Dataset").mkdir(parents=True)
    (root / "Flickr8k_text").mkdir()
    lines, names = [], []
    for n in range(16):
        names.append(f"{100 + n}_ab.jpg")
        noise = np.random.default_rng(n).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((224, 224)).save(root / "Flicker8k_Dataset" / names[-1])
        lines += [f"{names[-1]}#{k}\t{caption(n, k)}" for k in range(5)]
    lines.append("99_ab.jpg.1#0\tA caption of a picture that is in no split .")
    (root / "Flickr8k_text" / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for split, chosen in (("train", names[:8]), ("dev", names[8:10]), ("test", names[10:])):
        path = root / "Flickr8k_text" / f"Flickr_8k.{split}Images.txt"
        path.write_text("\n".join(chosen) + "\n")
    return root
