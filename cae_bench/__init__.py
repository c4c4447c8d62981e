"""Evaluate any CLIP on benchmarks of compositionality, on retrieval and on text similarity.

    import cae_bench

    scores = cae_bench.evaluate(clip, "sugarcrepe", "winoground")

`clip` is a model as `cae_lib.load_clip` returns it; the README says how to pass any other one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cae_lib.config import missing_package_error

if TYPE_CHECKING:
    from cae_bench import statistics as statistics
    from cae_bench.averages import score_weights as score_weights
    from cae_bench.datasets import Datasets as Datasets
    from cae_bench.datasets import load_benchmarks as load_benchmarks
    from cae_bench.encoder import Encoder as Encoder
    from cae_bench.own import evaluate_file as evaluate_file
    from cae_bench.scores import evaluate as evaluate

# torch, open_clip and pandas are loaded only when one of these names is used.
_MODULES = {
    "Datasets": "datasets",
    "Encoder": "encoder",
    "evaluate": "scores",
    "evaluate_file": "own",
    "load_benchmarks": "datasets",
    "score_weights": "averages",
}
__all__ = [*_MODULES, "statistics"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        # `statistics` is a module itself; every other name stands in a module.
        module = import_module(f"{__name__}.{_MODULES.get(name, name)}")
        return getattr(module, name) if name in _MODULES else module
    except ModuleNotFoundError as error:
        raise missing_package_error(error, f"cae_bench.{name}") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
