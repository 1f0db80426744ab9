"""Whether a folder's pages are those that this version of oodbench made of what is stored there.

The cache holds, for each folder, a hash of the package and of every file that pages are made from or consist of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from oodbench.errors import StoreError
from oodbench.paths import PACKAGE, home, write_if_changed
from oodbench.report.links import is_generated

STORED = ("*.jsonl", "*.md", "*.html", "figures/*", "grids/*")
"""Files of a results folder on which its pages depend, and the pages themselves."""
SOURCES = (".py", ".yaml", ".json", ".j2", ".js", ".css")
"""Endings of the package's files on which pages depend."""


def remembered(folder: Path) -> list[Path] | None:
    """The pages of a folder in which nothing changed since :func:`remember`; None of any other."""
    try:
        known = json.loads(_place(folder).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or known.get("state") != _state(folder):
        return None
    return [folder / name for name in known["pages"]]


def remember(folder: Path, pages: Sequence[Path]) -> None:
    """Note that a folder's pages are as they should be."""
    names = [str(page.relative_to(folder)) for page in pages]
    known = {"state": _state(folder), "pages": names}
    with suppress(StoreError):  # a cache that cannot be written costs a drawing the next time
        write_if_changed(_place(folder), json.dumps(known).encode())


def _place(folder: Path) -> Path:
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
    return home() / "pages" / f"{name[:24]}.json"


def _state(folder: Path) -> str:
    files = (path for pattern in STORED for path in folder.glob(pattern) if path.is_file())
    above = is_generated(folder.parent / "README.md")
    return _hashed([package_files(), str(above), *_contents(folder, files)])


@cache
def package_files() -> str:
    """Hash of the package's own files, whose names and contents pages follow."""
    files = (path for path in PACKAGE.rglob("*") if path.suffix in SOURCES)
    return _hashed(_contents(PACKAGE, files))


def _contents(folder: Path, files: Iterable[Path]) -> Iterator[str]:
    for path in sorted(files):
        yield f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _hashed(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
