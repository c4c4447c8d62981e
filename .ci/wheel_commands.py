"""Run commands from an installed wheel, outside of a clone: list the data sets, and evaluate a
small model with random weights on a few drawn items."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image

import cae_lib as cae

COMMAND = Path(sys.executable).with_name("cae")
COLORS = ("red", "green", "blue", "white", "black", "yellow", "gray", "purple")


def run(*words: str) -> str:
    """Run a command in the current folder and return what it prints."""
    done = subprocess.run([COMMAND, *words], text=True, capture_output=True)
    assert done.returncode == 0, f"cae {' '.join(words)}: {done.stderr}"
    return done.stdout


def draw_items(root: Path) -> dict[str, dict[str, str]]:
    """Write pictures of one colour each, and a file of SugarCrepe that asks for the colour."""
    items = {}
    for number, color in enumerate(COLORS):
        picture = root / "coco" / "val2017" / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), color).save(picture)
        others = [other for other in COLORS if other != color]
        items[str(number)] = {
            "filename": picture.name,
            "caption": f"a {color} wall",
            "negative_caption": f"a {random.choice(others)} wall",
        }
    rows = root / "sugar-crepe" / "data" / "add_att.json"
    rows.parent.mkdir(parents=True)
    rows.write_text(json.dumps(items))
    return items


def accuracy(clip: cae.Clip, items: dict[str, dict[str, str]], pictures: Path) -> float:
    """Compute the share of items whose caption is closer to the picture than the other one."""
    n_right = 0
    for item in items.values():
        image = clip.preprocess(Image.open(pictures / item["filename"]).convert("RGB"))
        tokens = clip.tokenizer([item["caption"], item["negative_caption"]])
        with torch.no_grad():
            vector = clip.model.encode_image(image[None], normalize=True)
            right, wrong = (clip.model.encode_text(tokens, normalize=True) @ vector[0]).tolist()
        n_right += right > wrong
    return n_right / len(items)


def main() -> None:
    """List the sets, and compare the accuracy that the command finds with one computed here."""
    listed = run("data", "list")
    for name in ("openai-vit-b-32", "coco-val2017", "sugarcrepe"):
        assert f"\n{name}: " in f"\n{listed}", f"cae data list does not have {name}"

    random.seed(0)
    root = Path("data", "raw")
    items, clip = draw_items(root), cae.load_clip("clip-mini")
    expected = accuracy(clip, items, root / "coco" / "val2017")
    torch.save(clip.model.state_dict(), "random.pt")
    printed = run(
        "evaluate",
        "random.pt",
        "--model",
        "clip-mini",
        "--activation",
        clip.activation,
        "--only",
        "sugarcrepe",
        "-o",
        "scores",
    )
    assert "sugarcrepe/add_att" in printed, printed
    with Path("scores", "random.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["dataset"] == "sugarcrepe/add_att" and float(row["n_used"]) == len(items), row
    assert abs(float(row["acc"]) - expected) < 1e-9, (row, expected)


if __name__ == "__main__":
    place = Path(cae.__file__)
    assert place.is_relative_to(sys.prefix), f"cae_lib comes from {place}, not from the wheel"
    assert not Path("pyproject.toml").exists(), "this is to run outside of a clone"
    main()
    print("`cae data list` and `cae evaluate` work from the wheel alone")
