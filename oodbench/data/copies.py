"""Decoded copies of image files in the cache: memory-mapped, sealed, and made again where they are damaged."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.data.sources import Source
from oodbench.errors import DamagedError, DataError
from oodbench.paths import home
from oodbench.store import array_bytes, key_of, map_sealed, write_sealed

VERSION = 2
"""Of decoding, of views and of the files; a new one whenever the same sources give other pixels."""
LABEL = 60
"""Letters of a copy's label that its file's name shows."""

logger = logging.getLogger("oodbench")


def cached_copy(
    label: str, source: Source, made_by: list[Any], make: Callable[[], np.ndarray]
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
    write_sealed(path, array_bytes(np.ascontiguousarray(make())))
    return map_sealed(path)


def _stamps(source: Source) -> list[tuple[str, int, int]]:
    # Size and time stand for the content, since hashing the files would cost as much as decoding them each time: a file
    # that another of the same size and time replaces is not noticed. The path is resolved, so that a link finds the
    # copy of its target; inodes are left out, since a shared disk may number them anew each time it is mounted.
    return [_stamp(file.resolve()) for file in source.files]


def _stamp(file: Path) -> tuple[str, int, int]:
    stat = os.stat(file)
    return str(file), stat.st_size, stat.st_mtime_ns
