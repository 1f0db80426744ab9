"""Image sets: uint8 pixels, and an identity that is their content."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.data import sources
from oodbench.data.arrays import ARRAY_SUFFIXES
from oodbench.data.catalog import DataCard, catalog, data_card
from oodbench.data.copies import Source, cached_copy
from oodbench.data.division import (
    content_hash,
    drawn_rows,
    part_indices,
    split_indices,
)
from oodbench.data.folders import WORDS, shown
from oodbench.data.identifiers import (
    MEMBER,
    Division,
    Identifier,
    Part,
    as_path,
    file_and_member,
    parse_identifier,
    shown_division,
)
from oodbench.data.own import WHOLE, own_sets
from oodbench.data.own_splits import open_split, view_for
from oodbench.data.reading import Pictures
from oodbench.data.views import SHRINK, Shape, apply_view, shrunk, until_corruption
from oodbench.errors import DataError, MissingDataError, UnknownNameError

GENERATED_SIZE = 500
logger = logging.getLogger("oodbench")


@dataclass(frozen=True)
class ImageSet:
    """uint8 images and what they are.

    Attributes
    ----------
    name, split, view : for people, together with the counts in :attr:`identifier`
    images : uint8 ``(N, C, H, W)``, read-only, memory-mapped where they are not drawn
    official : size of the official split, None where none is known
    part, part_of : (k, m) where these are the k-th of m parts, and of how many images; None: of all that are here
    drawn_from : how many images were here when these were drawn of them; None: they are all that are here
    drawn_by : seed of that draw
    in_random_order : whether the split's own order is random, so that a draw is its beginning
    card : the set's name in the catalog, ``""`` for a user's own files, whatever their name
    division : per cent of `train`, `ref` and `test`, where a flat folder or array was divided so and not as usual
    remarks : sentences on how the files were read: what was left out, and how the set was divided
    """

    name: str
    split: str
    view: str
    images: np.ndarray = field(repr=False)
    official: int | None = None
    drawn_from: int | None = None
    in_random_order: bool = False
    card: str = ""
    part: Part | None = None
    part_of: int | None = None
    drawn_by: int = 0
    division: Division | None = None
    remarks: tuple[str, ...] = ()

    @property
    def identifier(self) -> str:
        """``name/split[first N][n drawn]@view``, the counts only where they say something.

        ``[first N]`` stands where not the whole official split is here, ``[n drawn]`` where a draw was made.
        """
        here = self.part_of or (len(self) if self.drawn_from is None else self.drawn_from)
        prefix = None if self.official in (None, here) else here
        draw = None if self.drawn_from is None else len(self)
        counts = Identifier(
            self.name, self.split, prefix, draw, self.view, part=self.part, seed=self.drawn_by
        )
        return f"{self.name}{shown_division(self.division)}{counts.tail}"

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

    def in_part(self, part: Part | None) -> ImageSet:
        """The k-th of m parts in a fixed random order, which differ by one image at most and share none."""
        if part is None:
            return self
        k, m = part
        order = drawn_rows(len(self), len(self), self.in_random_order)
        return replace(
            self,
            images=_read_only(self.images[order[k - 1 :: m]]),
            part=part,
            part_of=len(self),
            in_random_order=True,
        )

    def drawn(self, n: int | None, seed: int = 0) -> ImageSet:
        """``n`` images in a fixed random order, see :func:`drawn_rows`; the set itself for None or where it has no more.

        A draw of fewer images is the beginning of a draw of more by the same seed. Images that were drawn by another one already
        are in its order.
        """
        if n is None or n >= len(self):
            return self
        here = len(self) if self.drawn_from is None else self.drawn_from
        rows = self.drawn_rows(n, seed)
        by = seed or self.drawn_by
        return replace(self, images=_read_only(self.images[rows]), drawn_from=here, drawn_by=by)

    def through(self, view: str) -> ImageSet:
        """These images through a further view; ``shrinkNN`` contracts them towards their own mean."""
        shrink = SHRINK.fullmatch(view)
        seen = (
            shrunk(self.images, int(shrink["percent"])) if shrink else apply_view(self.images, view)
        )
        chain = ",".join(filter(None, (self.view, view)))
        return replace(self, images=_read_only(seen), view=chain)

    def drawn_rows(self, n: int | None, seed: int = 0) -> np.ndarray:
        """Positions of the images of :meth:`drawn` among these, so that they can be found in columns of the whole set."""
        if n is None or n >= len(self):
            return np.arange(len(self))
        already = self.in_random_order or self.drawn_from is not None
        return drawn_rows(n, len(self), already, seed)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its official split, or all that there is where no official size is known."""
        return self.part is None and self.drawn_from is None and self.official in (None, len(self))


