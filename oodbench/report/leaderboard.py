"""Pages and figures of a results folder, generated from what it stores, never edited by hand."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from oodbench.errors import StoreError
from oodbench.foreign import parsing
from oodbench.paths import write_if_changed
from oodbench.report.board import BOARD, board_page
from oodbench.report.comparison_page import comparison_page
from oodbench.report.details import details_page
from oodbench.report.drawn import draw_stale, orphans, stale
from oodbench.report.gallery import gallery
from oodbench.report.grids import grid_faults
from oodbench.report.illustrations import Illustration
from oodbench.report.links import FIXED, Links, is_generated, links_of, refuse_in_place_of
from oodbench.report.matrix import matrix_page
from oodbench.report.memory import remember, remembered
from oodbench.report.older import COMPARISONS, COSTS, older_sentence
from oodbench.report.overall import Standings
from oodbench.report.overview import overview
from oodbench.report.page import html_page, markdown_page
from oodbench.report.reproduction import reproduction, reproduction_page
from oodbench.report.results import FILES, ROWS, Results, read_results
from oodbench.report.section import Section
from oodbench.report.sections import make_sections
from oodbench.report.set_page import set_page
from oodbench.report.tables import quoted
from oodbench.store import read_lines

INTRO = (
    "Deep generative models often give higher likelihood to images unlike those they were trained on "
    "(Nalisnick et al., ICLR 2019, arXiv:1810.09136). This report tells that story with the models and "
    "images of one run. The scorers that answer it are ranked in the [leaderboard](README.md)."
)
OURS = (
    *FILES,
    COMPARISONS,
    COSTS,
    "figures",
    "grids",
    "scores",
    "scores.json",
    "failures.log",
    "history.jsonl",
    "manifests.json",
)
"""What a run may have left in a folder before its rows."""


def write_report(folder: Path) -> list[Path]:
    """Write the pages of a results folder, draw figures that are missing or stale, and return the pages.

    Files that would not change are left alone; generated pages of sets that have no rows any more are
    removed. Where all is as this version of oodbench left it, nothing is made again.

    Raises
    ------
    StoreError : rows that cannot be shown, or a file of the user's in the place of a page
    """
    known = remembered(folder)
    if known is not None:
        return known
    results = read_results(folder)
    with _showing(folder):
        return _written(folder, results)


@contextmanager
def _showing(folder: Path) -> Iterator[None]:
    """Rows that are sealed and yet no rows of ours fail wherever a page looks into them: in one sentence."""
    with parsing(
        folder, StoreError, "the results of a run", "run the suite again into a new --out"
    ):
        yield


def _written(folder: Path, results: Results) -> list[Path]:
    refuse_in_place_of(folder / name for name in _page_names(results))
    illustrations = gallery(results)
    draw_stale(folder, illustrations)
    pages = _pages(results, illustrations)
    for path, content in pages.items():
        write_if_changed(path, content.encode())
    for path in _orphan_pages(folder, pages):
        path.unlink()
    remember(folder, list(pages))
    return list(pages)


def write_overview(folder: Path) -> None:
    """Write the front page alone, from the rows that there are: while a run goes on it grows with them."""
    if not read_lines(folder / ROWS)[0]:  # the first row of a slow run is yet to come
        return
    results = read_results(folder)
    if results.tried:
        with _showing(folder):  # no figure is drawn yet
            page = overview(results, Standings(results), links_of(results), [])
        write_if_changed(folder / "README.md", page.encode())


def check_report(folder: Path) -> list[str]:
    """Sentences on what differs between what is on disk and what the rows give; none where all is in
    order."""
    results = read_results(folder)
    with _showing(folder):
        return _differences(folder, results)


def _differences(folder: Path, results: Results) -> list[str]:
    illustrations = gallery(results)
    pages, remedy = _pages(results, illustrations), f"`oodbench report {folder}`"
    faults = grid_faults(folder, results.curves)
    for path, content in pages.items():
        if not path.exists():
            faults.append(f"{path} is missing; {remedy} writes it")
        elif path.read_text("utf-8", errors="replace") != content:
            faults.append(f"{path} differs from what its rows give; {remedy} rewrites it")
    for one in stale(folder, illustrations):
        faults.append(f"{folder / one.file} is not drawn from its rows; {remedy} draws it")
    gone = [*_orphan_pages(folder, pages), *orphans(folder, illustrations)]
    return faults + [f"{path} has no rows any more; {remedy} removes it" for path in gone]


def foreign_files(folder: Path) -> list[Path]:
    """Files of a results folder that oodbench did not write and would have to overwrite, or stand among.

    In a folder without rows all files, hidden ones and those of an interrupted run aside; in a folder
    with rows those in the place of a page that have no mark of a generated one.
    """
    if not folder.is_dir():
        return []
    if not (folder / ROWS).exists():
        return sorted(
            path
            for path in folder.iterdir()
            if not path.name.startswith(".")
            and path.name not in OURS
            and not path.name.endswith(".damaged.jsonl")
        )
    rows, _ = read_lines(folder / ROWS)  # damaged lines are the run's to make again
    with _showing(folder):
        return _foreign(folder, _page_names(Results(folder, rows)))


def refuse_foreign(folder: Path) -> None:
    """:class:`StoreError` for a results folder with files that oodbench did not write, before any work."""
    foreign = foreign_files(folder)
    if foreign:
        some = ", ".join(path.name for path in foreign[:3]) + ", …" * (len(foreign) > 3)
        raise StoreError(
            f"{folder} holds files that oodbench did not write ({some}); name an empty or a new folder with --out"
        )


def _foreign(folder: Path, names: Collection[str]) -> list[Path]:
    paths = [folder / name for name in names]
    return [path for path in paths if path.exists() and not is_generated(path)]


def _orphan_pages(folder: Path, pages: Collection[Path]) -> list[Path]:
    """Generated pages that the rows no longer give; pages written by hand are not ours to judge."""
    found = [*sorted(folder.glob("*.md")), *folder.glob("report.html"), *folder.glob(BOARD)]
    return [path for path in found if path not in pages and is_generated(path)]


def _page_names(results: Results) -> list[str]:
    fixed = [f"{name}.md" for name in FIXED]
    links = links_of(results)
    return [*fixed, "report.html", BOARD, *links.sets.values(), *map(links.details, links.sets)]


def page_links(results: Results) -> Links:
    """The links of a folder's pages, with those that not every folder has."""
    others = {"sort and filter": BOARD}
    others |= {"scorers compared": "comparison.md"} if results.comparisons else {}
    others |= {"published numbers": "reproduction.md"} if reproduction(results) else {}
    others |= {"the paper's story": "report.md"} if make_sections(results, []) else {}
    return links_of(results, others)


