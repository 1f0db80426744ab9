"""Image sets: uint8 pixels, and an identity that is their content."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.data import sources
from oodbench.data.catalog import DataCard, catalog, data_card, unlisted_card
from oodbench.data.copies import cached_copy
from oodbench.data.views import SHRINK, Shape, apply_view, check_view, shrunk, view_between
from oodbench.errors import DataError, MissingDataError

GRAMMAR = re.compile(
    r"(?P<name>[^@\[]+?)(/(?P<split>train|ref|test))?"
    r"(\[first (?P<prefix>[1-9]\d*)\])?(\[(:(?P<limit>[1-9]\d*)|(?P<draw>[1-9]\d*) drawn)\])?"
    r"(@(?P<view>[\w,-]+))?"
)
ARRAY_SUFFIXES = (".npz", ".npy")
REF_KEY = 1810_09136
"""Philox key of the order that picks `ref` out of an official training set, and draws; never changes."""
GENERATED_SIZE = 2000


@dataclass(frozen=True)
class Identifier:
    """``name/split[first N][n drawn]@view`` in its parts; as text again by ``str``.

    Attributes
    ----------
    prefix : the first N images of the official split, in its order; None: all that are here
    draw : n images of those, drawn by :func:`drawn_rows`; None: all of them
    view : None leaves it to the rule, ``""`` cannot be written
    """

    name: str
    split: str = "test"
    prefix: int | None = None
    draw: int | None = None
    view: str | None = None

    def __str__(self) -> str:
        part = "" if self.prefix is None else f"[first {self.prefix}]"
        drawn = "" if self.draw is None else f"[{self.draw} drawn]"
        return f"{self.name}/{self.split}{part}{drawn}{'@' if self.view else ''}{self.view or ''}"

    def in_split(self, split: str) -> Identifier:
        """The same set in the same view: itself for its own split, the whole of any other."""
        return self if split == self.split else Identifier(self.name, split, view=self.view)

    def seen_through(self, view: str) -> Identifier:
        """The same images in another view."""
        return replace(self, view=view)


@dataclass(frozen=True)
class ImageSet:
    """uint8 images and what they are.

    Attributes
    ----------
    name, split, view : for people, together with the counts in :attr:`identifier`
    images : uint8 ``(N, C, H, W)``, read-only, memory-mapped where they are not drawn
    official : size of the official split, None where none is known
    drawn_from : how many images were here when these were drawn of them; None: they are all that are here
    in_random_order : whether the split's own order is random, so that a draw is its beginning
    card : the set's name in the catalog, ``""`` for a user's own files, whatever their name
    """

    name: str
    split: str
    view: str
    images: np.ndarray
    official: int | None = None
    drawn_from: int | None = None
    in_random_order: bool = False
    card: str = ""

    @property
    def identifier(self) -> str:
        """``name/split[first N][n drawn]@view``, the counts only where they say something.

        ``[first N]`` stands where not the whole official split is here, ``[n drawn]`` where a draw was made.
        """
        here = len(self) if self.drawn_from is None else self.drawn_from
        prefix = None if self.official in (None, here) else here
        draw = None if self.drawn_from is None else len(self)
        return str(Identifier(self.name, self.split, prefix, draw, self.view))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of shape and pixels."""
        return content_hash(self.images)

    def shard_hashes(self, size: int) -> tuple[str, ...]:
        """:func:`content_hash` of each run of ``size`` images; the last one may be shorter."""
        starts = range(0, len(self), size)
        return tuple(content_hash(self.images[start : start + size]) for start in starts)

    @property
    def shape(self) -> Shape:
        """``(C, H, W)``."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def prefix(self, n: int | None) -> ImageSet:
        """The first ``n`` images in the order of the split (all of them for None)."""
        return self if n is None or n >= len(self) else replace(self, images=self.images[:n])

    def drawn(self, n: int | None) -> ImageSet:
        """``n`` images in a fixed random order, see :func:`drawn_rows`; the set itself for None or where it has no more.

        A draw of fewer images is the beginning of a draw of more.
        """
        if n is None or n >= len(self):
            return self
        here = len(self) if self.drawn_from is None else self.drawn_from
        return replace(self, images=_read_only(self.images[self.drawn_rows(n)]), drawn_from=here)

    def through(self, view: str) -> ImageSet:
        """These images through a further view; ``shrinkNN`` contracts them towards their own mean."""
        shrink = SHRINK.fullmatch(view)
        seen = (
            shrunk(self.images, int(shrink["percent"])) if shrink else apply_view(self.images, view)
        )
        chain = ",".join(filter(None, (self.view, view)))
        return replace(self, images=_read_only(seen), view=chain)

    def drawn_rows(self, n: int | None) -> np.ndarray:
        """Positions of the images of :meth:`drawn` among these, so that they can be found in columns of the whole set."""
        if n is None or n >= len(self):
            return np.arange(len(self))
        already = self.in_random_order or self.drawn_from is not None
        return drawn_rows(n, len(self), already)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its official split, or all that there is where no official size is known."""
        return self.drawn_from is None and self.official in (None, len(self))


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


