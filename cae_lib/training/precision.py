"""Which precision a training run computes in."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from cae_lib.errors import ConfigError


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Return whether a run computes in bfloat16 (autocast) on a device; "auto" if that is fast."""
    if precision not in ("fp32", "bf16", "auto"):
        raise ConfigError(f"unknown precision {precision!r}: expected fp32, bf16 or auto.")
    # Processors without instructions for bfloat16 take several times as long in it.
    native = device.type != "cpu" or has_native_bf16()
    return precision == "bf16" or (precision == "auto" and native)


def has_native_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor has instructions for bfloat16; False outside of Linux."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    # "flags" on x86 (AVX-512, AMX), "Features" on ARM.
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return bool(flags and {"avx512_bf16", "amx_bf16", "bf16"} & set(flags[1].split()))
