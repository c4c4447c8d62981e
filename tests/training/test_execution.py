"""Options of speed and memory change nothing but rounding."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toys import FT, toy_run

from cae_lib.errors import ConfigError
from cae_lib.training.execution import MAX_WORKERS, Execution

SETTINGS = replace(FT, method="gradcam", weight=3.0, margin=2.0)


def loss_and_gradients(execution: Execution) -> dict[str, Tensor]:
    run = toy_run(SETTINGS, execution=execution)
    loss = run.objective(run.batches.at(0))["loss"]
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad for n, p in run.model.named_parameters()}


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return loss_and_gradients(Execution())


@pytest.mark.parametrize("execution", [
    Execution(checkpointing=True),
    Execution(channels_last=True),
    Execution(checkpointing=True, channels_last=True, compile="aot_eager"),
], ids=["checkpointing", "channels-last", "all"])
def test_loss_and_gradients_are_those_of_the_plain_run(execution, plain) -> None:
    found = loss_and_gradients(execution)
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_options_are_put_to_use(monkeypatch) -> None:
    run = toy_run(SETTINGS, execution=Execution(checkpointing=True, channels_last=True))
    assert run.model.transformer.grad_checkpointing
    assert run.model.visual.transformer.grad_checkpointing
    assert run.model.visual.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not toy_run(SETTINGS).model.transformer.grad_checkpointing
    calls = []

    def compiler(function, backend):
        calls.append(backend)
        return lambda model, pixels: 2 * function(model, pixels)

    monkeypatch.setattr(torch, "compile", compiler)
    encoder = Execution(compile="inductor").image_encoder(lambda model, pixels: pixels)
    assert calls == ["inductor"] and encoder(None, torch.ones(1)).item() == 2


@pytest.mark.parametrize(("workers", "decoding", "ranks", "expected"), [
    (None, False, 1, 0), (None, True, 1, MAX_WORKERS), (None, True, 8, 8), (None, True, 100, 1),
    (3, False, 2, 3), (0, True, 1, 0),
])
def test_workers_share_the_cores_if_they_have_work(monkeypatch, workers, decoding, ranks, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert Execution(workers=workers).worker_count(decoding, ranks) == expected


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown compile backend 'turbo'.*inductor"):
        Execution(compile="turbo")
    with pytest.raises(ConfigError, match="workers is -1"):
        Execution(workers=-1)
