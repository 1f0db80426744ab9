"""Where oodbench keeps and finds things on this machine, and how it writes whole files."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from oodbench.errors import OodbenchError, StoreError

PACKAGE = Path(__file__).parent
UNFINISHED = ".unfinished"
"""Ending of a file that is being written; who writes it holds a lock on it, so that others know."""


def home() -> Path:
    """The cache: ``$OODBENCH_HOME``, else ``$XDG_CACHE_HOME/oodbench``, else ``~/.cache/oodbench``."""
    own = os.environ.get(
        "OODBENCH_HOME"
    )  # an empty one is unset, or the current folder would be the cache
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "oodbench"


def data_folder() -> Path | None:
    """The user's folder of ``.npz`` files and raw data sets, ``$OODBENCH_DATA``, where it is set."""
    if not os.environ.get("OODBENCH_DATA"):
        return None
    folder = Path(os.environ["OODBENCH_DATA"]).expanduser()
    if not folder.is_dir():
        raise OodbenchError(
            f"OODBENCH_DATA names {folder}, which is no folder; correct it or unset it"
        )
    return folder


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write(file)`` so that ``path`` holds all of it or is as before: temporary file, fsync, rename.

    Raises
    ------
    StoreError : the folder cannot be written, or the disk is full; nothing is left behind
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _unfinished(path) as (file, name):
            write(file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(name, path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. Free some space or permit writing there, "
            "or set OODBENCH_HOME (the cache) or --out (the results) to another folder; what is finished is kept."
        ) from error


@contextmanager
def _unfinished(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """A new file beside ``path``, locked while it is written, with the rights that the umask leaves; gone at the end."""
    while True:
        name = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{UNFINISHED}")
        file = os.fdopen(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666), "wb")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if name.exists():  # nobody swept it before it was locked
            break
        file.close()
    try:
        with file:
            yield file, name
    finally:
        name.unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Remove what killed processes left half written below a folder; returns how many files that were.

    Files that a living process writes are locked, and stay.
    """
    found = ((here, name) for here, _, names in os.walk(folder) for name in names)
    return sum(_swept(Path(here, name)) for here, name in found if name.endswith(UNFINISHED))


def _swept(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:  # it is being written, is gone, or is not ours to remove
        return False
    return True


def write_if_changed(path: Path, content: bytes) -> None:
    """Write ``content`` whole, unless the file holds just that already and can be left untouched."""
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, lambda file: file.write(content))