def content_hash(images: np.ndarray) -> str:
    """SHA-256 over the type, the shape and the bytes of an array."""
    digest = hashlib.sha256(repr((images.dtype.str, images.shape)).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def image_digests(images: np.ndarray) -> list[bytes]:
    """SHA-256 of the pixels of each image, by which the images that two sets share are found."""
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]


def parse_identifier(identifier: str) -> Identifier:
    """``name/split[first N][n drawn]@view`` into its parts, of which only the name must be there.

    ``[:n]`` is short for ``[n drawn]``.

    >>> str(parse_identifier("mnist[:500]@pad32"))
    'mnist/test[500 drawn]@pad32'

    Raises
    ------
    DataError : it is no identifier, or its view is none
    """
    match = GRAMMAR.fullmatch(identifier)
    if not match:
        raise DataError(
            f"{identifier!r} is no image set; write name/split[first N][n drawn]@view, "
            "for instance cifar10/test[500 drawn]@grey"
        )
    if match["view"]:
        check_view(match["view"])
    prefix, draw = _count(match["prefix"]), _count(match["draw"] or match["limit"])
    return Identifier(match["name"], match["split"] or "test", prefix, draw, match["view"])


def _count(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def load_images(
    identifier: str, *, like: Any = None, shape: Shape | None = None, name: str | None = None
) -> ImageSet:
    """Open an image set, brought to a model's shape by the rule of :func:`oodbench.data.views.view_between`.

    Parameters
    ----------
    identifier : ``name/split[first N][n drawn]@view``, or ``[:n]`` for a draw; a path to an ``.npz``, ``.npy`` or
        folder of images may stand for the name
    like : a model, whose ``shape`` the images are brought to
    shape : the same, given directly
    name : shown in place of the set's own name, or of a path's last part

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
    wanted = parse_identifier(identifier)
    found = _open(wanted, like.shape if like is not None else shape)
    if not len(found):
        raise DataError(f"{identifier} holds no images")
    return replace(found, name=name or found.name).prefix(wanted.prefix).drawn(wanted.draw)


def _open(wanted: Identifier, shape: Shape | None) -> ImageSet:
    """All images of a split that are here; a name of the catalog goes before a file of that name."""
    name, split, view = wanted.name, wanted.split, wanted.view
    path = Path(name).expanduser()
    if name not in catalog():
        if path.exists() or path.suffix in ARRAY_SUFFIXES:
            return _open_path(path, split, view, shape)
        if _in_folder(name):
            return _open_card(unlisted_card(name), wanted, shape)
    card = data_card(name)
    if card.generated:
        found = _generate(card, split, shape)
    elif card.part:
        found = _open_part(card, split, view, shape)
    else:
        found = _open_card(card, wanted, shape)
    return replace(found, card=name)


def _in_folder(name: str) -> bool:
    """Whether ``$OODBENCH_DATA`` has .npz files of this name that the catalog does not know."""
    card = unlisted_card(name)
    return any(sources.find(card, split) is not None for split in ("test", "train"))


def shown_name(path: Path) -> str:
    """What a path is called where it is shown: its last part, of a file without the suffix of an array."""
    last = os.path.basename(os.path.abspath(path)) or str(path)
    if path.is_dir() or path.suffix not in ARRAY_SUFFIXES:
        return last
    return last.removesuffix(path.suffix)


@dataclass(frozen=True)
class _Split:
    """A split as it lies on this machine: a source, and which of its images are the split's (None: all).

    ``drawn_from`` is set where the source holds the beginning of a draw of so many images.
    """

    name: str
    split: str
    source: sources.Source
    official: int
    rows: np.ndarray | None = None
    in_random_order: bool = False
    drawn_from: int | None = None


def _open_path(path: Path, split: str, view: str | None, shape: Shape | None) -> ImageSet:
    name = shown_name(path)
    if path.is_file():
        source = sources.array_files((path,))
        return _seen(_Split(name, split, source, source.n), view, shape)
    found = sources.image_folder(path, view or "") if path.is_dir() else None
    if found is None:
        raise DataError(f"{path} is neither a folder with images nor an .npz or .npy file")
    if view:  # applied image by image while decoding, since it may be what makes the sizes equal
        images = cached_copy(f"{name}-{split}-{view}", found, [], found.decode)
        return _checked_shape(ImageSet(name, split, view, images, len(images)), shape)
    return _seen(_Split(name, split, found, found.n), view, shape)


def _open_card(card: DataCard, wanted: Identifier, shape: Shape | None) -> ImageSet:
    split = wanted.split
    found = _test_split(card) if split == "test" else _training_split(card, split)
    if found is None and split == "train":
        found = _drawn_train(card, wanted)
    if found is None:
        raise _missing(card, split)
    return _seen(found, wanted.view, shape)


def _test_split(card: DataCard) -> _Split | None:
    source = sources.find(card, "test")
    if source is None:
        return None
    return _Split(card.name, "test", source, card.counts.get("test", source.n))


def _training_split(card: DataCard, split: str) -> _Split | None:
    """`train` or `ref` of a training set that is here, or `ref` of a file of its own."""
    whole = sources.find(card, "train")
    own = sources.find(card, "ref") if split == "ref" else None
    # A tenth of the training set is `ref`: the training set is taken where it gives more of it than the file does.
    if whole is not None and (own is None or whole.n > 10 * own.n):
        size = card.counts.get("train", whole.n)
        rows, official = split_indices(size, whole.n)[split], len(split_indices(size)[split])
        return _Split(card.name, split, whole, official, rows, in_random_order=split == "ref")
    if own is None:
        return None
    # A user's own file may be sorted by class; only the sample's is known to be in the order of `ref`.
    official = card.counts.get("train", 0) // 10 or own.n
    return _Split(card.name, split, own, official, in_random_order=sources.is_sample(own))


def _drawn_train(card: DataCard, wanted: Identifier) -> _Split | None:
    """The training images in the package, where a draw of no more is asked for: they never stand in for the split."""
    source = sources.drawn_train(card)
    if source is None or wanted.draw is None or wanted.prefix is not None or wanted.draw > source.n:
        return None
    size = len(split_indices(card.counts["train"])["train"])
    return _Split(card.name, "train", source, size, drawn_from=size)


def _open_part(card: DataCard, split: str, view: str | None, shape: Shape | None) -> ImageSet:
    whole = load_images(card.part["of"])
    rows = part_indices(card.part["sizes"])[split]
    here = whole.images[rows[rows < len(whole)]]
    view = _view_for(whole.shape, view, shape)
    images = _read_only(apply_view(here, view))
    official = card.counts[split]
    found = ImageSet(card.name, split, view, images, official, in_random_order=True)
    return _checked_shape(found, shape)


def part_indices(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Rows of another set's first ``sum(sizes)`` images for each split, in a fixed random order."""
    ends = np.cumsum(list(sizes.values()))
    return dict(zip(sizes, np.split(random_order(ends[-1]), ends[:-1]), strict=True))


def _missing(card: DataCard, split: str) -> MissingDataError:
    drawn = sources.drawn_train(card) if split == "train" else None
    few = (
        f" (of its images only {drawn.n} are here, {card.name}/train[{drawn.n} drawn] in the bundled sample: "
        "to be looked at, too few to be fitted to)"
        if drawn
        else ""
    )
    return MissingDataError(
        f"{card.name}/{split} is not on this machine; to get it: {card.how_to_get()}{few}"
    )


def split_indices(official: int, here: int | None = None) -> dict[str, np.ndarray]:
    """Indices of ``train`` and ``ref`` in an official training set of which the first ``here`` images are present.

    ``ref`` is a tenth of the official set, in a fixed random order (so that any prefix is a random sample), the same
    whatever part is present; ``train`` is the rest in the official order.
    """
    here = official if here is None else here
    order = random_order(official)
    ref, train = order[: official // 10], np.sort(order[official // 10 :])
    return {"ref": ref[ref < here], "train": train[train < here]}


def _seen(found: _Split, view: str | None, shape: Shape | None) -> ImageSet:
    """The images of a split through a view, or through that of the rule where none is named."""
    name, split, rows = found.name, found.split, found.rows
    held = split if rows is None else "train"
    images = cached_copy(f"{name}-{held}", found.source, [], found.source.decode)
    channels, height, width = images.shape[1:]
    view = _view_for((channels, height, width), view, shape)
    if view or rows is not None:
        made_by = [view, None if rows is None else content_hash(rows)]
        make = partial(_chosen, images, rows, view)
        images = cached_copy(f"{name}-{split}-{view}", found.source, made_by, make)
    seen = ImageSet(
        name, split, view, images, found.official, found.drawn_from, found.in_random_order
    )
    return _checked_shape(seen, shape)


def _chosen(images: np.ndarray, rows: np.ndarray | None, view: str) -> np.ndarray:
    return apply_view(images if rows is None else images[rows], view)


def _view_for(have: Shape, view: str | None, shape: Shape | None) -> str:
    if view is not None:
        return view
    return "" if shape is None else view_between(have, shape)


def _checked_shape(images: ImageSet, shape: Shape | None) -> ImageSet:
    if shape is not None and images.shape != tuple(shape):
        raise DataError(
            f"{images.identifier} has shape {images.shape}, but the model takes {tuple(shape)}"
        )
    return images


def _read_only(images: np.ndarray) -> np.ndarray:
    images.setflags(write=False)
    return images


def _generate(card: DataCard, split: str, shape: Shape | None) -> ImageSet:
    """Noise or constant images at the model's own shape; the i-th image depends on neither the count nor the others."""
    channels, height, width = shape or (3, 32, 32)
    if card.generated == "noise":
        images = _bytes(0, GENERATED_SIZE * channels * height * width)
        images = images.reshape(GENERATED_SIZE, channels, height, width)
    elif channels == 1:
        grey = np.argsort(np.random.Philox(key=1).random_raw(256), kind="stable").astype(np.uint8)
        images = np.broadcast_to(grey[:, None, None, None], (256, 1, height, width))
    else:
        colour = _bytes(1, GENERATED_SIZE * 8).reshape(GENERATED_SIZE, 8)[:, :channels]
        shown = GENERATED_SIZE, channels, height, width
        images = np.broadcast_to(colour[:, :, None, None], shown)
    found = _read_only(np.ascontiguousarray(images))
    return ImageSet(card.name, split, "", found, len(found))


def _bytes(key: int, n: int) -> np.ndarray:
    return np.random.Philox(key=key).random_raw(-(-n // 8)).view(np.uint8)[:n]