def _pages(results: Results, illustrations: list[Illustration]) -> dict[Path, str]:
    story, published = _report_pages(results, illustrations), reproduction(results)
    links, own = page_links(results), Standings(results)
    pages = {"README.md": overview(results, own, links, illustrations)}
    pages["matrix.md"] = matrix_page(results, links)
    pages[BOARD] = board_page(results)
    if results.comparisons:
        figure = next((one.file for one in illustrations if one.kind == "ranks"), None)
        pages["comparison.md"] = comparison_page(results, figure, links)
    if published:
        pages["reproduction.md"] = reproduction_page(results, published, links)
    for name, file in links.sets.items():
        pages[file] = set_page(results, own, name, links, illustrations)
        pages[links.details(name)] = details_page(results, name, links)
    return {results.folder / name: content for name, content in (pages | story).items()}


def _report_pages(results: Results, illustrations: list[Illustration]) -> dict[str, str]:
    """The report as HTML and markdown where there are analysis rows."""
    sections = make_sections(results, illustrations)
    if not sections:
        return {}
    published = reproduction(results)
    return _both_forms(results, [*sections, *([published] if published else [])])


def _both_forms(results: Results, sections: list[Section]) -> dict[str, str]:
    title = f"Report of the suite {quoted(results.suite)}"
    shown = [*results.tried, *results.analysis]
    intro = [*(line.strip() for line in older_sentence(shown)), INTRO]
    return {
        "report.md": markdown_page(title, intro, sections),
        "report.html": html_page(title.replace("`", ""), intro, sections, results.folder),
    }
