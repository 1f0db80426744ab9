"""The images that a model was trained on, as digests, so that other sets' images are found among them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from oodbench.data import sources
from oodbench.data.catalog import DataCard, catalog, data_card
from oodbench.data.copies import Source, cached_copy
from oodbench.data.division import image_digests, split_indices
from oodbench.data.identifiers import Identifier
from oodbench.data.images import read_images
from oodbench.data.views import Shape
from oodbench.errors import DataError

SPLITS = ("train", "ref")
"""What a model saw when it was trained: `train` fits its weights, `ref` chooses among them."""
Here = Literal["all", "some", "none"]
"""How much of a model's training images is on this machine."""


class Training(NamedTuple):
    """Digests of the training images that are here, see :func:`image_digests`, and whether these are all."""

    digests: Collection[bytes]
    here: Here


def training_images(seen: Identifier, shape: Shape) -> Training:
    """The training images of a set, as a model of this shape sees them; digests are kept in the cache.

    Parameters
    ----------
    seen : the set, in the view of the model; its split is not looked at
    """
    found = [_digests_of_split(seen.in_split(split), shape) for split in SPLITS]
    known = [one for one in found if one is not None]
    here: Here = "some" if known else "none"
    if len(known) == len(SPLITS) and all(whole for _, whole in known):
        here = "all"
    return Training({one for digests, _ in known for one in _each(digests)}, here)


def _each(digests: np.ndarray) -> Iterator[bytes]:
    content, size = digests.tobytes(), digests.shape[1]
    return (content[start : start + size] for start in range(0, len(content), size))


def _digests_of_split(wanted: Identifier, shape: Shape) -> tuple[np.ndarray, bool] | None:
    """Digests ``(N, 32)`` of one split and whether it is whole; None where it is not here."""
    try:
        if wanted.name in catalog():
            return _of_card(data_card(wanted.name), wanted, shape)
        images = read_images(str(wanted), shape)
        return _digests(images.images), images.is_whole
    except DataError:
        return None


def _of_card(card: DataCard, wanted: Identifier, shape: Shape) -> tuple[np.ndarray, bool] | None:
    """The same of a set of the catalog, found by its files: the images are opened once."""
    source = _files_of(card)
    if source is None:
        return None
    made_by = ["digests", wanted.tail, list(shape)]
    label = f"{card.name}-{wanted.split}-digests"
    kept = cached_copy(
        label, source, made_by, lambda: _digests(read_images(str(wanted), shape).images)
    )
    return kept, len(kept) >= _official(card, wanted.split)


def _files_of(card: DataCard) -> Source | None:
    """Every file that a card's training images are made from, as one source; None where there are none."""
    places = [str(card.part["of"]).split("/")] if card.part else [(card.name, s) for s in SPLITS]
    found = [sources.find(data_card(name), split) for name, split in places]
    here = [source for source in found if source is not None]
    if not here:
        return None
    files = [file for source in here for file in source.files]
    return replace(here[0], files=tuple(files))


def _official(card: DataCard, split: str) -> int:
    """Images of a split where it is whole; 0 where the catalog does not know."""
    if card.part:
        return card.counts[split]
    return len(split_indices(card.counts.get("train", 0))[split])


def _digests(images: np.ndarray) -> np.ndarray:
    return np.frombuffer(b"".join(image_digests(images)), np.uint8).reshape(-1, 32)
