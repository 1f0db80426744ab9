"""Where oodbench keeps and finds things on this machine, and how it writes whole files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from oodbench.errors import OodbenchError, StoreError

PACKAGE = Path(__file__).parent


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
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}. Free some space or permit writing there, "
            "or set OODBENCH_HOME (the cache) or --out (the results) to another folder; what is finished is kept."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_if_changed(path: Path, content: bytes) -> None:
    """Write ``content`` whole, unless the file holds just that already and can be left untouched."""
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, lambda file: file.write(content))
