"""Which images are `train`, `ref` and `test`: fixed random orders, and parts that share no image."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

REF_KEY = 1810_09136
"""Philox key of the order that picks `ref` out of an official training set, and draws; never changes."""
TENTH = {"ref": 10, "train": 90}
"""Per cent of a training set: what is `ref` of it where it has none of its own."""


def random_order(n: int) -> np.ndarray:
    """A fixed random order of ``n`` positions: it sorts raw Philox output, whose stream numpy guarantees.

    Position i has the i-th number of the stream, whatever n is, so that the order of fewer positions is that of more
    with the others left out.
    """
    return np.argsort(np.random.Philox(key=REF_KEY).random_raw(n), kind="stable")


def drawn_rows(n: int, here: int, in_random_order: bool = False) -> np.ndarray:
    """Positions of ``n`` images that are drawn from a split of which the first ``here`` are present.

    A draw from a part holds the images that a draw from the whole split has in common with it, in the same sequence.

    Parameters
    ----------
    in_random_order : the split's own order is random already, and a draw is its beginning
    """
    return (np.arange(here) if in_random_order else random_order(here))[:n]


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
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]


def divided(
    digests: Sequence[bytes], percent: Mapping[str, int], elsewhere: Collection[bytes] = ()
) -> dict[str, np.ndarray]:
    """Rows of images for each part, in the fixed random order, `train` in the order of the images.

    Each position has its part by the random order, the first parts of ``percent`` first; equal images have the part of the
    first of them, so that no two parts share one.

    Parameters
    ----------
    digests : of each image, see :func:`image_digests`
    percent : part → per cent of the images, 100 together
    elsewhere : digests of images that belong to no part, since another split has them
    """
    order = random_order(len(digests))
    first: dict[bytes, int] = {}
    leading = np.array([first.setdefault(digest, row) for row, digest in enumerate(digests)], int)
    ends = np.cumsum(list(percent.values())) * len(digests) // 100
    part_of = np.empty(len(digests), int)
    for part, rows in enumerate(np.split(order, ends[:-1])):
        part_of[rows] = part
    part_of = part_of[leading]
    taken = np.array([digest in elsewhere for digest in digests], bool)
    part_of[taken] = -1
    found = {name: order[part_of[order] == part] for part, name in enumerate(percent)}
    return {name: np.sort(rows) if name == "train" else rows for name, rows in found.items()}
