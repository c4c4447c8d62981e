"""The trainer: trains CLIP, optionally with hard negatives and CAE's attribution loss."""

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
from torch import nn

from cae_lib.config import Experiment
from cae_lib.data.captions import ImageCaptionPairs
from cae_lib.data.images import ImagesOnDisk, TrainingImages
from cae_lib.errors import CaeError, Terminated, TimeLimitError
from cae_lib.models.checkpoint import (
    CheckpointMeta,
    load_state,
    open_log,
    save_checkpoint,
    save_state,
)
from cae_lib.models.clip import Clip
from cae_lib.runtime import ExecutionOptions, Progress, format_seconds, uses_bf16
from cae_lib.training.batch import (
    STOP_SIGNALS,
    Batch,
    Batches,
    RandomStream,
    placebo_roles,
    prefetch,
    seeded_generator,
    select_swaps,
)
from cae_lib.training.distributed import Ranks, init_distributed
from cae_lib.training.features import encode_image_features, precompute_features, split_image_tower
from cae_lib.training.inputs import run_inputs
from cae_lib.training.objective import Objective, adamw, gradient_norm, learning_rate
from cae_lib.words.alignment import Alignment

STATE_FILE, LOG_FILE = "state.pt", "log.jsonl"
"""Names of two files in the folder of a run: the state of an unfinished run, and the log."""

PROGRESS_LABELS = {"loss": "loss", "objects": "A_obj", "composition": "A_comp"}
"""Labels of the logged values that the progress bar shows, by the name of the value."""

TIMED_STEPS = 2
"""Number of first steps of a call of `train` from which its duration is estimated."""

FIRST_SAVE_SECONDS = 60
"""Seconds of training after which the state is saved for the first time in a call of `train`."""

MAX_LOGIT_SCALE = math.log(100)
"""Upper bound of the parameter `logit_scale`, so that the inverse temperature is at most 100."""

StepHook = Callable[[int, nn.Module], None]
"""Function that is called with the number of steps taken and the model."""


class NotFiniteError(CaeError):
    """The loss or gradient is infinite or not a number; the weights are those before the step."""


def train(
    experiment: Experiment,
    clip: Clip,
    pairs: ImageCaptionPairs,
    alignment: Alignment,
    images: TrainingImages,
    out_dir: str | Path,
    *,
    label: str | None = None,
    show_progress: bool = True,
    on_step_every: int | None = None,
    on_step: StepHook | None = None,
    save_every: int = 200,
    execution: ExecutionOptions | None = None,
    inputs: Mapping[str, str] | None = None,
    hours: float | None = None,
) -> Path:
    """Train `clip.model` in place, continuing from the state in `out_dir` if there is one.

    Everything random is a function of (seed, step), so a resumed run takes the same steps as an
    uninterrupted one. Processes started by `torchrun` share each batch. They take the same steps as
    one process, up to rounding, unless the model or the attribution method draws random numbers.
    Only rank 0 writes files, shows progress and calls `on_step`, the last time after the last step.

    `out_dir` gets `model.safetensors` with `model.json`, `log.jsonl` with a line for each step, and
    until the run is complete `state.pt`. A run leaves its state there if it is stopped by Ctrl-C or
    SIGTERM (KeyboardInterrupt), by a loss that is not finite (NotFiniteError), or because the
    remaining steps would take more than `hours` (TimeLimitError). A state with other `inputs`, by
    default those of `run_inputs`, is not continued. Returns the path of the weights.
    """
    out, end = Path(out_dir), experiment.steps
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        ranks = stack.enter_context(init_distributed(next(clip.model.parameters()).device))
        show_progress = show_progress and ranks.is_main
        run = TrainingRun(
            experiment, clip, pairs, alignment, images, ranks, execution, show_progress, inputs
        )
        start = load_state(
            out / STATE_FILE,
            run.identity,
            run.model,
            run.optimizer,
            run.unwrapped_objective.adaptive_margin,
        )
        report = stack.enter_context(
            _step_reporter(run, start, out, label, show_progress, on_step_every, on_step)
        )
        stack.callback(run.model.eval)
        on_gpu = run.device.type == "cuda"
        # Each step seeds the global generators; at the end the caller gets theirs back.
        stack.enter_context(torch.random.fork_rng([run.device] if on_gpu else []))
        # Not earlier: while a run is set up, Ctrl-C ends it at once.
        received = stack.enter_context(_caught_signals())
        # Entered after the signals are caught, and so left before: workers end undisturbed.
        batches = stack.enter_context(run.prefetch(start, end))
        run.set_train_mode()
        durations: list[float] = []
        elapsed, is_saved = 0.0, False
        for step in range(start, end):
            started = time.perf_counter()
            batch = next(batches)
            try:
                values = run.step(step, batch)
            except NotFiniteError:
                # The weights are still those before this step.
                run.save(out / STATE_FILE, step)
                raise
            # Measured before `report` calls the hook, whose time is not that of training.
            seconds = time.perf_counter() - started
            report(values | {"samples_per_second": len(batch.rows) / seconds})
            # All processes stop after the same step, or the others would wait for those that have
            # stopped. After the last step, the run is completed instead.
            stop = ranks.any(bool(received), run.device) and step + 1 < end
            durations.append(seconds)
            elapsed += seconds
            too_long = None
            if len(durations) == TIMED_STEPS:
                # The fastest step, because a first step may be slow; its mean over all processes,
                # so that all of them decide alike.
                fastest = ranks.sum(torch.tensor(min(durations), device=run.device)) / ranks.size
                too_long = _too_long_error(experiment, float(fastest), end - step - 1, hours)
            # A process that is killed early should not have to start afresh. Processes need not
            # agree on this, since only the main one saves.
            is_due = elapsed >= FIRST_SAVE_SECONDS and not is_saved
            if stop or too_long or is_due or (step + 1) % save_every == 0:
                run.save(out / STATE_FILE, step + 1)
                is_saved = True
            if too_long:
                raise too_long
            if stop:
                # A process that got no signal itself raises the base class of `Terminated`.
                kind = Terminated if signal.SIGTERM in received else KeyboardInterrupt
                raise kind(f"stopped after step {step + 1}; run again to go on")
        return _finish(run, out)


