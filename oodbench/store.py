"""What is on disk: sealed files of the cache, shards of columns, rows. Written whole, and proved when they are read.

A sealed file ends in the SHA-256 of all that stands before it, 64 hexadecimal digits. A zip's own CRC is looked at only at a
member's end and an ``.npy`` file has none, so that a flipped bit would become a number. A reader that maps an array ignores
what stands behind it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
from numpy.lib import format as npy_format

from oodbench.errors import DamagedError, StoreError
from oodbench.foreign import check_packing, check_size, parsing, reason_of
from oodbench.paths import home, write_if_changed, write_whole

SCHEMA = 3
"""Of rows; a reader refuses newer ones."""
ABOUT = "about"
"""The member of a shard that says in words what made it."""
SEAL = 64
"""Bytes of a sealed file's seal."""
BLOCK = 1 << 20
"""Bytes that are read at a time where a file is only looked through."""

LARGEST, LONGEST = 2 << 30, 16 << 20
"""Bytes of a file of rows, and characters of one of its lines, that are read."""

Row = dict[str, Any]
logger = logging.getLogger("oodbench")


def key_of(*parts: Any) -> str:
    """SHA-256 of JSON-able parts: the name of a thing that is its content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_sealed(path: Path, content: bytes) -> None:
    """Write a file whole, with its seal; :class:`StoreError` where it cannot be written."""
    write_whole(path, lambda file: file.write(sealed(content)))


def write_sealed_array(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], blocks: Iterable[np.ndarray]
) -> None:
    """Write an array that comes in blocks of its first axis as a sealed ``.npy`` file, whole or not at all."""

    def write(file: IO[bytes]) -> None:
        digest = hashlib.sha256()

        def put(content: bytes | memoryview) -> None:
            digest.update(content)
            file.write(content)

        put(_npy_header(shape, dtype))
        for block in blocks:
            put(np.ascontiguousarray(block).data.cast("B") if block.size else b"")
        file.write(digest.hexdigest().encode())

    write_whole(path, write)


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    buffer = io.BytesIO()
    descr = npy_format.dtype_to_descr(dtype)
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def sealed(content: bytes) -> bytes:
    """Content with its seal behind it."""
    return content + hashlib.sha256(content).hexdigest().encode()


def read_sealed(path: Path) -> bytes:
    """The content of a sealed file.

    Raises
    ------
    FileNotFoundError : there is none
    DamagedError : the seal does not fit what stands before it
    """
    whole = path.read_bytes()
    content, seal = whole[:-SEAL], whole[-SEAL:]
    if hashlib.sha256(content).hexdigest().encode() != seal:
        raise DamagedError(f"{path} is damaged: its content is not what was written")
    return content


def check_seal(path: Path) -> None:
    """Compare a file's seal without holding the file in memory; raises as :func:`read_sealed`.

    A process looks through a file once, unless its size, its time or its place on the disk changes.
    """
    found = path.stat()
    _check_seal(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=1024)
def _check_seal(path: Path, size: int, *_written: int) -> None:
    with path.open("rb") as file:
        digest, left = hashlib.sha256(), size - SEAL
        while left > 0 and (block := file.read(min(left, BLOCK))):
            digest.update(block)
            left -= len(block)
        if left or file.read() != digest.hexdigest().encode():
            raise DamagedError(f"{path} is damaged: its content is not what was written")


def array_bytes(array: np.ndarray) -> bytes:
    """An array as the bytes of an ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def map_sealed(path: Path) -> np.ndarray:
    """The array of a sealed ``.npy`` file, memory-mapped, after its seal was compared; raises as :func:`read_sealed`."""
    check_seal(path)
    with parsing(path, DamagedError, "an array"):
        return np.load(path, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class Shard:
    """What one task measured: statistic → float64 ``(N,)`` or ``(N, K)``, and in words what made it."""

    columns: Mapping[str, np.ndarray]
    about: Mapping[str, Any]


class ColumnStore:
    """Shards of statistics, ``root/ab/abcd….npz``; the key holds the hashes of weights, images and statistic.

    A shard is written whole or not at all, so that any interruption loses at most those in flight.
    """

    def __init__(self, root: Path | None = None):
        self.root = home() / "columns" if root is None else root

    def path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.npz"

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def put(self, key: str, shard: Shard) -> None:
        """Store one shard; :class:`StoreError` where the disk is full or the folder cannot be written."""
        buffer = io.BytesIO()
        about = np.frombuffer(json.dumps(shard.about, sort_keys=True).encode(), np.uint8)
        arrays: dict[str, Any] = {**shard.columns, ABOUT: about}
        np.savez(buffer, **arrays)
        write_sealed(self.path(key), buffer.getvalue())

    def get(self, key: str) -> Shard | None:
        """One shard, or None where it is not here; a damaged one is removed and counts as not here."""
        path = self.path(key)
        try:
            return _shard(path, read_sealed(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (DamagedError, OSError) as error:
            logger.warning("the cached shard %s is damaged (%s); it is measured again", path, error)
            with suppress(OSError):  # what cannot be removed is written over
                path.unlink()
            return None


def _shard(path: Path, content: bytes) -> Shard:
    """The columns in a shard's bytes; :class:`DamagedError` where they are none, whatever their seal says."""
    with parsing(path, DamagedError, "a shard"):
        check_packing(io.BytesIO(content), len(content))
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop(ABOUT).tobytes())
    if not isinstance(about, dict) or not all(map(_is_column, arrays.values())):
        raise DamagedError(f"{path} is damaged: it holds no columns of numbers")
    return Shard(arrays, about)


def _is_column(array: np.ndarray) -> bool:
    return array.dtype.kind in "fiub"


MEASURED = ("cost", "provenance")
"""Fields of a row that say how it was measured: they differ between runs that agree in everything else."""
SEALS = ("values_sha256", "measured_sha256")
"""Fields of a row that hold the hashes of all its other ones, and of :data:`MEASURED`."""


def is_ranked(row: Row) -> bool:
    """Whether a row counts in ranks, means, comparisons and sentences on what leads.

    It does not where a model that its scorer reads was trained on the OOD set or on one of its kin (the row's ``seen``), nor
    where it was withdrawn.
    """
    return not (row.get("seen") or row.get("withdrawn"))


Standing = Literal["scorer", "tuned", "labelled", "baseline"]
"""Which scorers one is ranked among: those that read a density model, those that tuned on OOD images too, those whose model was
trained on class labels, and those without a model."""
STANDINGS: tuple[Standing, ...] = get_args(Standing)
"""In the order in which tables rank them."""


def standing(row: Row) -> Standing:
    """Among which scorers a row is ranked; those of unlike standing are ranked apart."""
    if row["baseline"]:
        return "baseline"
    if row.get("uses_labels"):
        return "labelled"
    return "tuned" if row["tunes_on"] == "validation OOD" else "scorer"


def is_bar(baseline: Row, row: Row) -> bool:
    """Whether a baseline sees no more data than a row's scorer, which it then bars: a scorer must do better to measure more.

    A model has seen in-dist ``train``, so that baselines fitted on it bar every scorer of a model; those that look at ``ref``
    bar scorers that look at it too.
    """
    if row["baseline"] or not baseline["baseline"]:
        return False
    return looks_at_ref(row) or not looks_at_ref(baseline)


def looks_at_ref(row: Row) -> bool:
    """Whether a row's scorer looks at in-dist reference images, to fit, to tune, or through a pass prepared on them."""
    return bool(row.get("ref")) or row["tunes_on"] in ("in-dist ref", "validation OOD")


def row_hashes(row: Row) -> dict[str, str]:
    """The hash of a row's values, and that of its cost and provenance."""
    values = {name: value for name, value in row.items() if name not in (*MEASURED, *SEALS)}
    measured = {name: row.get(name) for name in MEASURED}
    return dict(zip(SEALS, (key_of(values), key_of(measured)), strict=True))


def sealed_row(row: Row) -> Row:
    """A row that proves itself; rows of schemas before 3 stay as they are."""
    return row if row.get("schema", 0) < SCHEMA else row | row_hashes(row)


def faults(row: Row) -> str | None:
    """What is wrong with a row that was read, or None: its hashes must be those of its values.

    Rows of schemas before 3 have none; one that has is of schema 3, whatever a flipped bit has made of its number.
    """
    if row.get("schema", 0) < SCHEMA and not any(name in row for name in SEALS):
        return None
    changed = [name for name, found in row_hashes(row).items() if row.get(name) != found]
    if not changed:
        return None
    return f"its {changed[0]} is not that of what stands in it: it was edited or is damaged"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as sorted JSON lines, each with its hashes; a file that would not change is left alone."""
    proved = map(sealed_row, rows)
    lines = sorted(
        json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) for row in proved
    )
    write_if_changed(path, "".join(line + "\n" for line in lines).encode())


def read_rows(path: Path) -> list[Row]:
    """Read rows; none where the file does not exist.

    Raises
    ------
    StoreError : a damaged or edited line, or rows of a newer schema
    """
    rows = []
    for number, line in enumerate(_lines(path), 1):
        row, fault = _parsed(path, number, line)
        if row is None:
            raise StoreError(
                f"{path}:{number} {fault}; run the suite again, which computes it anew"
            )
        rows.append(row)
    return rows


def read_lines(path: Path) -> tuple[list[Row], list[str]]:
    """Rows, and the lines that are not what was written; :class:`StoreError` for rows of a newer schema alone."""
    rows, damaged = [], []
    for number, line in enumerate(_lines(path), 1):
        row, _ = _parsed(path, number, line)
        if row is None:
            damaged.append(line)
        else:
            rows.append(row)
    return rows, damaged


def _lines(path: Path) -> list[str]:
    """The lines of a file: what a line feed ends, and no other sign that Unicode calls a line's end."""
    if not path.exists():
        return []
    check_size(path, LARGEST, StoreError, "rows")
    return [
        line for line in path.read_bytes().decode("utf-8", "surrogateescape").split("\n") if line
    ]


TEXTS = (
    "key", "suite", "model", "in_dist", "in_dist_name", "ood", "ood_name", "scorer", "status", "reason", "kind", "role", "column",
    "set", "quantity", "images", "file", "sha256", "tunes_on", "likelihood",
)  # fmt: skip
KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(TEXTS, (str,)),
    **dict.fromkeys(("n_in", "n_ood", "group_size", "seed", "bootstrap", "dimensions"), (int,)),
    **dict.fromkeys(("baseline", "synthetic"), (bool,)),
    **dict.fromkeys(("passes", "scorers", "baselines", "sets"), (list,)),
    **dict.fromkeys(("inputs", "cost", "provenance", "scores"), (dict,)),
}
"""The kind of value of the fields that name a row or that pages are made of, in whatever table; null stands for none."""


def odd_field(row: Row) -> str | None:
    """The first field whose value is of another kind than any row of ours has."""
    return next((name for name, kinds in KINDS.items() if not _is_of(row.get(name), kinds)), None)


def _is_of(value: Any, kinds: tuple[type, ...]) -> bool:
    if value is None:
        return True
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _parsed(path: Path, number: int, line: str) -> tuple[Row | None, str]:
    """A row, or None and what is wrong with it."""
    if len(line) > LONGEST:
        return None, f"has {len(line):,} characters, more than the {LONGEST:,} of a row"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError
        return None, f"is not a row ({reason_of(error)})"
    if not isinstance(row, dict) or not isinstance(row.get("schema"), int):
        return None, "is not a row (it is no object with a schema)"
    fault, odd = faults(row), odd_field(row)
    if row["schema"] > SCHEMA and not _was_ours(row):
        raise StoreError(
            f"{path}:{number} has schema {row['schema']}, this oodbench knows up to {SCHEMA}: it was written by a newer "
            "version; upgrade oodbench, or use another --out"
        )
    if fault or odd:
        return None, f"is not what was written: {fault or f'its {odd} is of another kind'}"
    return row, ""


def _was_ours(row: Row) -> bool:
    """Whether a row of a newer schema is one of today's whose number alone is damaged."""
    return faults(row | {"schema": SCHEMA}) is None
