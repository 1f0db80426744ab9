"""Sets of published rows, made again from their official files, and compared with what was published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from oodbench.data.catalog import DataCard, data_card
from oodbench.data.copies import whole
from oodbench.data.division import content_hash, part_indices, split_indices
from oodbench.data.make_sample import write_array
from oodbench.data.sources import official
from oodbench.errors import DataError, MissingDataError


def make(card: DataCard, folder: Path | None = None) -> Iterator[str]:
    """Make each published split of a set from its official files, and compare it; yields a line a split.

    Parameters
    ----------
    folder : where arrays are written, ``NAME_test.npz``, as ``$OODBENCH_DATA`` may hold them; None: they are only compared

    Raises
    ------
    DataError : nobody else can make the set, its official files are not here, or they give other images
    """
    if card.only_here:
        raise DataError(f"{card.name} cannot be made again: {card.only_here}")
    if not card.published:
        raise DataError(
            f"{card.name} stands in no published row, so that there is nothing to compare it with"
        )
    for split, images in _splits(card):
        yield _compared(card, split, images)
        if folder is not None:
            yield str(write_array(folder / f"{card.name.replace('-', '_')}_{split}.npz", images))


def _splits(card: DataCard) -> Iterator[tuple[str, np.ndarray]]:
    if not card.part:
        for split in card.published:
            yield split, _from_files(card, split)
        return
    name, split = card.part["of"].split("/")
    images = _from_files(data_card(name), split)
    if split == "train":
        images = images[split_indices(data_card(name).counts["train"], len(images))["train"]]
    for part, rows in part_indices(card.part["sizes"]).items():
        yield part, images[rows[rows < len(images)]]


def _from_files(card: DataCard, split: str) -> np.ndarray:
    """A split as the official files have it, in their order and resized as the card says."""
    source = official(card, split)
    if source is None:
        raise MissingDataError(
            f"the official files of {card.name}/{split} are not on this machine; to get them: {card.how_to_get()}"
        )
    return whole(source.decode())


def _compared(card: DataCard, split: str, images: np.ndarray) -> str:
    """A line that says that the first images are those that were published; :class:`DataError` where they are not."""
    said = is_published(card, split, images)
    if said is None:
        n = card.published[split]["n"]
        raise DataError(
            f"{card.name}/{split}: only {len(images):,} of the {n:,} published images could be made"
        )
    if not said:
        found = content_hash(images[: card.published[split]["n"]])
        raise DataError(
            f"{card.name}/{split}: the files give other images than were published (SHA-256 {found}, not "
            f"{card.published[split]['sha256']}): another version of the files, or another library resizes them"
        )
    return f"{card.name}/{split}: {_amount(card.published[split], len(images))} are those that were published"


def _amount(published: Mapping[str, int], n: int) -> str:
    known = published["n"]
    return f"{n:,} images" if n == known else f"the first {known:,} of {n:,} images"


def is_published(card: DataCard, split: str, images: np.ndarray) -> bool | None:
    """Whether the first images of a split are those of published rows; None where there are fewer, or none were published."""
    known = card.published.get(split)
    if known is None or len(images) < known["n"]:
        return None
    return content_hash(images[: known["n"]]) == known["sha256"]