def _too_long_error(
    experiment: Experiment, step_seconds: float, steps: int, hours: float | None
) -> TimeLimitError | None:
    """Return an error if `steps` more steps would take more than `hours`, otherwise None."""
    seconds = step_seconds * steps
    if hours is None or seconds <= 3600 * hours:
        return None
    return TimeLimitError(
        f"{experiment.name}, seed {experiment.seed}: {steps:,} more steps would take about "
        f"{format_seconds(seconds)} here ({step_seconds:.1f} s a step), and {hours:g} h are "
        f"allowed. Allow it with hours={math.ceil(seconds / 3600)}: the training goes on from the "
        "steps that it has taken."
    )


class TrainingRun:
    """Model, data, loss and optimiser of one training run; a locked image tower is frozen in place.

    The arguments are those of `train`, and the processes of the run, None for a single one.
    """

    def __init__(
        self,
        experiment: Experiment,
        clip: Clip,
        pairs: ImageCaptionPairs,
        alignment: Alignment,
        images: TrainingImages,
        ranks: Ranks | None = None,
        execution: ExecutionOptions | None = None,
        show_progress: bool = False,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        self.experiment, self.clip = experiment, clip
        self.model: Any = clip.model
        self.ranks, execution = ranks or Ranks(), execution or ExecutionOptions()
        if execution.grad_checkpointing:
            self.model.set_grad_checkpointing(True)
        self.device = next(clip.model.parameters()).device
        self.identity = dict(inputs or run_inputs(experiment, pairs.name, clip.weights_id))
        bf16 = uses_bf16(experiment.precision, self.device)
        self.locked, encode_locked, encode_rest = split_image_tower(clip.model, experiment)
        if self.locked is not None:
            # Before the optimiser and `DistributedDataParallel` collect what is trained.
            self.locked.requires_grad_(False)
        n_workers = execution.worker_count(isinstance(images, ImagesOnDisk))
        # Without random crops, the locked part returns the same for an image in each epoch.
        if self.locked is not None and not experiment.augment:
            source = precompute_features(
                clip,
                self.locked,
                images,
                encode_locked,
                bf16,
                self.ranks,
                n_workers,
                show_progress,
            )
            # Features are in memory, so there is nothing to decode ahead.
            encoder, self.workers = encode_rest, 0
        else:
            encoder, source, self.workers = encode_image_features, images, n_workers
        # `match_gradient` compares with the roles as they are before the next line shuffles them.
        parsed_roles = alignment.roles if experiment.match_gradient else None
        alignment = placebo_roles(alignment, experiment.roles, experiment.seed)
        # After the placebo, which has no swaps: selecting some of them is then refused. Words are
        # told by their texts, or by their ids if a tokenizer cannot decode.
        alignment = select_swaps(
            alignment, experiment.swapped, getattr(clip.tokenizer, "decode", repr)
        )
        self.batches = Batches(
            experiment, pairs, alignment, source, clip.tokenizer, self.ranks, parsed_roles
        )
        self.optimizer = adamw(
            clip.model, experiment.lr, experiment.weight_decay, experiment.betas, experiment.eps
        )
        # `DistributedDataParallel` does not pass on attributes such as `adaptive_margin`.
        self.unwrapped_objective = Objective(clip.model, experiment, self.ranks, encoder, bf16)
        self.objective = self.ranks.wrap(self.unwrapped_objective)

    def prefetch(self, start: int, end: int) -> AbstractContextManager[Iterator[Batch]]:
        """Return a context manager with the batches of steps `start` to `end` - 1, made ahead."""
        steps, on_gpu = range(start, end), self.device.type == "cuda"
        return prefetch(self.batches.at, steps, self.workers, pin=on_gpu)

    def set_train_mode(self) -> None:
        """Put the model into training mode, except for the locked part of its image tower."""
        self.model.train()
        # In training mode, the locked part would drop units and update its batch statistics.
        if self.locked is not None:
            self.locked.eval()

    def step(self, step: int, batch: Batch) -> dict[str, float]:
        """Take an optimiser step on a batch, and return the values to log.

        Steps count from 0, but the value "step" from 1. If the loss or the gradient is not finite,
        NotFiniteError is raised, and weights, optimiser and adaptive margin stay as they were.
        """
        settings = self.experiment
        # Dropout and attribution methods draw from the global generators. Seeded by step, a resumed
        # run draws what an uninterrupted one draws.
        torch.manual_seed(seeded_generator(settings.seed, RandomStream.MODEL, step).initial_seed())
        lr = learning_rate(step, settings.steps, settings.lr, settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        # The forward pass replaces the margin, but a step that is not taken must not.
        previous_margin = self.unwrapped_objective.adaptive_margin
        tensors = self.objective(batch.prepare(self.device))
        tensors["loss"].backward()
        tensors["gradient_norm"] = gradient_norm(self.model)
        # One transfer for all values, because each one waits for the GPU.
        numbers = torch.stack([value.detach().float() for value in tensors.values()]).tolist()
        values = {"step": step + 1, **dict(zip(tensors, numbers, strict=True)), "lr": lr}
        # Before the update, which would make weights NaN. All processes have the same loss and the
        # same averaged gradient, so all of them raise.
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            self.unwrapped_objective.adaptive_margin = previous_margin
            raise NotFiniteError(
                f"step {step + 1} of {settings.name}: loss {values['loss']}, gradient norm "
                f"{values['gradient_norm']}; expected finite numbers. Rows of "
                f"{self.batches.pairs.name} in this batch: {batch.rows.tolist()}. "
                "Check these rows, or train with a lower learning rate in another folder."
            )
        self.optimizer.step()
        # As in open_clip's loop: the inverse temperature stays between 1 and 100.
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        return values

    def save(self, path: Path, step: int) -> None:
        """Save the state after `step` steps to `path`; only the main process writes."""
        if self.ranks.is_main:
            margin = self.unwrapped_objective.adaptive_margin
            save_state(path, self.identity, step, self.model, self.optimizer, margin)


@contextmanager
def _step_reporter(
    run: TrainingRun,
    start: int,
    out: Path,
    label: str | None,
    show_progress: bool,
    every: int | None,
    on_step: StepHook | None,
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that logs a step, shows progress and calls the hook, in the main process."""
    if not run.ranks.is_main:
        yield lambda values: None
        return
    settings, end = run.experiment, run.experiment.steps
    label = (label or f"{settings.name}/{settings.seed}") + (f" from step {start}" if start else "")
    with (
        open_log(out / LOG_FILE, start) as lines,
        Progress(end - start, label) if show_progress else nullcontext() as progress,
    ):

        def report(values: dict[str, Any]) -> None:
            lines.write(json.dumps(values) + "\n")
            if progress:
                shown = {
                    text: values[key] for key, text in PROGRESS_LABELS.items() if key in values
                }
                shown["samples/s"] = f"{values['samples_per_second']:.0f}"
                progress.update(1, **shown)
            n_steps = values["step"]
            # The hook sees the model without dropout, and may leave it in any mode.
            if on_step and every and (n_steps % every == 0 or n_steps == end):
                run.model.eval()
                on_step(n_steps, run.model)
                run.set_train_mode()

        yield report


@contextmanager
def _caught_signals() -> Iterator[list[int]]:
    """Yield a list that collects the numbers of received signals: SIGINT (Ctrl-C) and SIGTERM."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        # A further Ctrl-C acts at once. A further SIGTERM does not, because `timeout` sends it to
        # the process and to its group.
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    # Python lets only the main thread catch signals; in others the list stays empty.
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, handle) for number in STOP_SIGNALS if is_main}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _finish(run: TrainingRun, out: Path) -> Path:
    checkpoint = out / "model.safetensors"
    if run.ranks.is_main:
        settings, clip = run.experiment, run.clip
        extra = {
            "experiment": settings.name,
            "started_from": clip.weights_id,
            "identity": run.identity,
        }
        # The activation is stored with the weights, which do not tell GELU from QuickGELU.
        meta = CheckpointMeta(clip.name, clip.activation, settings.steps, settings.key(), extra)
        save_checkpoint(checkpoint, clip, meta)
        # Only now: a crash while the weights are written can still be resumed from the state.
        (out / STATE_FILE).unlink(missing_ok=True)
    # The other processes return only when the weights are there.
    run.ranks.barrier()
    return checkpoint
