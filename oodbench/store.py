"""Columns and rows on disk: content-addressed, written whole, checked when read."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.errors import StoreError
from oodbench.paths import home, write_if_changed, write_whole

SCHEMA = 2
"""Of rows; a reader refuses newer ones."""
SECONDS = "seconds"
"""Beside the statistics, each shard keeps how long its measurement took."""

Row = dict[str, Any]
logger = logging.getLogger("oodbench")


def key_of(*parts: Any) -> str:
    """SHA-256 of JSON-able parts: the name of a thing that is its content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class ColumnStore:
    """Shards of statistics, ``root/ab/abcd….npz``; the key holds the hashes of weights, images and statistic.

    A shard is written whole or not at all, so that any interruption loses at most those in flight.
    """

    def __init__(self, root: Path | None = None):
        self.root = home() / "columns" if root is None else root

    def path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.npz"

    def __contains__(self, key: str) -> bool:
        return self.path(key).exists()

    def put(self, key: str, columns: Mapping[str, np.ndarray], seconds: float) -> None:
        """Store one shard; :class:`StoreError` where the disk is full or the folder cannot be written."""
        arrays: dict[str, Any] = {**columns, SECONDS: np.float64(seconds)}
        write_whole(self.path(key), lambda file: np.savez(file, **arrays))

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """One shard, or None where it is not here; a damaged one is removed and counts as not here."""
        path = self.path(key)
        try:
            with np.load(path, allow_pickle=False) as archive:  # the zip's CRC covers every array
                return {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            return None
        except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError) as error:
            logger.warning("the cached shard %s is damaged (%s); it is measured again", path, error)
            path.unlink(missing_ok=True)
            return None


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as sorted JSON lines; a file that would not change is left alone."""
    lines = sorted(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows)
    write_if_changed(path, "".join(line + "\n" for line in lines).encode())


def read_rows(path: Path) -> list[Row]:
    """Read rows; none where the file does not exist.

    Raises
    ------
    StoreError : a damaged line, or rows of a newer schema
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise StoreError(
                f"{path}:{number} is not a row ({error}); delete the file and run the suite again"
            ) from error
        if row.get("schema", 0) > SCHEMA:
            raise StoreError(
                f"{path}:{number} has schema {row['schema']}, this oodbench knows up to {SCHEMA}: it was written by a newer "
                "version; upgrade oodbench, or use another --out"
            )
        rows.append(row)
    return rows
