"""Classes of images, beside the images: for what is trained on them. No class of a test image is ever read."""

from __future__ import annotations

import numpy as np

from oodbench.data.catalog import catalog, data_card
from oodbench.data.identifiers import parse_identifier
from oodbench.data.images import split_on_disk
from oodbench.errors import DataError

LABELLED = ("train", "ref")
"""Splits whose classes are read."""


def load_labels(identifier: str) -> np.ndarray:
    """The class of each image of ``load_images(identifier)``, in the same order: int64 ``(N,)``, from 0.

    Parameters
    ----------
    identifier : ``train`` or ``ref`` of a set of the catalog, whole: ``fashionmnist/ref``

    Raises
    ------
    DataError : another set or split, or files that hold images alone
    """
    wanted = parse_identifier(identifier)
    if wanted.name not in catalog() or wanted.split not in LABELLED or wanted.prefix or wanted.draw:
        raise DataError(
            f"classes are read of the whole `train` or `ref` of a set of the catalog, and {identifier} is none; "
            "`oodbench list data` shows the sets"
        )
    card = data_card(wanted.name)
    found = split_on_disk(card, wanted.split)
    if found is None or found.source.labels is None:
        where = f", and {found.source.where} holds none" if found else ""
        raise DataError(
            f"the classes of {wanted.name}/{wanted.split} are not on this machine{where}; the official files have them: "
            f"{card.how_to_get()}; of an .npz it is the array `labels`, beside `images`"
        )
    labels = np.asarray(found.source.labels())
    if labels.shape != (found.source.n,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{found.source.where} holds labels {labels.dtype} {labels.shape} for {found.source.n:,} images; "
            "they must be whole numbers, one an image"
        )
    whole = labels.astype(np.int64)
    return whole if found.rows is None else whole[found.rows]
