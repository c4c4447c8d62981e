"""Options of speed and memory change nothing but rounding."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.errors import ConfigError
from cae_lib.models.clip import load_clip
from cae_lib.training.execution import MAX_WORKERS, Execution
from cae_lib.training.run import Run
from cae_lib.words.alignment import align
from cae_lib.words.roles import ATTRIBUTE, OBJECT, Span

SETTINGS = Experiment("fast", "smoke", steps=2, batch_size=4, method="gradcam", weight=3.0,
                      margin=2.0)


class Pictures:
    """Random pictures, never cropped."""

    def __init__(self) -> None:
        self.pixels = torch.randn(4, 3, 112, 112, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 4

    def batch(self, index, generator=None):
        return self.pixels[index]


def make_run(execution: Execution) -> Run:
    clip = load_clip("clip-mini", seed=0)
    captions = ["a red cat", "a blue dog", "a wet car", "a big cup"]
    spans = [[Span(2, 5, ATTRIBUTE), Span(len(c) - 3, len(c), OBJECT)] for c in captions]
    pairs = Pairs([Path(f"{i}.png") for i in range(4)], captions, torch.arange(4), "toy", 4, 4)
    alignment = align(captions, spans, clip.tokenizer)
    return Run(SETTINGS, clip, pairs, alignment, Pictures(), execution=execution)


def loss_and_gradients(execution: Execution) -> dict[str, Tensor]:
    run = make_run(execution)
    loss = run.objective(run.batches.at(0))["loss"]
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad for n, p in run.model.named_parameters()}


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return loss_and_gradients(Execution())


@pytest.mark.parametrize(
    "execution",
    [
        Execution(checkpointing=True),
        Execution(channels_last=True),
        Execution(compile="aot_eager"),
        Execution(checkpointing=True, channels_last=True, compile="aot_eager"),
    ],
    ids=["checkpointing", "channels-last", "compile", "all"],
)
def test_loss_and_gradients_are_those_of_the_plain_run(execution, plain) -> None:
    found = loss_and_gradients(execution)
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_options_are_put_to_use() -> None:
    run = make_run(Execution(checkpointing=True, channels_last=True))
    assert run.model.transformer.grad_checkpointing
    assert run.model.visual.transformer.grad_checkpointing
    assert run.model.visual.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not make_run(Execution()).model.transformer.grad_checkpointing


def test_compiled_pictures_pass_through_the_compiler(monkeypatch) -> None:
    calls = []

    def compiler(function, backend):
        calls.append(backend)
        return lambda model, pixels: 2 * function(model, pixels)

    monkeypatch.setattr(torch, "compile", compiler)
    encoder = Execution(compile="inductor").image_encoder(lambda model, pixels: pixels)
    assert calls == ["inductor"] and encoder(None, torch.ones(1)).item() == 2


def test_workers_are_chosen_by_what_there_is_to_do() -> None:
    assert Execution().worker_count(decoding=False, ranks=1) == 0
    assert 1 <= Execution().worker_count(decoding=True, ranks=1) <= MAX_WORKERS
    assert Execution().worker_count(decoding=True, ranks=10_000) == 1
    assert Execution(workers=3).worker_count(decoding=False, ranks=2) == 3
    assert Execution(workers=0).worker_count(decoding=True, ranks=1) == 0


@pytest.mark.parametrize(("ranks", "workers"), [(1, MAX_WORKERS), (8, 8), (100, 1)])
def test_workers_share_the_cores_of_the_machine(monkeypatch, ranks, workers) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert Execution().worker_count(decoding=True, ranks=ranks) == workers


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown compile backend 'turbo'.*inductor"):
        Execution(compile="turbo")
    with pytest.raises(ConfigError, match="workers is -1"):
        Execution(workers=-1)
