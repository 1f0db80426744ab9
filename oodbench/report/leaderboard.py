"""Leaderboards in markdown: generated from ``rows.jsonl`` and ``costs.jsonl`` beside them, never edited by hand."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from oodbench.errors import StoreError
from oodbench.paths import write_if_changed
from oodbench.report.comparison import comparison_page, matrix_page
from oodbench.report.gallery import gallery
from oodbench.report.in_dist import in_dist_page
from oodbench.report.overview import overview
from oodbench.report.page import html_page, markdown_page
from oodbench.report.reproduction import reproduction, reproduction_page
from oodbench.report.story import story
from oodbench.report.tables import HEAD, distinct, slug
from oodbench.store import Row, read_rows

INTRO = (
    "Deep generative models often give higher likelihood to images unlike those they were trained on (Nalisnick et al., "
    "ICLR 2019, arXiv:1810.09136). This report tells that story with the models and images of one run. The scorers that "
    "answer it are ranked in the [leaderboard](README.md)."
)


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


def _story_pages(folder: Path, rows: list[Row]) -> dict[Path, str]:
    """The report as HTML and markdown where there are analysis rows, and the page of published numbers where any fit."""
    published = reproduction(rows)
    pages = {folder / "reproduction.md": reproduction_page(published)} if published else {}
    sections = story(rows, read_rows(folder / "analysis.jsonl"))
    if sections:
        sections += [published] if published else []
        title, intro = f"Report of the suite `{rows[0]['suite']}`", [INTRO]
        pages[folder / "report.md"] = markdown_page(title, intro, sections)
        pages[folder / "report.html"] = html_page(title.replace("`", ""), intro, sections, folder)
    return pages


def _stale(folder: Path, pages: Collection[Path]) -> list[Path]:
    """Generated pages that the rows no longer give; pages written by hand are not ours to judge."""
    found = [*sorted(folder.glob("*.md")), *folder.glob("report.html")]
    return [p for p in found if p not in pages and HEAD in p.read_text("utf-8")]


def _pages(folder: Path) -> dict[Path, str]:
    rows = read_rows(folder / "rows.jsonl")
    if not rows:
        raise StoreError(f"{folder / 'rows.jsonl'} has no rows; run the suite first: `oodbench run --suite paper`")
    costs = {row["pass"]: row["ms_per_image"] for row in read_rows(folder / "costs.jsonl")}
    tried = [row for row in rows if row["status"] != "skipped"]
    pages = {folder / "README.md": overview(rows, costs), folder / "matrix.md": matrix_page(rows)}
    contests = sorted(read_rows(folder / "contests.jsonl"), key=lambda r: (r["in_dist"], r["model"], r["ood"]))
    if contests:
        figure = next((f"{one.stem}.png" for one in gallery(rows, [], contests) if one.kind == "ranks"), None)
        pages[folder / "comparison.md"] = comparison_page(contests, figure)
    pages |= _story_pages(folder, rows)
    for in_dist in distinct(row["in_dist_name"] for row in tried):
        own = [row for row in rows if row["in_dist_name"] == in_dist]
        pages[folder / f"{slug(in_dist)}.md"] = in_dist_page(in_dist, own, costs)
    return pages
