"""How a training run is executed: choices of speed and memory that are no part of its result."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cae_lib.errors import ConfigError

MAX_WORKERS = 16
"""Worker processes chosen at most; each holds two batches ahead."""


@dataclass(frozen=True)
class Execution:
    """Options that change a run's speed and memory; its numbers change by rounding at most.

    Attributes:
        checkpointing: recompute activations in the backward pass: less memory, more time.
        channels_last: store pictures and convolutions channel by channel last, as GPUs prefer.
        compile: backend of `torch.compile` for the image tower ("inductor"); None does without.
            The text tower's packed captions have another length in every batch, which would have
            to be compiled each time.
        workers: processes that prepare batches ahead; 0 prepares each in the main process, None
            chooses by the picture source: several where photographs are decoded, else 0.
    """

    checkpointing: bool = False
    channels_last: bool = False
    compile: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; expected 0 or more, or None.")
        if self.compile is not None:
            known = torch._dynamo.list_backends(exclude_tags=())
            if self.compile not in known:
                raise ConfigError(
                    f"unknown compile backend {self.compile!r}: expected one of {', '.join(known)}."
                )

    def prepare(self, model: nn.Module) -> None:
        """Set the model up, in place."""
        if self.checkpointing:
            model.set_grad_checkpointing(True)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)

    def image_encoder(
        self, encode: Callable[[nn.Module, Tensor], Tensor]
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """`encode` with pictures laid out and compiled as asked for."""
        encoder = torch.compile(encode, backend=self.compile) if self.compile else encode
        if not self.channels_last:
            return encoder
        return lambda model, pixels: encoder(
            model, pixels.contiguous(memory_format=torch.channels_last)
        )

    def worker_count(self, decoding: bool, ranks: int) -> int:
        """Worker processes of each rank.

        Args:
            decoding: whether pictures are decoded for each batch.
            ranks: processes that share this machine.
        """
        if self.workers is not None:
            return self.workers
        if not decoding:
            return 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return max(1, min(MAX_WORKERS, (cores or 1) // ranks))
