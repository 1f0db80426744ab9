"""Per-image scores beside the rows: from them every metric can be computed again, without images or weights.

One file a model and scorer (and group size), ``scores/<model>/<scorer>.npz``; one float64 column an image set, in the order
of the set, named by the set's identifier and the column's digest. NaN stands in the place of an image that was left out, since a
model was trained on it. Rows hold the digests; the file ends in a seal.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from oodbench.errors import StoreError
from oodbench.foreign import check_packing, inside
from oodbench.paths import write_if_changed, write_whole
from oodbench.store import Row, read_sealed, sealed

RECORD = "scores.json"
"""In a results folder whose scores travel apart: the archive's name, hash and size."""
SHOWN = 16
"""Digits of a digest in a column's name."""


def digest(scores: np.ndarray) -> str:
    """SHA-256 of the scores' bytes, float64 in little-endian order."""
    return hashlib.sha256(np.ascontiguousarray(scores, "<f8").tobytes()).hexdigest()


def scores_file(folder: Path, row: Row) -> Path:
    """Where the scores of a row's model and scorer lie."""
    groups = "" if row["group_size"] == 1 else f", groups of {row['group_size']}"
    name = f"{row['model']}/{row['scorer']}{groups}.npz"
    return inside(folder / "scores", name, StoreError, folder / "rows.jsonl")


def column_name(identifier: str, sha256: str) -> str:
    """What a column is called inside its file."""
    return f"{identifier} {sha256[:SHOWN]}"


def columns_of(row: Row) -> dict[str, tuple[str, str]]:
    """For ``in`` and ``ood`` the name and the digest of the row's column; nothing for rows without scores."""
    sets = {"in": row["in_dist"], "ood": row["ood"]}
    digests = row.get("scores") or {}
    return {side: (column_name(sets[side], found), found) for side, found in digests.items()}


def read_scores(folder: Path, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a row's in-dist and OOD images (or groups), without those that were left out; raises as below."""
    of_in, of_ood = scores_in_place(folder, row)
    return of_in, of_ood[~np.isnan(of_ood)]


def scores_in_place(folder: Path, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a row's in-dist and OOD images (or groups) in their order, NaN where an image was left out.

    Raises
    ------
    StoreError : the file or a column is missing, or is not what the row's digest says
    """
    path, found = scores_file(folder, row), []
    for name, expected in columns_of(row).values():
        try:
            content = io.BytesIO(read_sealed(path))
            check_packing(content, content.getbuffer().nbytes)
            with np.load(content, allow_pickle=False) as archive:
                scores = archive[name]
        except Exception as error:  # a damaged archive raises whatever its reader stumbles over
            raise StoreError(_absent(folder, path, name, error)) from error
        if digest(scores) != expected:
            raise StoreError(
                f"{path}: the scores of {name} are not those that the row was computed from"
            )
        found.append(scores)
    if len(found) != 2:
        raise StoreError(
            f"the row {row['key'][:12]}… holds no digests of scores: it is of an older schema or has failed"
        )
    return found[0], found[1]


def _absent(folder: Path, path: Path, name: str, error: Exception) -> str:
    if path.exists() or not (folder / RECORD).exists():
        return f"{path} does not hold the scores of {name} ({type(error).__name__}: {error}); run the suite again"
    return f"the scores of {name} travel apart from {folder}, which holds {RECORD}: unpack the archive there"


def has_scores(folder: Path, row: Row) -> bool:
    """Whether the scores of a row are there and are its own."""
    try:
        read_scores(folder, row)
    except StoreError:
        return False
    return True


class ScoreFiles:
    """Takes scores as rows come, and writes them into a results folder, a file a model and scorer."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._new: dict[Path, dict[str, np.ndarray]] = {}

    def add(self, row: Row, scores: Mapping[str, np.ndarray]) -> None:
        """Take the scores of one sound row; they are written with the next :meth:`write`."""
        columns = self._new.setdefault(scores_file(self.folder, row), {})
        for side, (name, _) in columns_of(row).items():
            columns[name] = np.asarray(scores[side], np.float64)

    def write(self) -> None:
        """Add what came since to the files as they are now; to be called while the folder is locked."""
        for path, columns in self._new.items():
            _write(path, _read_all(path) | columns)
        self._new = {}

    def keep_only(self, rows: Iterable[Row]) -> None:
        """Drop columns that no row names any more, and files without columns; while the folder is locked."""
        named: dict[Path, set[str]] = {}
        for row in rows:
            if row.get("scores"):
                names = {name for name, _ in columns_of(row).values()}
                named.setdefault(scores_file(self.folder, row), set()).update(names)
        for path in (self.folder / "scores").rglob("*.npz"):
            columns = _read_all(path)
            kept = {name: column for name, column in columns.items() if name in named.get(path, ())}
            if not kept:
                path.unlink()
            elif len(kept) < len(columns):
                _write(path, kept)


def _read_all(path: Path) -> dict[str, np.ndarray]:
    """The columns of a file that can be read; rows whose column is damaged, in whatever way, are judged again."""
    found: dict[str, np.ndarray] = {}
    with suppress(Exception):
        check_packing(path, path.stat().st_size)
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                with suppress(Exception):
                    found[name] = archive[name]
    return found


def _write(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, np.ndarray] = dict(sorted(columns.items()))
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_if_changed(path, sealed(buffer.getvalue()))


def archive_scores(folder: Path, out: Path) -> str:
    """Pack a results folder's scores into one ``.tar``; returns its SHA-256.

    The same scores give the same bytes. The hash is kept in the folder, which then needs no scores of its own.

    Raises
    ------
    StoreError : there are no scores
    """
    files = sorted((folder / "scores").rglob("*.npz"))
    if not files:
        raise StoreError(f"{folder} holds no scores; run the suite into it first")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            member = tarfile.TarInfo(file.relative_to(folder).as_posix())
            member.size = file.stat().st_size  # no clock and no owner: the same bytes each time
            with file.open("rb") as opened:
                archive.addfile(member, opened)
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    record = {"archive": out.name, "sha256": sha256, "bytes": len(content), "files": len(files)}
    write_whole(out, lambda file: file.write(content))
    write_if_changed(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    return sha256
