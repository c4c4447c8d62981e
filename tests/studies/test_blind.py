"""The average image as a baseline, on vectors written by hand."""

from pathlib import Path

import torch

from book.studies import blind
from cae_lab.profiles import load_profile
from cae_lib.data.captions import ImageCaptionPairs


def test_the_average_picture_stands_for_every_picture(
    choice, benchmark_of, hand_encoder, monkeypatch
):
    encoder = hand_encoder(
        {"a": [1, 0], "b": [0, 1], "c": [1, 0]},
        {"right": [0.8, 0.6], "left": [0.6, 0.8], "up": [0.0, 1.0]},
    )
    pairs = ImageCaptionPairs([Path(name) for name in "abc"], [], torch.tensor([]), "toy", 0, 0)
    items = choice(["p"], ["left", "up"]), choice(["q"], ["left", "right"])
    monkeypatch.setattr(blind, "available_training_pairs", lambda profile: pairs)
    monkeypatch.setattr(blind, "load_benchmarks", lambda profile: [benchmark_of(*items)])
    found = blind.average_image_table(encoder, load_profile("smoke"))
    assert set(found.chooser) == {"average picture"} and found.share.tolist() == [1, 0]
