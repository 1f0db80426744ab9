"""Image sets: uint8 pixels, and an identity that is their content."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.data import sources
from oodbench.data.catalog import DataCard, catalog, data_card, unlisted_card
from oodbench.data.views import Shape, apply_view, check_view, view_between
from oodbench.errors import DataError, MissingDataError
from oodbench.paths import home, write_whole

IDENTIFIER = re.compile(r"(?P<name>[^@\[]+?)(/(?P<split>train|ref|test))?(\[:(?P<limit>\d+)\])?(@(?P<view>[\w,-]+))?")
REF_KEY = 1810_09136
"""Philox key of the order that picks `ref` out of an official training set; never changes."""
GENERATED_SIZE = 2000


@dataclass(frozen=True)
class ImageSet:
    """uint8 images and what they are.

    Attributes
    ----------
    name, split, view : for people, together with the count in :attr:`identifier`
    images : uint8 ``(N, C, H, W)``, memory-mapped and read-only
    official : size of the official split, None where none is known
    """

    name: str
    split: str
    view: str
    images: np.ndarray
    official: int | None = None

    @property
    def identifier(self) -> str:
        """``name/split[:n]@view``; ``[:n]`` stands only where the set is not the whole official split."""
        n = "" if self.official == len(self.images) else f"[:{len(self.images)}]"
        return f"{self.name}/{self.split}{n}{'@' * bool(self.view)}{self.view}"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of shape and pixels."""
        return content_hash(self.images)

    @property
    def shape(self) -> Shape:
        """``(C, H, W)``."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int | None) -> ImageSet:
        """The first ``n`` images (all of them for None)."""
        return self if n is None or n >= len(self) else replace(self, images=self.images[:n])


def content_hash(images: np.ndarray) -> str:
    """SHA-256 over the shape and the bytes of an array."""
    digest = hashlib.sha256(repr((images.dtype.str, images.shape)).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def parse_identifier(identifier: str) -> tuple[str, str, int | None, str | None]:
    """``name/split[:limit]@view`` into its parts; the split defaults to ``test``, limit and view to None.

    >>> parse_identifier("mnist/test[:500]@pad32")
    ('mnist', 'test', 500, 'pad32')
    """
    match = IDENTIFIER.fullmatch(identifier)
    if not match:
        raise DataError(
            f"{identifier!r} is no image set; write name/split[:limit]@view, for instance cifar10/test[:500]@grey"
        )
    if match["view"]:
        check_view(match["view"])
    return match["name"], match["split"] or "test", int(match["limit"]) if match["limit"] else None, match["view"]


def load_images(identifier: str, like: Any = None, shape: Shape | None = None) -> ImageSet:
    """Open an image set, brought to a model's shape by the rule of :func:`oodbench.data.views.view_between`.

    Parameters
    ----------
    identifier : ``name/split[:limit]@view``; a path to an ``.npz``, ``.npy`` or folder of images may stand for the name
    like : a model, whose ``shape`` the images are brought to
    shape : the same, given directly

    Raises
    ------
    UnknownNameError : no such set
    MissingDataError : a known set that is not on this machine; the message says how to get it
    DataError : unreadable, empty or misshapen images

    Example
    -------
    >>> import oodbench as ob
    >>> ob.load_images("mnist/test[:100]").images.shape
    (100, 1, 28, 28)
    """
    name, split, limit, view = parse_identifier(identifier)
    shape = like.shape if like is not None else shape
    path = Path(name).expanduser()
    known = name in catalog()
    if not known and (path.exists() or path.suffix in (".npz", ".npy")):
        images = _open_path(path, split, view, shape)
    elif not known and _in_folder(name):
        images = _open_card(unlisted_card(name), split, view, shape)
    elif data_card(name).generated:
        images = _generate(data_card(name), split, shape)
    elif data_card(name).part:
        images = _open_part(data_card(name), split, view, shape)
    else:
        images = _open_card(data_card(name), split, view, shape)
    if not len(images):
        raise DataError(f"{identifier} holds no images")
    return images.first(limit)


def _in_folder(name: str) -> bool:
    """Whether ``$OODBENCH_DATA`` has .npz files of this name that the catalog does not know."""
    return any(sources.find(unlisted_card(name), split) is not None for split in ("test", "train"))


def _open_path(path: Path, split: str, view: str | None, shape: Shape | None) -> ImageSet:
    name = path.stem
    if path.is_file():
        source = sources.array_files((path,))
        return _view(name, split, source, _decoded(name, split, source), view, shape)
    found = sources.image_folder(path, view or "") if path.is_dir() else None
    if found is None:
        raise DataError(f"{path} is neither a folder with images nor an .npz or .npy file")
    if view:  # applied image by image while decoding, since it may be what makes the sizes equal
        images = _cached(f"{name}-{split}-{view}", found, found.decode)
        return _checked_shape(ImageSet(name, split, view, images, len(images)), shape)
    return _view(name, split, found, _decoded(name, split, found), None, shape)


def _open_card(card: DataCard, split: str, view: str | None, shape: Shape | None) -> ImageSet:
    if split != "test":
        direct = sources.find(card, "ref") if split == "ref" else None
        official = sources.find(card, "train")
        if official is None and direct is None:
            raise _missing(card, split)
        if official is not None and (direct is None or official.n > 10 * direct.n):
            images = _decoded(card.name, "train", official)
            chosen = split_indices(card.counts.get("train", official.n), official.n)[split]
            full = len(split_indices(card.counts.get("train", official.n))[split])
            return _view(card.name, split, official, images, view, shape, chosen, full)
        source, full = direct, card.counts.get("train", 0) // 10
    else:
        source, full = sources.find(card, "test"), card.counts.get("test", 0)
        if source is None:
            raise _missing(card, split)
    assert source is not None
    return _view(card.name, split, source, _decoded(card.name, split, source), view, shape, official=full or source.n)


def _open_part(card: DataCard, split: str, view: str | None, shape: Shape | None) -> ImageSet:
    whole = load_images(card.part["of"])
    rows = part_indices(card.part["sizes"])[split]
    images = whole.images[rows[rows < len(whole)]]
    if view is None:
        view = view_between(whole.shape, shape) if shape is not None else ""
    return _checked_shape(ImageSet(card.name, split, view, apply_view(images, view), card.counts[split]), shape)


def part_indices(sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Rows of another set's first ``sum(sizes)`` images for each split, in a fixed random order."""
    order = np.argsort(np.random.Philox(key=REF_KEY).random_raw(sum(sizes.values())), kind="stable")
    return dict(zip(sizes, np.split(order, np.cumsum(list(sizes.values()))[:-1]), strict=True))


