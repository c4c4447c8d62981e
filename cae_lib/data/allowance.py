"""Sets that may be used although they are incomplete: the user's decision, by name.

Without it an incomplete set of the profile `paper` is refused. With it, what is there is used, and
every result tells n used and n expected. `cae train` and `cae evaluate` take the decision as
`--allow-missing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cae_lib.data.source_list import load_sources, source

_ALLOWED: ContextVar[frozenset[str]] = ContextVar("allowed", default=frozenset())
ALL = "all"


def may_be_incomplete(name: str) -> bool:
    """Whether the set of that name, as in `data/sources.yml`, may be used as it is."""
    return name in _ALLOWED.get()


@contextmanager
def allowing(names: Iterable[str]) -> Iterator[None]:
    """Allow the named sets to be incomplete while the block runs.

    Args:
        names: Names of `cae data list`; "all" stands for every one.

    Raises:
        ConfigError: A name is unknown.
    """
    chosen = set(names)
    if ALL in chosen:
        chosen = chosen - {ALL} | set(load_sources())
    token = _ALLOWED.set(frozenset(source(name).name for name in chosen))
    try:
        yield
    finally:
        _ALLOWED.reset(token)
