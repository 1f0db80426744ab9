"""Decoded copies of image files in the cache: memory-mapped, sealed, and made again where they are damaged."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.errors import DamagedError, DataError
from oodbench.paths import home
from oodbench.store import key_of, map_sealed, write_sealed_array

VERSION = 3
"""Of decoding, of views and of the files; a new one whenever the same sources give other pixels."""
LABEL = 60
"""Letters of a copy's label that its file's name shows."""

logger = logging.getLogger("oodbench")


@dataclass(frozen=True)
class Stream:
    """An array of ``n`` images that comes in blocks, so that it never lies in memory as a whole."""

    n: int
    blocks: Iterator[np.ndarray]


@dataclass(frozen=True)
class Source:
    """Where one split can be read: the files, how many images, and how to decode them.

    Attributes
    ----------
    recipe : all that :meth:`decode` depends on beside the files, in words; with them the identity of what it returns
    remarks : sentences on what was found and is not used
    labels : reads the class of each image, ``(N,)``; None where the files tell none
    """

    where: str
    files: tuple[Path, ...]
    n: int
    recipe: str
    remarks: tuple[str, ...] = ()
    labels: Callable[[], np.ndarray] | None = None

    def decode(self) -> np.ndarray | Stream:
        """uint8 ``(N, C, H, W)``, whole or in blocks."""
        raise NotImplementedError


@dataclass(frozen=True)
class Arrays(Source):
    """A source that is decoded at once."""

    make: Callable[[], np.ndarray] = field(kw_only=True)

    def decode(self) -> np.ndarray:
        return self.make()


def cached_copy(
    label: str, source: Source, made_by: list[Any], make: Callable[[], np.ndarray | Stream]
) -> np.ndarray:
    """What ``make`` gives of a source's files, memory-mapped from the cache, where it lies from the first use on.

    Parameters
    ----------
    label : for people who look into the cache
    made_by : whatever ``make`` depends on beside the files, JSON-able; part of the key

    Raises
    ------
    DataError : the copy cannot be read, or the source cannot be decoded
    """
    key = key_of("images", VERSION, label, source.recipe, source.n, _stamps(source), made_by)
    shown = re.sub(r"[^A-Za-z0-9_.]+", "-", label)[:LABEL].strip("-")
    path = home() / "images" / f"{shown}-{key[:16]}.npy"
    try:
        return map_sealed(path)
    except FileNotFoundError:
        pass
    except DamagedError:
        logger.warning(
            "the decoded copy %s is damaged; it is made again from %s", path, source.where
        )
    except OSError as error:
        raise DataError(
            f"the decoded copy {path} cannot be read ({error.strerror or error}); permit reading it, or delete it"
        ) from error
    _write(path, make())
    return map_sealed(path)


def _write(path: Path, made: np.ndarray | Stream) -> None:
    if isinstance(made, np.ndarray):
        write_sealed_array(path, made.shape, made.dtype, iter([made]))
        return
    first = next(made.blocks)
    write_sealed_array(path, (made.n, *first.shape[1:]), first.dtype, _again(first, made.blocks))


def _again(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def whole(made: np.ndarray | Stream) -> np.ndarray:
    """What a source decodes to, in memory."""
    return made if isinstance(made, np.ndarray) else np.concatenate(list(made.blocks))


def _stamps(source: Source) -> list[tuple[str, int, int]]:
    # Size and time stand for the content, since hashing the files would cost as much as decoding them each time: a file
    # that another of the same size and time replaces is not noticed. The path is resolved, so that a link finds the
    # copy of its target; inodes are left out, since a shared disk may number them anew each time it is mounted.
    return [_stamp(file) for file in source.files]


def _stamp(file: Path) -> tuple[str, int, int]:
    real = os.path.realpath(file)
    stat = os.stat(real)
    return real, stat.st_size, stat.st_mtime_ns
