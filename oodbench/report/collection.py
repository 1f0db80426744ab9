"""The page over all suites of a folder: the finding, one table over all in-dist sets, and links to everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oodbench.paths import write_if_changed
from oodbench.report.headline import headline_figures
from oodbench.report.leaderboard import check_report, page_links, write_report
from oodbench.report.links import READING, refuse_in_place_of
from oodbench.report.overall import Standings, overall
from oodbench.report.overview import answers, headline
from oodbench.report.results import ROWS, Results, read_results
from oodbench.report.tables import HEAD, distinct, folded, quoted, text
from oodbench.store import Row

INTRO = """\
One folder a suite, with its stored rows, the pages that `oodbench report` makes of them, and figures. Each row names its images
and carries the hashes of all that went in; a check fails where a page differs from its rows. Your own runs go to `runs/<suite>/`.
"""


def is_collection(folder: Path) -> bool:
    """Whether a folder holds results folders and no rows of its own."""
    return not (folder / ROWS).exists() and bool(_folders(folder))


def _folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{ROWS}"))


def write_collection(folder: Path) -> list[Path]:
    """Write the page over all suites, then those of each suite, which link to it; returns the pages.

    Raises
    ------
    StoreError : rows that cannot be shown, or a file of the user's in the place of a page
    """
    page = folder / "README.md"
    refuse_in_place_of([page])
    write_if_changed(page, collection_page(folder).encode())
    return [page, *(path for one in _folders(folder) for path in write_report(one))]


def check_collection(folder: Path) -> list[str]:
    """Sentences on what differs between what is on disk and what the rows give, of all suites."""
    page = folder / "README.md"
    faults = []
    if not page.exists() or page.read_text("utf-8", errors="replace") != collection_page(folder):
        faults = [
            f"{page} differs from what the rows of its suites give; `oodbench report {folder}` rewrites it"
        ]
    return faults + [fault for one in _folders(folder) for fault in check_report(one)]


def collection_page(folder: Path) -> str:
    """The suite of most images first: what it says, its figure and its table; then the other suites; then links."""
    known = sorted(map(read_results, _folders(folder)), key=_fullest_first)
    reading = folder.parent / READING
    ways = [f"[{results.suite}]({results.folder.name}/README.md)" for results in known]
    ways += [f"[how to read](../{READING.as_posix()})"] if reading.is_file() else []
    parts = [HEAD, "# Leaderboards\n", " · ".join(ways) + "\n"]
    first, *others = known
    own = Standings(first)
    parts += [f"{line}\n" for line in answers(own)]
    parts += [_in_folder(line, first) for line in headline(headline_figures(first))]
    parts += [f"## Over all in-dist sets: {quoted(first.suite)}\n", _about(first), overall(own)]
    parts += [_other(results) for results in others]
    parts += ["## Everything\n", *map(_links, known), INTRO]
    return "\n".join(parts)


def _fullest_first(results: Results) -> tuple[int, str]:
    return -max((row["n_in"] for row in _sound(results)), default=0), results.suite


def _sound(results: Results) -> list[Row]:
    return [row for row in results.tried if row["status"] == "ok" and row["group_size"] == 1]


def _in_folder(line: str, results: Results) -> str:
    return line.replace("](figures/", f"]({results.folder.name}/figures/")


def _about(results: Results) -> str:
    """How many scorers, models and images a suite has."""
    rows = [row for row in _sound(results) if not row["synthetic"]]
    scorers, models = (len(distinct(row[field] for row in rows)) for field in ("scorer", "model"))
    sizes = sorted({row[field] for row in rows for field in ("n_in", "n_ood")})
    span = " to ".join(f"{n:,}" for n in dict.fromkeys((sizes[0], sizes[-1]))) if sizes else "0"
    return f"{scorers} scorers, {models} models, on {span} images of each set.\n"


def _other(results: Results) -> str:
    own = Standings(results)
    said = [f"{line}\n" for line in answers(own)]
    table = folded("The table over all in-dist sets", overall(own))
    return "\n".join([f"## {quoted(results.suite)}\n", _about(results), *said, table])


def _links(results: Results) -> str:
    """A bullet with all pages of a suite."""
    folder = results.folder.name
    ways = page_links(results).ways()
    shown = [f"[{name}]({folder}/{file})" for name, file in ways.items()]
    return f"- {text(results.suite)}: {_about(results).strip()} {' · '.join(shown)}\n"


def write_pages(folder: Path) -> list[Path]:
    """The pages of a results folder, or of all those in a folder."""
    return write_collection(folder) if is_collection(folder) else write_report(folder)


def check_pages(folder: Path) -> list[str]:
    """As :func:`write_pages`, changing nothing: sentences on what differs."""
    return check_collection(folder) if is_collection(folder) else check_report(folder)


def results_folders(folder: Path) -> Sequence[Path]:
    """A results folder itself, or all those in a folder."""
    return _folders(folder) if is_collection(folder) else [folder]
