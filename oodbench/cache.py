"""What lies in the cache, and what of it no run reads any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from oodbench.errors import DamagedError
from oodbench.paths import home, sweep, write_whole
from oodbench.store import read_sealed

KINDS = {
    "columns": ".npz",
    "images": ".npy",
    "prepared": ".npz",
    "replicates": ".npz",
    "samples": ".npy",
}
"""Folder of the cache → the suffix of its sealed files."""


VERSION = "3"
"""Of the files' form; an earlier version's are misses."""


def older_cache() -> str | None:
    """A sentence where an earlier version left files in the cache; said once, since the cache then bears this version."""
    mark = home() / "version"
    if mark.exists() and mark.read_text("utf-8", errors="replace").strip() == VERSION:
        return None
    found = any((home() / "columns").rglob("*.npz"))
    write_whole(mark, lambda file: file.write(f"{VERSION}\n".encode()))
    if not found:
        return None
    return (
        f"the cache {home()} holds files of an earlier version, which are measured again; `oodbench cache --remove` "
        "removes them"
    )


def sweep_cache() -> int:
    """Remove what killed processes left half written in the cache; returns how many files that were."""
    return sum(sweep(home() / kind) for kind in (*KINDS, "pages", "weights"))


def describe_cache() -> Iterator[str]:
    """A line a kind: files, size, and how many of them are of earlier versions or damaged."""
    yield f"{home()}"
    for kind, suffix in KINDS.items():
        files = list((home() / kind).rglob(f"*{suffix}"))
        size = sum(file.stat().st_size for file in files) / 1e6
        old = sum(not _readable(file) for file in files)
        end = (
            f", {old} of earlier versions or damaged: `oodbench cache --remove` removes them"
            if old
            else ""
        )
        yield f"{kind}: {len(files)} files, {size:,.1f} MB{end}"


def remove_unreadable() -> str:
    """Remove the files that this version does not read; returns a sentence on what was removed."""
    removed, size = sweep_cache(), 0
    for file in unreadable():
        size += file.stat().st_size
        file.unlink()
        removed += 1
    return f"removed {removed} files, {size / 1e6:,.1f} MB"


def unreadable() -> list[Path]:
    """Files without a seal that fits: of earlier versions, or damaged."""
    files = (file for kind, suffix in KINDS.items() for file in (home() / kind).rglob(f"*{suffix}"))
    return [file for file in files if not _readable(file)]


def _readable(file: Path) -> bool:
    try:
        read_sealed(file)
    except DamagedError:
        return False
    return True
