"""What is done of a profile's grid by Snakemake: a stamp for each job."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cae_lib.config import paths
from cae_lib.grid import Job
from cae_lib.runtime import measuring_hash, training_hash


def folder(profile_name: str) -> Path:
    """Where the stamps, logs and locks of a profile's jobs lie."""
    return paths().runs / "grid" / profile_name


def stamp_path(profile_name: str, label: str) -> Path:
    """The file that says that a job is done: what it was done by, see `key_of`, and in how many
    seconds."""
    return folder(profile_name) / "stamps" / f"{label}.done"


def key_of(profile_name: str, job: Job) -> str:
    """What a stamp begins with: a hash of the code and of the settings of a run."""
    config = job.experiment(profile_name)
    parts = [config.key() if config else "", training_hash(), measuring_hash(), job.suites]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def state_of(profile_name: str, label: str, job: Job) -> str:
    """ "done", "stale" (done by other code or with other settings), or "open"."""
    path = stamp_path(profile_name, label)
    if not path.is_file():
        return "open"
    key, _, _ = path.read_text().partition(" ")
    return "done" if key == key_of(profile_name, job) else "stale"
