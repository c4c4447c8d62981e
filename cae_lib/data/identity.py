"""Which data a measurement read: a hash that changes when they do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from cae_lib.config import paths
from cae_lib.data.completeness import Report, file_digest
from cae_lib.data.needs import OWN_PICTURES, is_real, require, sources_of, stock
from cae_lib.data.sources import expand
from cae_lib.data.training_set import data_root
from cae_lib.errors import DataError


def data_digests(
    profile_name: str, suites: Iterable[str], extra: Iterable[str] = ()
) -> dict[str, str]:
    """For each suite the hash of the data that it reads.

    The small world is known by its manifest. What is incomplete of real data, and may be, is
    printed.

    Args:
        profile_name: Whose data.
        suites: Names of suites.
        extra: Further entries of `data/sources.yml` that have to be here, such as weights.

    Raises:
        DataError: Data are missing; the message says which, and how to get them.
    """
    suites = list(suites)
    if not is_real(profile_name):
        path = data_root(profile_name) / "manifest.json"
        if not path.is_file():
            command = f"cae world build --profile {profile_name}"
            raise DataError(f"{path}: the data are not built here; run `{command}`")
        return dict.fromkeys(suites, file_digest(path))
    reports = stock((*extra, *(name for suite in suites for name in sources_of(suite))))
    for line in require(reports):
        print(line, flush=True)
    return {suite: _suite_digest(reports, suite) for suite in suites}


def sources_digest(reports: Mapping[str, Report], names: Iterable[str]) -> str:
    """Hash of the annotations of some sets, and of what is missing from them.

    Pictures are known by their names: one that changes under its name is not noticed.
    """
    known = hashlib.sha256()
    for name in sorted(names):
        source = reports[name].source
        known.update(f"{name}\n".encode())
        listed = {path for row in source.rows if "*" not in row.file for path in expand(row.file)}
        for path in sorted(path for path in listed if (source.root / path).is_file()):
            known.update(f"{path} {file_digest(source.root / path)}\n".encode())
        for tally in reports[name].tallies:
            known.update("".join(f"-{thing}\n" for thing in tally.missing).encode())
    return known.hexdigest()


def _suite_digest(reports: Mapping[str, Report], suite: str) -> str:
    """Hash of the real data of a suite; of the user's own pictures it knows the names."""
    if suite != OWN_PICTURES:
        return sources_digest(reports, sources_of(suite))
    root = paths().raw / "zero-shot"
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
