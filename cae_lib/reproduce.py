"""Everything of a profile, in order: data, base, runs, measurements, pages, book."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cae_lib.config import profile
from cae_lib.errors import ConfigError
from cae_lib.experiments import checkpoint_path, evaluate_run, run_training
from cae_lib.runtime import format_seconds


def reproduce(profile_name: str) -> Path:
    """Run all steps, each one only as far as it is not done yet; returns the book's first page.

    Safe to run twice and to interrupt: what a step has finished is kept.

    Raises:
        ConfigError: The profile needs data that nobody can build here.
    """
    chosen = profile(profile_name)
    if chosen.base is None:
        raise ConfigError(
            f"profile {profile_name} runs page by page, since it needs downloads and a GPU: "
            f"`cae run NAME --profile {profile_name}`"
        )
    runs = [(name, seed) for name in chosen.methods for seed in range(chosen.seeds)]
    took: dict[str, float] = {}
    _step("the small world", took, lambda: _world(profile_name))
    for name, seed in runs:
        _step(
            f"training {name}/{seed}", took, lambda n=name, s=seed: run_training(n, profile_name, s)
        )
    for name, seed in [("base", 0), *runs]:
        _step(f"measuring {name}/{seed}", took,
              lambda n=name, s=seed: evaluate_run(n, profile_name, s, fresh=True))  # fmt: skip
    _step("parser against gold", took, lambda: _words(profile_name))
    _step("pages", took, lambda: _pages(profile_name))
    book = _step("book", took, lambda: _book(profile_name))
    _report(took)
    print(f"The book is {book}", flush=True)
    return book


def _step(label: str, took: dict[str, float], action: Callable[[], object]) -> object:
    """Run one step, remember its time, and say when it is done."""
    start = time.monotonic()
    outcome = action()
    took[label] = time.monotonic() - start
    print(f"done: {label} ({format_seconds(took[label])})", flush=True)
    return outcome


def _world(profile_name: str) -> None:
    """Build the world; where no base model is shipped (smoke), train it."""
    from cae_lib.base import train_base
    from cae_lib.data.world.build import build

    build(profile_name)
    if not checkpoint_path("base", profile_name, 0).is_file():
        train_base(profile_name)


def _words(profile_name: str) -> None:
    from cae_lib.words.gold import parser_record

    parser_record(profile_name, fresh=True)


def _pages(profile_name: str) -> None:
    from cae_lib.pages.source import page_names
    from cae_lib.run import run_pages

    run_pages(page_names(), profile_name if profile_name != "mini" else None)


def _book(profile_name: str) -> Path:
    from cae_lib.pages.build import build_book

    return build_book(profile_name)


def _report(took: dict[str, float]) -> None:
    """Print the whole time and the slowest steps."""
    slowest = sorted(took.items(), key=lambda item: -item[1])[:5]
    print(f"All steps took {format_seconds(sum(took.values()))}; the slowest:")
    for label, seconds in slowest:
        print(f"  {label}: {format_seconds(seconds)}")
