"""Leaderboards in markdown: generated from ``rows.jsonl`` and ``costs.jsonl`` beside them, never edited by hand."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from oodbench.errors import StoreError
from oodbench.paths import write_if_changed
from oodbench.report.in_dist import in_dist_page
from oodbench.report.overview import overview
from oodbench.report.tables import HEAD, distinct, slug
from oodbench.store import read_rows


def write_report(folder: Path) -> list[Path]:
    """Write the leaderboard of a results folder and return its pages.

    Files that would not change are left alone; generated pages of sets that have no rows any more are removed.
    """
    pages = _pages(folder)
    for path, text in pages.items():
        write_if_changed(path, text.encode())
    for path in _stale(folder, pages):
        path.unlink()
    return list(pages)


def check_report(folder: Path) -> list[str]:
    """Sentences on what differs between the pages on disk and what the rows give; none where all is in order."""
    pages, faults = _pages(folder), []
    for path, text in pages.items():
        if not path.exists():
            faults.append(f"{path} is missing; `oodbench report {folder}` writes it")
        elif path.read_text("utf-8") != text:
            faults.append(f"{path} differs from what its rows give; `oodbench report {folder}` rewrites it")
    return faults + [
        f"{path} has no rows any more; `oodbench report {folder}` removes it" for path in _stale(folder, pages)
    ]


def _stale(folder: Path, pages: Collection[Path]) -> list[Path]:
    """Generated pages that the rows no longer give; pages written by hand are not ours to judge."""
    return [p for p in sorted(folder.glob("*.md")) if p not in pages and p.read_text("utf-8").startswith(HEAD)]


def _pages(folder: Path) -> dict[Path, str]:
    rows = read_rows(folder / "rows.jsonl")
    if not rows:
        raise StoreError(f"{folder / 'rows.jsonl'} has no rows; run the suite first: `oodbench run --suite paper`")
    costs = {row["pass"]: row["ms_per_image"] for row in read_rows(folder / "costs.jsonl")}
    tried = [row for row in rows if row["status"] != "skipped"]
    pages = {folder / "README.md": overview(rows, costs)}
    for in_dist in distinct(row["in_dist_name"] for row in tried):
        own = [row for row in rows if row["in_dist_name"] == in_dist]
        pages[folder / f"{slug(in_dist)}.md"] = in_dist_page(in_dist, own, costs)
    return pages
