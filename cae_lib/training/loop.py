"""The trainer: CLIP-FT or NegCLIP, each with the attribution loss on request (CAE)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.data.images import Pictures
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import Clip
from cae_lib.runtime import Progress
from cae_lib.training.distributed import joined
from cae_lib.training.execution import SIGNALS, Execution
from cae_lib.training.run import NotFiniteError, Run
from cae_lib.training.state import load_state, run_log
from cae_lib.words.alignment import Alignment

STATE, LOG = "state.pt", "log.jsonl"
# Values of the log that the progress line shows, and what it calls them.
SHOWN = {"loss": "loss", "objects": "A_obj", "composition": "A_comp"}


def train(
    experiment: Experiment, clip: Clip, pairs: Pairs, alignment: Alignment, images: Pictures,
    out_dir: str | Path, *, log: bool = True, every: int | None = None,
    on_step: Callable[[int, nn.Module], None] | None = None, save_every: int = 200,
    execution: Execution | None = None,
) -> Path:
    """Train both towers of `clip.model` in place, going on where `out_dir` left off.

    Writes `model.safetensors`, whose path is returned, `log.jsonl` (one line a step) and, until the
    run is complete, `state.pt`. All that is drawn is a function of (seed, step), so a resumed run
    takes the very steps of an uninterrupted one. Processes started by `torchrun` share each batch
    and take the steps of one process, up to rounding; only the first writes and calls `on_step`.

    Raises what `Run` does; CheckpointError if `out_dir` holds another run's state; and, once the
    state is saved, NotFiniteError, which names the rows, and KeyboardInterrupt (Ctrl-C, SIGTERM).

    Args:
        experiment: `method` None trains CLIP-FT, else L = L_ITC + weight * L_attr (CAE, section 3);
            `negatives` makes L_ITC that of NegCLIP.
        pairs, alignment, images: the training set, its tokens and roles, and its pictures.
        log: show the progress line.
        every: steps between two calls of `on_step`; the last step is always among them.
        on_step: called with (steps taken, model in evaluation mode).
        save_every: steps between two state files.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ranks = stack.enter_context(joined(next(clip.model.parameters()).device))
        log = log and ranks.is_main
        run = Run(experiment, clip, pairs, alignment, images, ranks, execution, log)
        start, end = load_state(out / STATE, run.identity, run.model, run.optimizer), run.steps
        write = stack.enter_context(run_log(out / LOG, start, keep=ranks.is_main))
        label = f"{experiment.name}/{experiment.seed}" + (f" from step {start}" if start else "")
        progress = stack.enter_context(Progress(end - start, label)) if log else None
        for values in stack.enter_context(closing(_steps(run, start, out / STATE, save_every))):
            write(values)
            if progress:
                shown = {name: values[key] for key, name in SHOWN.items() if key in values}
                shown["samples/s"] = f"{values['samples_per_second']:.0f}"
                progress.update(1, **shown)
            done = values["step"]
            if on_step and every and ranks.is_main and (done % every == 0 or done == end):
                run.model.eval()
                on_step(done, run.model)
                run.train_mode()
        return _finish(run, clip, out)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that takes in the first Ctrl-C or SIGTERM; a second one acts. Main thread only."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in SIGNALS if here}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _steps(run: Run, start: int, state: Path, save_every: int) -> Iterator[dict[str, Any]]:
    """Values of each step from `start` on; `state` is written in between, and before a failure."""
    with ExitStack() as stack:
        stack.callback(run.model.eval)
        stack.enter_context(torch.random.fork_rng(run.cuda_devices))
        asked = stack.enter_context(_signals())
        batches = stack.enter_context(closing(run.feed(start, run.steps)))
        run.train_mode()
        for step in range(start, run.steps):
            started = time.perf_counter()
            batch = next(batches)
            try:
                values = run.step(step, batch)
            except NotFiniteError:
                run.save(state, step)
                raise
            seconds = time.perf_counter() - started
            yield values | {"samples_per_second": len(batch.rows) / seconds}
            stop = run.ranks.any(bool(asked), run.device) and step + 1 < run.steps
            if stop or (step + 1) % save_every == 0:
                run.save(state, step + 1)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step + 1}; run again to go on")


def _finish(run: Run, clip: Clip, out: Path) -> Path:
    checkpoint = out / "model.safetensors"
    if run.ranks.is_main:
        pairs, settings = run.batches.pairs, run.experiment
        extra = {"experiment": settings.name, "started_from": clip.weights_id,
                 "identity": run.identity}
        if pairs.n_used != pairs.n_expected:
            extra["rows"] = [pairs.n_used, pairs.n_expected]
        meta = CheckpointMeta(clip.name, clip.activation, run.steps, settings.key(), extra)
        save_checkpoint(checkpoint, clip, meta)
        (out / STATE).unlink(missing_ok=True)
    run.ranks.wait()
    return checkpoint
