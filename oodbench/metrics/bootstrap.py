"""The stratified bootstrap: how often each image is drawn, once for all scorers that judge the same images.

Each class is resampled by itself. A replicate is a vector of multiplicities, the same for every scorer, which takes it in the
order of its own scores; so differences between scorers are paired. The law of a seed: replicates are drawn one after the
other from numpy's legacy generator, whose stream is frozen, seeded with ``[seed, 0]`` for in-dist and ``[seed, 1]`` for OOD
images; each takes N whole numbers below N of the smallest unsigned type that holds them, and counts them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

CLASSES = ("in", "ood")
KEPT = 1 << 26
"""Bytes up to which the multiplicities of a class are kept; larger ones are drawn again for each scorer."""
CELLS = 1 << 17
"""Multiplicities of a class that are worked on at a time: few calls of numpy, arrays that fit into a core's cache."""


def multiplicities(
    n_in: int, n_ood: int, replicates: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """How often each in-dist and each OOD image is drawn, uint8 ``(≤ replicates, N)`` each, a block at a time."""
    rows = max(1, CELLS // max(n_in, n_ood))
    classes = zip(CLASSES, (n_in, n_ood), strict=True)
    of_in, of_ood = (_blocks(name, n, replicates, seed, rows) for name, n in classes)
    yield from zip(of_in, of_ood, strict=True)


def _blocks(name: str, n: int, replicates: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    if n * replicates <= KEPT:
        kept = _kept(name, n, replicates, seed)
        yield from (kept[start : start + rows] for start in range(0, replicates, rows))
        return
    drawn = _drawn(name, n, seed)
    for start in range(0, replicates, rows):
        block = np.empty((min(rows, replicates - start), n), np.uint8)
        for row in block:
            row[:] = next(drawn)
        yield block


@lru_cache(maxsize=4)
def _kept(name: str, n: int, replicates: int, seed: int) -> np.ndarray:
    found, drawn = np.empty((replicates, n), np.uint8), _drawn(name, n, seed)
    for row in found:
        row[:] = next(drawn)
    found.flags.writeable = False  # all scorers read it
    return found


def _drawn(name: str, n: int, seed: int) -> Iterator[np.ndarray]:
    """Replicates without end. One image is drawn more than 255 times with a probability below 1e-500."""
    stream = np.random.RandomState([seed, CLASSES.index(name)])
    kind = np.min_scalar_type(n - 1)
    while True:
        yield np.bincount(stream.randint(0, n, n, kind), minlength=n)
