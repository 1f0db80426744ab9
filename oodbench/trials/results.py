"""A results folder: rows by table, kept, replaced and written so that a run never leaves less than it found.

A row goes only when a measured one of the same name takes its place. Lines that cannot be read, or are not what was
written, are set aside in ``<table>.damaged.jsonl`` and computed again. Runs that write into one folder at once merge: each
reads again before it writes, under a lock.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from oodbench.errors import StoreError
from oodbench.paths import write_if_changed
from oodbench.store import SCHEMA, Row, read_lines, read_rows, write_rows

logger = logging.getLogger("oodbench")

PAIR = ("model", "in_dist", "ood", "seed")
NAMES: Mapping[str, tuple[str, ...]] = {
    "rows": (*PAIR, "scorer", "group_size"),
    "comparisons": PAIR,
    "analysis": ("kind", "model", "in_dist", "role", "images", "seed"),
    "curves": ("kind", *PAIR, "scorer", "column", "set", "role", "quantity"),
}
"""Table → the fields that are a row's name: two rows of one name are one row, measured twice. A folder
holds rows of one suite."""
HISTORY = "history"
"""Table of the rows whose place another one has taken, as they were; each names by ``replaces`` the one before it."""
Tables = Mapping[str, Iterable[Row]]


def name_of(table: str, row: Row) -> tuple[object, ...]:
    """A row's name; a skip is named by its kind too, and never stands in for a measured row."""
    skipped = row.get("status") == "skipped"
    return (skipped, *(row.get(name) for name in NAMES[table]))


class ResultsFolder:
    """Rows of a folder, by table."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._damaged: dict[str, list[str]] = {}
        self.found = {table: self._read(table) for table in NAMES}
        """What was there when the run began."""

    def path(self, table: str) -> Path:
        return self.folder / f"{table}.jsonl"

    def check_suite(self, suite: str) -> None:
        """:class:`StoreError` where the folder holds rows of another suite."""
        others = sorted({str(row.get("suite")) for row in self.found["rows"]} - {suite})
        if others:
            raise StoreError(
                f"{self.folder} holds rows of the suite {others[0]!r}, not of {suite!r}; name another folder with --out"
            )

    def kept(self, table: str) -> dict[str, Row]:
        """Key → row of the sound rows of this schema."""
        rows = (row for row in self.found[table] if row.get("schema") == SCHEMA)
        return {row["key"]: row for row in rows if row.get("status") == "ok" and row.get("key")}

    def rows(self, table: str) -> list[Row]:
        """The rows that are on disk now."""
        return self._read(table)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against other runs; :class:`StoreError` where it cannot be written."""
        with locked(self.folder):
            yield

    def merge(self, new: Tables, gone: Callable[[Row], bool] = lambda row: False) -> list[Row]:
        """Merge new rows into those on disk; returns new ones that did not take the place of a measured row.

        To be called while the folder is held. ``gone`` tells which skips of earlier runs this one has planned anew.
        Tables with damaged lines are written without them; tables that are not in ``new`` are else left alone.
        """
        refused: list[Row] = []
        for table in (one for one in NAMES if one in new or self._damaged[one]):
            rows, found = new.get(table, ()), self._read(table)
            before = {name_of(table, row): row for row in found if not gone(row)}
            gone_by = [_merge(before, name_of(table, row), row, refused) for row in rows]
            if table == "rows":
                self._remember([row for row in gone_by if row])
            if rows or len(before) < len(found) or self._damaged[table]:
                self._set_aside(table)
                write_rows(self.path(table), before.values())
        return refused

    def _read(self, table: str) -> list[Row]:
        rows, damaged = read_lines(self.path(table))
        known = self._damaged.setdefault(table, [])
        fresh = [line for line in damaged if line not in known]
        known += fresh
        if fresh:
            told = "%d lines of %s are not what was written; what they said is computed again"
            logger.warning(told, len(fresh), self.path(table))
        return rows

    def _remember(self, replaced: list[Row]) -> None:
        """Keep rows whose place another one takes; none where all of them are kept already."""
        if replaced:
            kept = {row["key"]: row for row in read_lines(self.path(HISTORY))[0]}
            write_rows(self.path(HISTORY), (kept | {row["key"]: row for row in replaced}).values())

    def withdraw(self, keys: Collection[str], reason: str) -> list[Row]:
        """Mark the rows whose key begins with one of ``keys``; they stay, and every page gives the reason.

        Raises
        ------
        StoreError : a key is no row's, or that of several
        """
        with self.held():
            rows = read_rows(self.path("rows"))
            found = [one_row(rows, key, self.folder)["key"] for key in keys]
            marked = [row | {"withdrawn": reason} if row["key"] in found else row for row in rows]
            write_rows(self.path("rows"), marked)
        return [row for row in marked if row["key"] in found]

    def _set_aside(self, table: str) -> None:
        lines = self._damaged.get(table)
        if lines:
            path = self.folder / f"{table}.damaged.jsonl"
            before = path.read_bytes() if path.exists() else b""
            added = [line.encode("utf-8", "surrogateescape") for line in lines]
            kept = [line for line in added if line not in before]
            write_if_changed(path, before + b"".join(line + b"\n" for line in kept))


def one_row(rows: Iterable[Row], key: str, folder: Path) -> Row:
    """The row whose key begins so; :class:`StoreError` where there is none, or several."""
    found = [row for row in rows if row["key"].startswith(key)]
    if len(found) != 1:
        how = "no row has" if not found else f"{len(found)} rows have"
        raise StoreError(
            f"{how} a key that begins with {key!r} in {folder}; keys stand in rows.jsonl"
        )
    return found[0]


def _merge(
    before: dict[tuple[object, ...], Row], name: tuple[object, ...], row: Row, refused: list[Row]
) -> Row | None:
    """Put a row in its place, unless it failed and a measured one stands there; returns the measured row that it replaced."""
    old = before.get(name)
    if old is not None and old.get("status") == "ok" and row["status"] != "ok":
        refused.append(row)
        return None
    replaced = None
    if old is not None and "replaces" in row:
        same = old["key"] == row["key"]
        row = row | {"replaces": old.get("replaces") if same else old["key"]}
        replaced = None if same or old.get("status") != "ok" else old
    before[name] = row
    return replaced


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against other runs; :class:`StoreError` where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # though a lock of an earlier run may be there
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        # neither a pipe nor a link in a folder of others is waited for or followed
        how = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(folder / ".lock", how, 0o666), "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise StoreError(
            f"cannot write into {folder}: {error.strerror}; name another folder with --out"
        ) from error
