"""Answers and numbers of items as short strings, so that records keep every item and stay small."""

from __future__ import annotations

import base64
import zlib

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


def pack_numbers(numbers: np.ndarray) -> str:
    """Whole numbers as base64 of zlib of the steps from each to the next, little-endian int32."""
    steps = np.diff(numbers, prepend=0).astype("<i4")
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode("ascii")


def unpack_numbers(text: str, n: int) -> np.ndarray:
    """The `n` numbers that `pack_numbers` wrote.

    Raises:
        ValueError: It wrote something else.
    """
    try:
        steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<i4")
    except zlib.error as error:
        raise ValueError(f"no packed numbers: {error}") from error
    return np.cumsum(steps, dtype=np.int64).reshape(n)