def load_images(
    identifier: str, *, like: Any = None, shape: Shape | None = None, name: str | None = None
) -> ImageSet:
    """Open an image set, brought to a model's shape by the rule of :func:`oodbench.data.views.view_between`.

    Parameters
    ----------
    identifier : ``name/split[first N][n drawn, seed S]@view``, or ``[:n]`` for the draw of seed 0; a path to an ``.npz``,
        ``.npy`` or folder of images may stand for the name
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
    if like is not None and not hasattr(like, "shape"):
        raise DataError(f"like must be a model, as load_model gives it, and {like!r} has no shape")
    found = read_images(identifier, like.shape if like is not None else shape, name)
    for remark in found.remarks:
        _tell(remark)
    return found


@cache
def _tell(remark: str) -> None:
    """Say once a process what a person who loads images should know."""
    logger.warning("%s", remark)


def read_images(
    identifier: str,
    shape: Shape | None = None,
    name: str | None = None,
    limit: int | None = None,
) -> ImageSet:
    """As :func:`load_images`, without a word: for callers that show the remarks themselves.

    Parameters
    ----------
    limit : so many are drawn of what the identifier means
    """
    wanted = parse_identifier(identifier)
    view, corruption = until_corruption(wanted.view)
    found = _open(replace(wanted, view=view), None if corruption else shape)
    if not len(found):
        raise DataError(f"{identifier} holds no images")
    named = replace(found, name=name or found.name)
    part = named.prefix(wanted.prefix).in_part(wanted.part)
    drawn = part.drawn(wanted.draw, wanted.seed).drawn(limit)
    return _checked_shape(drawn.through(corruption), shape) if corruption else drawn


def in_split(reference: str, split: str) -> str:
    """The reference of another split of the same set, as :func:`load_images` takes it."""
    return str(parse_identifier(reference).in_split(split))


def fits(identifier: str, shape: Shape) -> bool:
    """Whether the images of a set have a shape as they are, without a view; raises as :func:`load_images`."""
    wanted = parse_identifier(identifier)
    if wanted.name in catalog():
        return _open(wanted, None).shape == shape
    own = _own(wanted.name)
    split = wanted.split if wanted.split in own else next(iter(own))
    source = own[split]
    if isinstance(source, Pictures):
        return source.shape == shape
    return _open(wanted, None).shape == shape


def _open(wanted: Identifier, shape: Shape | None) -> ImageSet:
    """All images of a split that are here; a name of the catalog goes before a file of that name."""
    name, split, view = wanted.name, wanted.split, wanted.view
    if name not in catalog():
        return _open_own(wanted, shape)
    if split == WHOLE or wanted.division:
        raise DataError(f"{name} has the splits train, ref and test; name one of them, {name}/test")
    card = data_card(name)
    if card.generated:
        found = _generate(card, split, shape)
    elif card.part:
        found = _open_part(card, split, view, shape)
    else:
        found = _open_card(card, wanted, shape)
    return replace(found, card=name)


def _own(name: str) -> Mapping[str, Source]:
    """The sources of a set that is not in the catalog, by split."""
    path = as_path(name)
    found = (
        sources.own_sources(name)
        if path is None
        else sources.sources_at(path, file_and_member(name)[1])
    )
    if not found:
        known = {*catalog(), *own_sets(catalog())}
        hint = "`oodbench list data` shows all; a path is written with a / in it, ./name."
        raise UnknownNameError("image set", name, known, hint)
    return found


def _open_own(wanted: Identifier, shape: Shape | None) -> ImageSet:
    path = as_path(wanted.name)
    name = wanted.name if path is None else shown_name(path, file_and_member(wanted.name)[1])
    found = open_split(name, _own(wanted.name), wanted, shape)
    division = None if wanted.split == WHOLE else wanted.division
    images = ImageSet(
        name,
        wanted.split,
        found.view,
        found.images,
        len(found.images),
        in_random_order=found.in_random_order,
        division=division,
        remarks=found.remarks,
    )
    return _checked_shape(images, shape)


def shown_name(path: Path, member: str = "") -> str:
    """What a path is called where it is shown: its last part, of a file without the suffix of an array.

    A folder that is named as a split has the name of its own folder before it.
    """
    last = os.path.basename(os.path.abspath(path)) or str(path)
    if path.is_dir() and last.lower() in WORDS:
        last = f"{os.path.basename(os.path.dirname(os.path.abspath(path)))}/{last}"
    if not path.is_dir() and path.suffix in ARRAY_SUFFIXES:
        last = last.removesuffix(path.suffix)
    return shown(last) + (f"{MEMBER}{member}" if member else "")


@dataclass(frozen=True)
class Split:
    """A split as it lies on this machine: a source, and which of its images are the split's (None: all).

    ``drawn_from`` is set where the source holds the beginning of a draw of so many images.
    """

    name: str
    split: str
    source: Source
    official: int
    rows: np.ndarray | None = None
    in_random_order: bool = False
    drawn_from: int | None = None


def _open_card(card: DataCard, wanted: Identifier, shape: Shape | None) -> ImageSet:
    split = wanted.split
    found = split_on_disk(card, split)
    if found is None:
        found = _drawn_split(card, wanted)
    if found is None:
        raise _missing(card, split)
    return _seen(found, wanted.view, shape)


def split_on_disk(card: DataCard, split: str) -> Split | None:
    """A split of the catalog as it lies here, in its own order; None where it does not, or only a draw of it."""
    return _test_split(card) if split == "test" else _training_split(card, split)


def _test_split(card: DataCard) -> Split | None:
    source = sources.find(card, "test")
    if source is None:
        return None
    return Split(card.name, "test", source, card.counts.get("test", source.n))


def _training_split(card: DataCard, split: str) -> Split | None:
    """`train` or `ref` of a training set that is here, or `ref` of a file of its own."""
    whole = sources.find(card, "train")
    own = sources.find(card, "ref") if split == "ref" else None
    # A tenth of the training set is `ref`: the training set is taken where it gives more of it than the file does.
    if whole is not None and (own is None or whole.n > 10 * own.n):
        size = card.counts.get("train", whole.n)
        rows, official = split_indices(size, whole.n)[split], len(split_indices(size)[split])
        return Split(card.name, split, whole, official, rows, in_random_order=split == "ref")
    if own is None:
        return None
    # A user's own file may be sorted by class; only the sample's is known to be in the order of `ref`.
    official = card.counts.get("train", 0) // 10 or own.n
    return Split(card.name, split, own, official, in_random_order=sources.is_sample(own))


def _drawn_split(card: DataCard, wanted: Identifier) -> Split | None:
    """The drawn images of a split that travel in the package.

    Of `train` they never stand in for the split, and a draw of no more has to be asked for; of `test` they do, as a draw.
    """
    split = wanted.split
    source = sources.drawn_sample(card, split)
    if source is None or wanted.prefix is not None:
        return None
    if split == "test":
        return Split(card.name, split, source, card.counts[split], drawn_from=card.counts[split])
    if wanted.draw is None or wanted.draw > source.n:
        return None
    size = len(split_indices(card.counts["train"])["train"])
    return Split(card.name, split, source, size, drawn_from=size)


def _open_part(card: DataCard, split: str, view: str | None, shape: Shape | None) -> ImageSet:
    whole = read_images(card.part["of"])
    rows = part_indices(card.part["sizes"])[split]
    here = whole.images[rows[rows < len(whole)]]
    view = view_for(whole.shape, view, shape)
    images = _read_only(apply_view(here, view))
    official = card.counts[split]
    found = ImageSet(card.name, split, view, images, official, in_random_order=True)
    return _checked_shape(found, shape)


def _missing(card: DataCard, split: str) -> MissingDataError:
    drawn = sources.drawn_sample(card, split)
    use = ": to be looked at, too few to be fitted to" if split == "train" else ""
    few = (
        f" (of its images only {drawn.n} are here, {card.name}/{split}[{drawn.n} drawn] in the bundled sample{use})"
        if drawn
        else ""
    )
    part = "".join(f" ({sentence})" for sentence in sources.in_part(card, split))
    return MissingDataError(
        f"{card.name}/{split} is not on this machine{part}; to get it: {card.how_to_get()}{few}"
    )


def _seen(found: Split, view: str | None, shape: Shape | None) -> ImageSet:
    """The images of a split through a view, or through that of the rule where none is named."""
    name, split, rows = found.name, found.split, found.rows
    held = split if rows is None else "train"
    images = cached_copy(f"{name}-{held}", found.source, [], found.source.decode)
    channels, height, width = images.shape[1:]
    view = view_for((channels, height, width), view, shape)
    if view or rows is not None:
        made_by = [view, None if rows is None else content_hash(rows)]
        make = partial(_chosen, images, rows, view)
        images = cached_copy(f"{name}-{split}-{view}", found.source, made_by, make)
    seen = ImageSet(
        name,
        split,
        view,
        images,
        found.official,
        drawn_from=found.drawn_from,
        in_random_order=found.in_random_order,
        remarks=found.source.remarks,
    )
    return _checked_shape(seen, shape)


def _chosen(images: np.ndarray, rows: np.ndarray | None, view: str) -> np.ndarray:
    return apply_view(images if rows is None else images[rows], view)


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