def _missing(card: DataCard, split: str) -> MissingDataError:
    return MissingDataError(f"{card.name}/{split} is not on this machine; to get it: {card.how_to_get()}")


def split_indices(official: int, here: int | None = None) -> dict[str, np.ndarray]:
    """Indices of ``train`` and ``ref`` in an official training set of which the first ``here`` images are present.

    ``ref`` is a tenth of the official set, in a fixed random order (so that any prefix is a random sample), the same
    whatever part is present; ``train`` is the rest in the official order. The order sorts raw Philox output, whose
    stream numpy guarantees.
    """
    here = official if here is None else here
    order = np.argsort(np.random.Philox(key=REF_KEY).random_raw(official), kind="stable")
    ref, train = order[: official // 10], np.sort(order[official // 10 :])
    return {"ref": ref[ref < here], "train": train[train < here]}


def _view(
    name: str, split: str, source: sources.Source, images: np.ndarray, view: str | None, shape: Shape | None,
    chosen: np.ndarray | None = None, official: int | None = None,
) -> ImageSet:  # fmt: skip
    have = (images.shape[1], images.shape[2], images.shape[3])
    if view is None:
        view = view_between(have, shape) if shape is not None else ""
    if view or chosen is not None:
        rows = slice(None) if chosen is None else chosen
        images = _cached(f"{name}-{split}-{view}", source, lambda: apply_view(images[rows], view))
    found = ImageSet(name, split, view, images, official if official is not None else len(images))
    return _checked_shape(found, shape)


def _checked_shape(images: ImageSet, shape: Shape | None) -> ImageSet:
    if shape is not None and images.shape != tuple(shape):
        raise DataError(f"{images.identifier} has shape {images.shape}, but the model takes {tuple(shape)}")
    return images


def _decoded(name: str, split: str, source: sources.Source) -> np.ndarray:
    return _cached(f"{name}-{split}", source, source.decode)


def _cached(label: str, source: sources.Source, make: Any) -> np.ndarray:
    """A memory-mapped ``.npy`` in the cache, made at first use; its key holds the source files' sizes and times."""
    stamp = [(str(file.resolve()), (stat := os.stat(file)).st_size, stat.st_mtime_ns) for file in source.files]
    key = hashlib.sha256(json.dumps([label, source.n, stamp]).encode()).hexdigest()[:16]
    path = home() / "images" / f"{label.replace(',', '-')}-{key}.npy"
    if not path.exists():
        images = np.ascontiguousarray(make())
        write_whole(path, lambda file: np.save(file, images))
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"the decoded copy {path} is damaged ({error}); delete it and run again") from error


def _generate(card: DataCard, split: str, shape: Shape | None) -> ImageSet:
    """Noise or constant images at the model's own shape; the i-th image depends on neither the count nor the others."""
    channels, height, width = shape or (3, 32, 32)
    pixels = GENERATED_SIZE * channels * height * width
    if card.generated == "noise":
        images = np.random.Philox(key=0).random_raw(-(-pixels // 8)).view(np.uint8)[:pixels]
        images = images.reshape(GENERATED_SIZE, channels, height, width)
    elif channels == 1:
        grey = np.argsort(np.random.Philox(key=1).random_raw(256), kind="stable").astype(np.uint8)
        images = np.broadcast_to(grey[:, None, None, None], (256, 1, height, width))
    else:
        colour = (
            np.random.Philox(key=1).random_raw(GENERATED_SIZE).view(np.uint8).reshape(GENERATED_SIZE, 8)[:, :channels]
        )
        images = np.broadcast_to(colour[:, :, None, None], (GENERATED_SIZE, channels, height, width))
    return ImageSet(card.name, split, "", np.ascontiguousarray(images), len(images))
