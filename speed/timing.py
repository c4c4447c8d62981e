"""Time, peak memory and operators of interchangeable pieces of work, measured in turns.

Rounds are interleaved: each round runs every candidate once, and each round starts with another
one, so that a machine that slows down for a while slows all of them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

Work = Callable[[int], object]
"""Does the work of one round; takes the round's number."""

Clock = Callable[[], float]
CLOCKS: Mapping[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
"""What time is: the wall's clock, or the seconds that processors worked for this process, summed
over threads, which other programs hardly disturb."""

PHASE = "phase/"
"""Beginning of the names that a `record_function` gives to the parts of a piece of work."""


def interleaved(
    work: Mapping[str, Work],
    rounds: int,
    device: torch.device,
    few: Mapping[str, int] | None = None,
    clock: Clock = time.perf_counter,
    say: Callable[[str], None] = print,
) -> list[dict[str, float]]:
    """Seconds of each candidate in each round.

    Args:
        work: the candidates.
        rounds: how often each one runs.
        device: where they compute.
        few: candidates that run in the first rounds only, with the number of these rounds.
        clock: a key's value of `CLOCKS`.
        say: told after each round.
    """
    found = []
    for number in range(rounds):
        names = [name for name in work if number < (few or {}).get(name, rounds)]
        start = number % len(names)
        order = [*names[start:], *names[:start]]
        seconds = {name: timed(work[name], number, device, clock) for name in order}
        found.append({name: seconds[name] for name in names})
        listed = ", ".join(f"{name} {seconds[name]:.3g} s" for name in names)
        say(f"round {number + 1} of {rounds}: {listed}")
    return found


def timed(work: Work, number: int, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Seconds that one piece of work takes, up to the end of what it started on a GPU."""
    gc.collect()
    _wait(device)
    start = clock()
    work(number)
    _wait(device)
    return clock() - start


def profiled(work: Work, number: int, device: torch.device, most: int = 12) -> dict[str, Any]:
    """Peak memory, phases and operators of one piece of work.

    The peak counts tensors alone: on a GPU `max_memory_allocated`, on the CPU the largest sum of
    what the allocator has given out and not got back, from the profiler's record of every call.

    Args:
        work: as in `interleaved`.
        number: its argument.
        device: where it computes.
        most: number of operators to keep, the slowest ones.

    Returns:
        `bytes`, the peak above what was in use before; `phases`, name to seconds; `operators`, a
        list of `name`, `seconds` (without the operators it calls) and `calls`; `seconds` in all.
    """
    gc.collect()
    _wait(device)
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    with profile(activities=activities, profile_memory=device.type == "cpu") as record:
        start = time.perf_counter()
        work(number)
        _wait(device)
        seconds = time.perf_counter() - start
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) - before
    else:
        peak = _peak_of_calls(record)
    return {"bytes": peak, "seconds": seconds, **_breakdown(record, device, most)}


def memory_in_use(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the weights and of the optimiser's state."""
    tensors = [*model.parameters(), *model.buffers()]
    for state in optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.nbytes for tensor in tensors)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_of_calls(record: profile) -> int:
    """Largest sum of bytes in use, counted from the start of the profile."""
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    in_use = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    return peak


def _breakdown(record: profile, device: torch.device, most: int) -> dict[str, Any]:
    """Phases and operators of a profile."""
    own, whole = "self_cpu_time_total", "cpu_time_total"
    if device.type == "cuda":
        own, whole = "self_device_time_total", "device_time_total"
    averages = record.key_averages()
    phases = [event for event in averages if event.key.startswith(PHASE)]
    others = [e for e in averages if not e.key.startswith(PHASE) and getattr(e, own) > 0]
    slowest = sorted(others, key=lambda event: -getattr(event, own))[:most]
    return {
        "phases": {e.key.removeprefix(PHASE): getattr(e, whole) / 1e6 for e in phases},
        "operators": [
            {"name": e.key, "seconds": getattr(e, own) / 1e6, "calls": e.count} for e in slowest
        ],
    }
