"""The trainer: CLIP-FT or NegCLIP, each with the attribution loss on request (CAE)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import Clip
from cae_lib.runtime import Progress
from cae_lib.training.batch import Batch, ImageSource
from cae_lib.training.distributed import joined
from cae_lib.training.execution import Execution
from cae_lib.training.interrupt import Interrupt
from cae_lib.training.log import RunLog
from cae_lib.training.run import NotFiniteError, Run
from cae_lib.training.state import load_state
from cae_lib.words.alignment import Alignment

STATE, LOG = "state.pt", "log.jsonl"
OnStep = Callable[[int, nn.Module], None]


@dataclass(frozen=True)
class TrainResult:
    """Where a run ended: files, optimiser steps taken, and the last line of its log."""

    checkpoint: Path
    log: Path
    step: int
    last: dict[str, float]


def train(
    experiment: Experiment,
    clip: Clip,
    pairs: Pairs,
    alignment: Alignment,
    images: ImageSource,
    out_dir: str | Path,
    *,
    log: bool = True,
    stop_after: int | None = None,
    every: int | None = None,
    on_step: OnStep | None = None,
    save_every: int = 200,
    execution: Execution | None = None,
) -> TrainResult:
    """Train both towers of `clip.model` in place, going on where `out_dir` left off.

    Writes `model.safetensors`, `log.jsonl` (one line a step) and, until the run is complete,
    `state.pt`. Order of the rows, crops and the model's own randomness are functions of
    (seed, step), so a resumed run takes the very steps of an uninterrupted one. Processes started
    by `torchrun` share each batch and take the steps of one process, up to rounding; only the
    first one writes and calls `on_step`.

    Args:
        experiment: `method` None trains CLIP-FT, else L = L_ITC + weight * L_attr (CAE, section 3);
            `negatives` makes L_ITC that of NegCLIP.
        clip: the model to start from.
        pairs: the training set.
        alignment: tokens and roles of `pairs.captions`.
        images: pictures of `pairs.image_paths`, in that order.
        out_dir: folder of the run.
        log: show the progress line.
        stop_after: stop once this many steps are taken, with a checkpoint and a state to go on.
        every: steps between two calls of `on_step`; the last step is always among them.
        on_step: called with (steps taken, model in evaluation mode).
        save_every: steps between two state files.
        execution: choices of speed and memory.

    Raises:
        ConfigError: the batch size does not fit the data or the number of processes.
        DataError: pairs, alignment and pictures differ in length, or negatives are not there.
        CheckpointError: `out_dir` holds the state of another run.
        NotFiniteError: loss or gradient is not finite; names the rows, the state is saved.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the state is saved.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ranks = stack.enter_context(joined(next(clip.model.parameters()).device))
        run = Run(experiment, clip, pairs, alignment, images, ranks, execution)
        start = load_state(out / STATE, run.identity, clip.model, run.optimizer)
        end = max(start, min(experiment.steps, stop_after or experiment.steps))
        lines = RunLog(out / LOG, start, keep=ranks.is_main)
        stack.callback(lines.close)
        label = f"{experiment.name}/{experiment.seed}" + (f" from step {start}" if start else "")
        progress = Progress(end - start, label) if log and ranks.is_main else None
        if progress:
            stack.enter_context(progress)
        hook = _hook(clip.model, on_step if ranks.is_main else None, every, end)
        _take_steps(run, range(start, end), lines, progress, hook, out / STATE, save_every)
        return _finish(run, clip, end, lines, out)


def _take_steps(
    run: Run,
    steps: range,
    lines: RunLog,
    progress: Progress | None,
    hook: Callable[[int], None],
    state: Path,
    save_every: int,
) -> None:
    """Take the steps, with a state every `save_every` of them and when asked to stop."""
    with ExitStack() as stack:
        stack.callback(run.model.eval)
        stack.enter_context(torch.random.fork_rng(run.cuda_devices))
        interrupt = stack.enter_context(Interrupt())
        batches = stack.enter_context(closing(run.feed(steps.start, steps.stop)))
        run.model.train()
        for step in steps:
            _take_step(run, step, batches, lines, progress, state)
            hook(step + 1)
            asked = run.ranks.any(interrupt.requested, run.device)
            stop = asked and step + 1 < run.experiment.steps
            if stop or (step + 1) % save_every == 0:
                run.save(state, step + 1)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step + 1}; run again to go on")


def _take_step(
    run: Run,
    step: int,
    batches: Iterator[Batch],
    lines: RunLog,
    progress: Progress | None,
    state: Path,
) -> None:
    started = time.perf_counter()
    batch = next(batches)
    try:
        values = run.step(step, batch)
    except NotFiniteError:
        run.save(state, step)
        raise
    values["samples_per_second"] = len(batch.rows) / (time.perf_counter() - started)
    lines.write(values)
    if progress:
        progress.update(1, **_shown(values))


def _hook(
    model: nn.Module, on_step: OnStep | None, every: int | None, end: int
) -> Callable[[int], None]:
    """Call `on_step` after every `every` steps and after step `end`, in evaluation mode."""

    def hook(done: int) -> None:
        if on_step and every and (done % every == 0 or done == end):
            model.eval()
            on_step(done, model)
            model.train()

    return hook


def _shown(values: dict[str, float]) -> dict[str, float | str]:
    names = {"loss": "loss", "objects": "A_obj", "composition": "A_comp"}
    shown = {name: values[key] for key, name in names.items() if key in values}
    return {**shown, "samples/s": f"{values['samples_per_second']:.0f}"}


def _finish(run: Run, clip: Clip, step: int, lines: RunLog, out: Path) -> TrainResult:
    """Write the checkpoint, and the state as long as steps are left to take."""
    complete = step == run.experiment.steps
    checkpoint = out / "model.safetensors"
    if not complete:
        run.save(out / STATE, step)
    if run.ranks.is_main:
        pairs = run.batches.pairs
        partial = pairs.n_used != pairs.n_expected
        extra = {"rows": [pairs.n_used, pairs.n_expected]} if partial else {}
        extra |= {"experiment": run.experiment.name, "started_from": clip.weights_id}
        meta = CheckpointMeta(
            model=clip.name,
            activation=clip.activation,
            step=step,
            config_key=run.experiment.key(),
            extra=extra | {"identity": run.identity},
        )
        save_checkpoint(checkpoint, clip, meta)
        if complete:
            (out / STATE).unlink(missing_ok=True)
    run.ranks.wait()
    return TrainResult(checkpoint, out / LOG, step, lines.last)
