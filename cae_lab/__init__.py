"""The laboratory: profiles, runs, measurements, records and figures of the book.

from cae_lab import load_profile, results

run = load_profile("mini").run("cae-gradcam", weight=0.3, seed=7)
run.train()
table = results.load("benchmarks", "mini", ["clip-ft", "cae-gradcam"])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cae_lab import plots as plots
    from cae_lab import results as results
    from cae_lab.profiles import load_profile as load_profile

__all__ = ["load_profile", "plots", "results"]


def __getattr__(name: str) -> Any:
    if name == "load_profile":
        return import_module("cae_lab.profiles").load_profile
    if name in __all__:
        return import_module(f"cae_lab.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
