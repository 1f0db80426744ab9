"""Arrays that are written into again and again: fresh pages of memory cost more than the arithmetic on them."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

_kept = threading.local()


def room(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array to be written over, the same memory at each call with this name in one thread.

    What was written at the last call is lost, so that two arrays in use at once have two names.
    """
    size = math.prod(shape)
    kept: np.ndarray | None = getattr(_kept, name, None)
    if kept is None or kept.size < size or kept.dtype != dtype:
        kept = np.empty(size, dtype)
        setattr(_kept, name, kept)
    return kept[:size].reshape(shape)


def taken(values: np.ndarray, places: np.ndarray, name: str) -> np.ndarray:
    """``values[:, places]`` in the room of this name; every place has to exist."""
    out = room(name, (len(values), len(places)), values.dtype)
    # with the mode "raise" numpy writes into a copy first
    return np.take(values, places, axis=1, out=out, mode="clip")
