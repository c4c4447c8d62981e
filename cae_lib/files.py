"""`write_atomic` under the name by which `cae_lib.models.export` knows it."""

from cae_lib.runtime import write_atomic

__all__ = ["write_atomic"]
