"""Many pictures as one array: read once, in parallel, each brought to its view as soon as it is decoded.

Memory holds a few pictures a thread at a time: Pillow decodes and resizes without the interpreter's lock.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from oodbench.data.copies import Source, Stream, cached_copy
from oodbench.data.folders import listing, shown
from oodbench.data.pictures import DARK, Picture, decode, header
from oodbench.data.views import Shape, apply_view, is_ground
from oodbench.errors import DataError
from oodbench.progress import Bars, progress_bars

BATCH = 16
"""Pictures that a thread reads at a time."""
AHEAD = 2
"""Batches a thread that may be waiting, so that a large folder never lies in memory."""
TOLD = 1000
"""Pictures from which on a bar tells how the reading goes."""
T = TypeVar("T")
UNEQUAL = (0, 1)
"""Stands for the height and width of pictures that are not of one size."""


@dataclass(frozen=True)
class Pictures(Source):
    """A source that is a sequence of pictures.

    Attributes
    ----------
    pictures : yields them in order
    view : that each is brought to, before they are one array
    """

    pictures: Callable[[], Iterable[Picture]] = field(kw_only=True)
    view: str = ""

    def through(self, view: str) -> Pictures:
        """The same pictures, read through a view."""
        return replace(self, view=view, recipe=f"pictures@{view}")

    @property
    def shape(self) -> Shape:
        """``(C, H, W)`` before any view; height and width are :data:`UNEQUAL` where the pictures are of several sizes."""
        found = self.headers()
        channels = int(found[:, 0].max())
        sizes = np.unique(found[:, 1:], axis=0)
        height, width = sizes[0] if len(sizes) == 1 else UNEQUAL
        return channels, int(height), int(width)

    def headers(self) -> np.ndarray:
        """Channels, height and width of each picture, int64 ``(N, 3)``; kept from the first look on."""
        plain = replace(self, recipe="headers of pictures")
        return cached_copy(f"{Path(self.where).name}-headers", plain, [], self._headers)

    def _headers(self) -> np.ndarray:
        found: list[tuple[int, int, int]] = []
        faults: list[str] = []
        for read in self._read(header, "looking at"):
            found += [one for one in read if not isinstance(one, str)]
            faults += [one for one in read if isinstance(one, str)]
        self._refuse(faults)
        return np.array(found, np.int64).reshape(-1, 3)

    def decode(self) -> Stream:
        """All pictures through the view, uint8 ``(N, C, H, W)``, in blocks."""
        return Stream(self.n, self._blocks())

    def _blocks(self) -> Iterator[np.ndarray]:
        channels = _channels_after(self.view, self.shape[0])
        work = partial(_seen, view=self.view, channels=channels)
        faults: list[str] = []
        shapes: set[tuple[int, ...]] = set()
        deepest = -1  # of pictures of more than eight bits, the brightest level
        for read in self._read(work, "reading"):
            seen = [one for one in read if not isinstance(one, str)]
            faults += [one for one in read if isinstance(one, str)]
            shapes |= {one.values.shape for one in seen}
            deepest = max([deepest, *(one.brightest for one in seen if one.deep)])
            self._check_equal(shapes)
            if not faults:
                yield np.stack([one.values for one in seen])
        self._refuse(faults)
        if 0 <= deepest < DARK:
            raise DataError(
                f"the 16-bit pictures in {self.where} have no value above {deepest * 256 + 255:,} of 65,535 and would be nearly "
                "black: their values may be of 10, 12 or 14 bits; scale them to 0…255 and save them as 8 bits"
            )

    def _check_equal(self, shapes: set[tuple[int, ...]]) -> None:
        if len(shapes) > 1:
            some = " and ".join(map(str, sorted(shapes)[:2]))
            raise DataError(
                f"{self.where} holds images of unequal shapes ({some}, …); name a view such as @square,resize32-bilinear-aa"
            )

    def _refuse(self, faults: list[str]) -> None:
        if not faults:
            return
        rest = f" {len(faults) - 1:,} more of its files cannot be read as they are." * (
            len(faults) > 1
        )
        raise DataError(faults[0] + ("." if rest else "") + rest)

    def _read(self, work: Callable[[Picture], T], doing: str) -> Iterator[list[T | str]]:
        with _bars(self.n) as bars:
            if bars:
                bars.add(self.where, f"{doing} {Path(self.where).name}", self.n)
            for read in _in_parallel(partial(_told, work), self.pictures()):
                if bars:
                    bars.advance(self.where, len(read))
                yield read


@dataclass(frozen=True)
class _Seen:
    """A picture through a view, and what it was before: deep, and how bright."""

    values: np.ndarray
    deep: bool
    brightest: int


def _seen(picture: Picture, view: str, channels: int) -> _Seen:
    pixels = decode(picture)
    values = pixels.values
    if len(values) in (2, 4) and not is_ground(view.split(",")[0]):
        share = (values[-1] < 255).mean()
        raise DataError(
            f"{picture.shown} is transparent in {share:.1%} of its pixels; name the ground in the view, behind the set's "
            "name: @on255 for white, @on0 for black"
        )
    try:
        viewed = apply_view(values[None], view)[0]
    except DataError as error:
        raise DataError(f"{picture.shown}: {error}") from error
    if len(viewed) < channels:
        viewed = np.repeat(viewed, channels, axis=0)
    return _Seen(viewed, pixels.deep, int(values.max()))


def _channels_after(view: str, channels: int) -> int:
    for operation in view.split(","):
        channels = {"rgb": 3, "grey": 1}.get(operation, channels)
    return channels


def _told(work: Callable[[Picture], T], pictures: list[Picture]) -> list[T | str]:
    """What ``work`` gives of each picture, or the sentence that says why it cannot be read."""
    found: list[T | str] = []
    for picture in pictures:
        try:
            found.append(work(picture))
        except DataError as error:
            found.append(str(error))
    return found


def _in_parallel(work: Callable[[list[Picture]], T], pictures: Iterable[Picture]) -> Iterator[T]:
    """``work`` of each batch of pictures, in order, by as many threads as there are cores."""
    threads = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(pictures):
            waiting.append(pool.submit(work, batch))
            if len(waiting) > AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _batches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    iterator = iter(pictures)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


def _bars(n: int) -> AbstractContextManager[Bars | None]:
    # a worker has no terminal of its own, and finds what the driver has read
    quiet = n < TOLD or multiprocessing.parent_process() is not None
    return nullcontext() if quiet else progress_bars("images")


def image_folder(folder: Path, view: str = "", broken: Iterable[str] = ()) -> Pictures | None:
    """All pictures below a folder in sorted order; grey when every one is, else RGB. None where there are none.

    Pictures of unequal sizes need a ``view`` that makes them equal. Files named in ``broken``, known to be unreadable in
    the original, are left out.
    """
    found = listing(folder, frozenset(broken))
    if not found.pictures:
        return None
    pictures = [Picture(str(file), file) for file in found.pictures]
    remarks = (found.remark,) if found.remark else ()
    where, n = shown(folder), len(pictures)
    source = Pictures(where, found.pictures, n, "", remarks, pictures=lambda: pictures)
    return source.through(view)
