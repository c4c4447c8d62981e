"""Right-or-wrong answers as hex strings, so that records keep every item and stay small."""

from __future__ import annotations

import numpy as np


def pack_bits(bits: np.ndarray) -> str:
    """Booleans as hex digits, eight in two digits, the first one highest."""
    return np.packbits(bits.astype(bool)).tobytes().hex()


def unpack_bits(digits: str, n: int) -> np.ndarray:
    """The first `n` booleans of what `pack_bits` wrote.

    Raises:
        ValueError: If there are fewer than `n`, or a byte too many.
    """
    packed = np.frombuffer(bytes.fromhex(digits), dtype=np.uint8)
    if len(packed) != -(-n // 8):
        raise ValueError(f"{len(packed)} bytes of bits for {n} items")
    return np.unpackbits(packed)[:n].astype(bool)
