"""What is done of a profile's grid by Snakemake: a stamp for each job."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cae_lib.config import paths
from cae_lib.grid import Job
from cae_lib.keys import SUITE_VERSIONS, TRAINING_VERSION, digest
from cae_lib.profiles import find_profile
from cae_lib.runtime import file_hash


def folder(profile_name: str) -> Path:
    """Where the stamps, logs and locks of a profile's jobs lie."""
    return paths().runs / "grid" / profile_name


def stamp_path(profile_name: str, label: str) -> Path:
    """The file that says that a job is done: what it was done by, see `key_of`, and in how many
    seconds."""
    return folder(profile_name) / "stamps" / f"{label}.done"


def key_of(profile_name: str, job: Job) -> str:
    """What a stamp begins with: a digest of the settings of a run, the data and the versions."""
    config = job.experiment(profile_name)
    versions = {suite: version for suite, version in SUITE_VERSIONS.items()
                if not job.suites or suite in job.suites}
    return digest(config.key() if config else "", TRAINING_VERSION, versions, _data(profile_name))


def _data(profile_name: str) -> str:
    """A hash of a profile's sets; of real ones, which stay as they are while this process runs, of
    what is here and of what is missing."""
    if find_profile(profile_name).real:
        return _real_data(profile_name, paths().raw)
    manifest = find_profile(profile_name).root / "manifest.json"
    return file_hash(manifest) if manifest.is_file() else ""


@cache
def _real_data(profile_name: str, folder: Path) -> str:
    from cae_lib.data.needs import sources_digest, stock
    from cae_lib.runs import wanted

    names = wanted(profile_name)
    return sources_digest(stock(names), names)


def state_of(profile_name: str, label: str, job: Job) -> str:
    """ "done", "stale" (done by other code or with other settings), or "open"."""
    path = stamp_path(profile_name, label)
    if not path.is_file():
        return "open"
    key, _, _ = path.read_text().partition(" ")
    return "done" if key == key_of(profile_name, job) else "stale"
