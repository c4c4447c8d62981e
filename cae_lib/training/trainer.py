"""The trainer: CLIP-FT or NegCLIP, each with the attribution loss on request (CAE)."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from cae_lib.config import Experiment
from cae_lib.data.captions import Pairs
from cae_lib.data.images import ImagesOnDisk, TrainingImages
from cae_lib.errors import CaeError, Terminated, TooLongError
from cae_lib.keys import run_inputs
from cae_lib.models.checkpoint import CheckpointMeta, save_checkpoint
from cae_lib.models.clip import Clip
from cae_lib.models.image_tower import encode_image
from cae_lib.runtime import Progress, format_seconds
from cae_lib.training.batch import Batch, Batches, Stream, generator, placebo_roles
from cae_lib.training.distributed import Ranks, joined
from cae_lib.training.execution import SIGNALS, Execution, feed
from cae_lib.training.features import locked_part, picture_features
from cae_lib.training.objective import Objective, adamw, gradient_norm, learning_rate
from cae_lib.training.state import load_state, open_log, save_state
from cae_lib.words.alignment import Alignment

STATE, LOG = "state.pt", "log.jsonl"
# Values of the log that the progress line shows, and what it calls them.
SHOWN = {"loss": "loss", "objects": "A_obj", "composition": "A_comp"}
TIMED_STEPS = 2  # from which the time of a training is estimated; the first one warms up
MAX_LOGIT_SCALE = math.log(100)
Hook = Callable[[int, nn.Module], None]


class NotFiniteError(CaeError):
    """A loss or gradient that is infinite or not a number; the step was not taken."""


def train(
    experiment: Experiment,
    clip: Clip,
    pairs: Pairs,
    alignment: Alignment,
    images: TrainingImages,
    out_dir: str | Path,
    *,
    log: bool = True,
    every: int | None = None,
    on_step: Hook | None = None,
    save_every: int = 200,
    execution: Execution | None = None,
    inputs: Mapping[str, str] | None = None,
    hours: float | None = None,
) -> Path:
    """Train `clip.model` in place, going on where `out_dir` left off.

    Writes `model.safetensors`, whose path is returned, `log.jsonl` (one line a step) and, until the
    run is complete, `state.pt`, every `save_every` steps. All that is drawn is a function of (seed,
    step), so a resumed run takes the very steps of an uninterrupted one. Processes started by
    `torchrun` share each batch and take the steps of one process, up to rounding; only the first
    writes, shows progress (`log`) and calls `on_step`: with the steps taken and the model in
    evaluation mode, after each `every` steps and the last. `inputs` names what the run depends on,
    see `cae_lib.keys.run_inputs`: a state of other inputs is refused. `hours` limits the time that
    the steps may take, as estimated from the first ones.

    Raises what `Run` does; CheckpointError if `out_dir` holds another run's state; and, once the
    state is saved, NotFiniteError, which names the rows, TooLongError, which says about how long
    the training would take, and KeyboardInterrupt (Ctrl-C, SIGTERM).
    """
    out, end = Path(out_dir), experiment.steps
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ranks = stack.enter_context(joined(next(clip.model.parameters()).device))
        log = log and ranks.is_main
        run = Run(experiment, clip, pairs, alignment, images, ranks, execution, log, inputs)
        start = load_state(out / STATE, run.identity, run.model, run.optimizer)
        report = stack.enter_context(_reports(run, start, out, log, every, on_step))
        stack.callback(run.model.eval)
        on_gpu = run.device.type == "cuda"
        stack.enter_context(torch.random.fork_rng([run.device] if on_gpu else []))
        asked = stack.enter_context(_signals())
        batches = stack.enter_context(run.feed(start, end))
        run.train_mode()
        durations: list[float] = []
        for step in range(start, end):
            started = time.perf_counter()
            batch = next(batches)
            try:
                values = run.step(step, batch)
            except NotFiniteError:
                run.save(out / STATE, step)
                raise
            seconds = time.perf_counter() - started
            report(values | {"samples_per_second": len(batch.rows) / seconds})
            stop = ranks.any(bool(asked), run.device) and step + 1 < end
            durations.append(seconds)
            late = None
            if len(durations) == TIMED_STEPS:
                late = _too_long(experiment, min(durations), end - step - 1, hours)
            if stop or late or (step + 1) % save_every == 0:
                run.save(out / STATE, step + 1)
            if late:
                raise late
            if stop:
                kind = Terminated if signal.SIGTERM in asked else KeyboardInterrupt
                raise kind(f"stopped after step {step + 1}; run again to go on")
        return _finish(run, out)


def _too_long(
    experiment: Experiment, step_seconds: float, steps: int, hours: float | None
) -> TooLongError | None:
    """Return the error of a training whose remaining `steps` would take more than `hours`."""
    seconds = step_seconds * steps
    if hours is None or seconds <= 3600 * hours:
        return None
    return TooLongError(
        f"{experiment.name}, seed {experiment.seed}: {steps:,} more steps would take about "
        f"{format_seconds(seconds)} here ({step_seconds:.1f} s a step), and {hours:g} h are "
        f"allowed. Allow it with hours={math.ceil(seconds / 3600)}: the training goes on from the "
        "steps that it has taken."
    )


class Run:
    """Model, data (pairs, their tokens and roles, their pictures) and optimiser of one run, with
    the errors of `Batches` and `Objective`. What a locked tower or trunk makes of uncropped
    pictures is computed once (`picture_features`)."""

    def __init__(
        self,
        experiment: Experiment,
        clip: Clip,
        pairs: Pairs,
        alignment: Alignment,
        images: TrainingImages,
        ranks: Ranks | None = None,
        execution: Execution | None = None,
        log: bool = False,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        self.experiment, self.clip, self.model = experiment, clip, clip.model
        self.ranks, execution = ranks or Ranks(), execution or Execution()
        self.device = next(clip.model.parameters()).device
        self.identity = dict(inputs or run_inputs(experiment, pairs.name, clip.weights_id))
        self.workers = execution.worker_count(isinstance(images, ImagesOnDisk))
        encoder = execution.prepare(clip.model, image_features)
        self.locked, first, rest = locked_part(clip.model, experiment, encoder)
        if self.locked is not None:
            self.locked.requires_grad_(False)
            if not experiment.augment:
                images = picture_features(
                    clip,
                    self.locked,
                    images,
                    first,
                    experiment.precision,
                    self.ranks,
                    self.workers,
                    log,
                )
                encoder, self.workers = rest, 0
        alignment = placebo_roles(alignment, experiment.roles, experiment.seed)
        self.batches = Batches(experiment, pairs, alignment, images, clip.tokenizer, self.ranks)
        self.optimizer = adamw(
            clip.model, experiment.lr, experiment.weight_decay, experiment.betas, experiment.eps
        )
        self.objective = self.ranks.wrap(Objective(clip.model, experiment, self.ranks, encoder))

    def feed(self, start: int, end: int) -> AbstractContextManager[Iterator[Batch]]:
        """The batches of steps `start` to `end` (exclusive), prepared ahead by `workers`."""
        steps, on_gpu = range(start, end), self.device.type == "cuda"
        return feed(self.batches.at, steps, self.workers, pin=on_gpu)

    def train_mode(self) -> None:
        """Put the model into training mode, but for what is locked of its image tower."""
        self.model.train()
        if self.locked is not None:
            self.locked.eval()

    def step(self, step: int, batch: Batch) -> dict[str, float]:
        """Take step `step` (from 0) on its batch and return its log line; a NotFiniteError names
        the rows of the batch, and leaves weights and optimiser unchanged."""
        settings = self.experiment
        torch.manual_seed(generator(settings.seed, Stream.MODEL, step).initial_seed())
        lr = learning_rate(step, settings.steps, settings.lr, settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        measured = self.objective(batch.to(self.device))
        measured["loss"].backward()
        measured["gradient_norm"] = gradient_norm(self.model)
        numbers = torch.stack([value.detach().float() for value in measured.values()]).tolist()
        values = {"step": step + 1, **dict(zip(measured, numbers, strict=True)), "lr": lr}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise NotFiniteError(
                f"step {step + 1} of {settings.name}: loss {values['loss']}, gradient norm "
                f"{values['gradient_norm']}; expected finite numbers. Rows of "
                f"{self.batches.pairs.name} in this batch: {batch.rows.tolist()}. "
                "Check these rows, or lower the learning rate."
            )
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        return values

    def save(self, path: Path, step: int) -> None:
        """Write the state after `step` steps to `path`, in the main process."""
        if self.ranks.is_main:
            save_state(path, self.identity, step, self.model, self.optimizer)


@contextmanager
def _reports(
    run: Run, start: int, out: Path, log: bool, every: int | None, on_step: Hook | None
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What tells of a step's values: log, progress line, hook; all in the main process alone."""
    if not run.ranks.is_main:
        yield lambda values: None
        return
    settings, end = run.experiment, run.experiment.steps
    label = f"{settings.name}/{settings.seed}" + (f" from step {start}" if start else "")
    with (
        open_log(out / LOG, start) as lines,
        Progress(end - start, label) if log else nullcontext() as progress,
    ):

        def report(values: dict[str, Any]) -> None:
            lines.write(json.dumps(values) + "\n")
            if progress:
                shown = {name: values[key] for key, name in SHOWN.items() if key in values}
                shown["samples/s"] = f"{values['samples_per_second']:.0f}"
                progress.update(1, **shown)
            done = values["step"]
            if on_step and every and (done % every == 0 or done == end):
                run.model.eval()
                on_step(done, run.model)
                run.train_mode()

        yield report


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that takes in Ctrl-C and SIGTERM; a second Ctrl-C acts. SIGTERM may come twice, to a
    process and to its group (`timeout` sends both), so a second one adds nothing. Main thread only.
    """
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in SIGNALS if here}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(run: Run, out: Path) -> Path:
    checkpoint = out / "model.safetensors"
    if run.ranks.is_main:
        pairs, settings, clip = run.batches.pairs, run.experiment, run.clip
        extra = {
            "experiment": settings.name,
            "started_from": clip.weights_id,
            "identity": run.identity,
        }
        if pairs.n_used != pairs.n_expected:
            extra["rows"] = [pairs.n_used, pairs.n_expected]
        meta = CheckpointMeta(clip.name, clip.activation, settings.steps, settings.key(), extra)
        save_checkpoint(checkpoint, clip, meta)
        (out / STATE).unlink(missing_ok=True)
    run.ranks.wait()
    return checkpoint


def image_features(model: nn.Module, pixels: Tensor) -> Tensor:
    """Features `(M, E)` of pictures `(M, 3, S, S)`, not normalised."""
    return encode_image(model, pixels).features
