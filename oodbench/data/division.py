"""Which images are `train`, `ref` and `test`: fixed random orders, and parts that share no image."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import numpy as np

REF_KEY = 1810_09136
"""Philox key of the order that picks `ref` out of an official training set, and draws; never changes."""
TENTH = {"ref": 10, "train": 90}
"""Per cent of a training set: what is `ref` of it where it has none of its own."""


@lru_cache(maxsize=64)
def random_order(n: int, seed: int = 0) -> np.ndarray:
    """A fixed random order of ``n`` positions, another for each seed: it sorts raw Philox output, a stream that numpy guarantees.

    Position i has the i-th number of the stream, whatever n is, so that the order of fewer positions is that of more
    with the others left out.
    """
    order = np.argsort(np.random.Philox(key=REF_KEY + (seed << 64)).random_raw(n), kind="stable")
    order.flags.writeable = False  # all that ask share it
    return order


def drawn_rows(n: int, here: int, in_random_order: bool = False, seed: int = 0) -> np.ndarray:
    """Positions of ``n`` images that are drawn from a split of which the first ``here`` are present.

    A draw from a part holds the images that a draw from the whole split has in common with it, in the same sequence.

    Parameters
    ----------
    in_random_order : the split's own order is random already, and the draw of seed 0 is its beginning
    """
    usual = in_random_order and not seed
    return (np.arange(here) if usual else random_order(here, seed))[:n]


def split_indices(official: int, here: int | None = None) -> dict[str, np.ndarray]:
    """Indices of ``train`` and ``ref`` in an official training set of which the first ``here`` images are present.

    ``ref`` is a tenth of the official set, in a fixed random order (so that any prefix is a random sample), the same
    whatever part is present; ``train`` is the rest in the official order.
    """
    here = official if here is None else here
    order = random_order(official)
    ref, train = order[: official // 10], np.sort(order[official // 10 :])
    return {"ref": ref[ref < here], "train": train[train < here]}


def part_indices(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Rows of another set's first ``sum(sizes)`` images for each split, in a fixed random order."""
    ends = np.cumsum(list(sizes.values()))
    return dict(zip(sizes, np.split(random_order(ends[-1]), ends[:-1]), strict=True))


def content_hash(images: np.ndarray) -> str:
    """SHA-256 over the type, the shape and the bytes of an array."""
    digest = hashlib.sha256(repr((images.dtype.str, images.shape)).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def image_digests(images: np.ndarray) -> list[bytes]:
    """SHA-256 of the pixels of each image, by which the images that two sets share are found."""
    plain = np.asarray(images)  # each row of a mapped file would be a memmap, which is slow to make
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in plain]


def divided(
    digests: Sequence[bytes], percent: Mapping[str, int], elsewhere: Collection[bytes] = ()
) -> dict[str, np.ndarray]:
    """Rows of images for each part, in the fixed random order, `train` in the order of the images.

    Each position has its part by the random order, the first parts of ``percent`` first; equal images have the part of the
    first of them, so that no two parts share one. Where that leaves a part empty, since the images are few or mostly
    equal, the distinct images are dealt out in the same order until each part has its share.

    Parameters
    ----------
    digests : of each image, see :func:`image_digests`
    percent : part → per cent of the images, 100 together
    elsewhere : digests of images that belong to no part, since another split has them
    """
    order = random_order(len(digests))
    leading = _first_equal(digests)
    taken = np.array([digest in elsewhere for digest in digests], bool)
    part_of = np.where(taken, -1, _by_position(order, percent)[leading])
    if not set(range(len(percent))) <= set(part_of):
        part_of = np.where(taken, -1, _by_share(order, leading, taken, percent)[leading])
    found = {name: order[part_of[order] == part] for part, name in enumerate(percent)}
    return {name: np.sort(rows) if name == "train" else rows for name, rows in found.items()}


def _first_equal(digests: Sequence[bytes]) -> np.ndarray:
    """Of each image, the row of the first one that is equal to it."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, row) for row, digest in enumerate(digests)], int)


def _by_position(order: np.ndarray, percent: Mapping[str, int]) -> np.ndarray:
    ends = np.cumsum(list(percent.values())) * len(order) // 100
    part_of = np.empty(len(order), int)
    for part, rows in enumerate(np.split(order, ends[:-1])):
        part_of[rows] = part
    return part_of


def _by_share(
    order: np.ndarray, leading: np.ndarray, taken: np.ndarray, percent: Mapping[str, int]
) -> np.ndarray:
    """A part for each leading row: a part takes distinct images until it has its share of all, and at least one."""
    part_of = np.full(len(order), len(percent) - 1)
    copies = np.bincount(leading, minlength=len(order))
    shares = [share * len(order) / 100 for share in percent.values()]
    part, have = 0, 0
    for row in order:
        if leading[row] != row or taken[row]:
            continue
        part_of[row] = part
        have += copies[row]
        if have >= shares[part] and part < len(percent) - 1:
            part, have = part + 1, 0
    return part_of
