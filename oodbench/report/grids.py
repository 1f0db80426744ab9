"""The small pictures in ``grids/``, each proved by the hash in its row when it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from oodbench.errors import StoreError
from oodbench.store import Row

PICTURED = ("grid", "coupling")
"""Kinds of curves that have a picture beside their row."""
REMEDY = "delete it and run the suite again, which makes it anew"


def read_grid(folder: Path, row: Row) -> bytes:
    """The PNG file that a row names.

    Raises
    ------
    StoreError : it cannot be read, or is not the one that the row was written with
    """
    path = folder / "grids" / Path(row["file"]).name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}; {REMEDY}") from error
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        raise StoreError(f"{path} is not the picture that its row names; {REMEDY}")
    return content


def grid_faults(folder: Path, curves: Iterable[Row]) -> list[str]:
    """A sentence for each picture that is missing or is not the one that its row names."""
    found = []
    for row in curves:
        if row["kind"] in PICTURED:
            try:
                read_grid(folder, row)
            except StoreError as error:
                found.append(str(error))
    return found
