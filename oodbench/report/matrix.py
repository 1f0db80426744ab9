"""The page of both directions: each scorer's AUROC of every model on every OOD set."""

from __future__ import annotations

from collections.abc import Sequence

from oodbench.report.links import Links, page_head
from oodbench.report.older import older_sentence
from oodbench.report.order import oods_in_order, subjects_in_order
from oodbench.report.results import Results, Subject, cells, subject_of
from oodbench.report.tables import (
    bare_name,
    chance_mark,
    distinct,
    seen_mark,
    short,
    table,
    text,
    whole_set_name,
)
from oodbench.store import STANDINGS, Row, is_ranked, standing
from oodbench.trials.counted import is_counted

MATRIX = """\
AUROC of each scorer: a line for each model and the set that it was trained on, a column for
each OOD set; ▼ worse than chance. Parts of a set count as the set. Below, pairs of sets with both
directions, by the best model of each: a scorer that wins one direction by losing the other has a low
*lowest*.
"""
SEEN = """\
§ A model that the scorer reads was trained on the OOD set, another split of it or a set that shares its images:
the number is shown, and counts nowhere.
"""


def matrix_page(results: Results, links: Links | None = None) -> str:
    """For each scorer the AUROC of every model (in-dist) on every OOD set, and what both directions of a
    pair come to."""
    singles = [row for row in results.tried if row["status"] == "ok" and row["group_size"] == 1]
    sound = [row for row in singles if is_counted(row)]
    title = "In-dist × OOD"
    parts = page_head(title, links, "matrix.md") if links else [f"# {title}\n"]
    parts += [*older_sentence(sound), MATRIX]
    parts += [] if all(map(is_ranked, sound)) else [SEEN]
    for scorer in _by_mean(sound):
        own = [row for row in sound if row["scorer"] == scorer]
        parts += [f"## {text(scorer)}\n", table(*_matrix(results, own))]
        directions = _directions(own)
        parts += [directions] if directions else []
    return "\n".join(parts)


def _by_mean(rows: list[Row]) -> list[str]:
    """Scorers by standing, then the mean of what they have that is ranked."""
    found: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        known = found.setdefault((STANDINGS.index(standing(row)), row["scorer"]), [])
        known += [row["auroc"]] if is_ranked(row) else []
    ordered = sorted(found, key=lambda one: (one[0], -_mean(found[one]), one[1]))
    return [name for _, name in ordered]


def _mean(aurocs: Sequence[float]) -> float:
    return sum(aurocs) / len(aurocs) if aurocs else 0.0


def _matrix(results: Results, rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    columns = _columns(rows)
    named = [{**row, "column": columns[row["ood"]]} for row in rows]
    found = cells(named, "model", "in_dist", "seed", "column")
    heads = distinct(columns[ood] for ood in oods_in_order(rows))
    known = {subject_of(row) for row in rows}
    subjects = [one for one in subjects_in_order(results) if one in known]
    lines = []
    for subject in subjects:
        in_dist = bare_name(subject.in_dist)
        line = [_cell(found.get((*subject, head)), head == in_dist) for head in heads]
        lines.append([text(in_dist), text(results.name_of(subject)), *line])
    return ["in-dist", "model", *map(text, heads)], lines


def _columns(rows: list[Row]) -> dict[str, str]:
    """A column for each OOD set: parts of a set count as the set, unless one line has two of them."""
    met: dict[tuple[Subject, str], set[str]] = {}
    for row in rows:
        met.setdefault((subject_of(row), whole_set_name(row["ood"])), set()).add(row["ood"])
    shared = {name for (_, name), sets in met.items() if len(sets) > 1}
    sets = {row["ood"] for row in rows}
    return {one: one if whole_set_name(one) in shared else whole_set_name(one) for one in sets}


def _cell(row: Row | None, diagonal: bool) -> str:
    if row is None:
        return "·" if diagonal else ""
    return f"{short(row['auroc'])}{chance_mark(row['auroc'])}{seen_mark(row)}"


def _directions(rows: list[Row]) -> str:
    """Pairs of sets with both directions, by the best model of each."""
    best: dict[tuple[str, str], float] = {}
    for row in filter(is_ranked, rows):
        pair = bare_name(row["in_dist"]), whole_set_name(row["ood"])
        best[pair] = max(row["auroc"], best.get(pair, 0.0))
    both = sorted((a, b) for a, b in best if a < b and (b, a) in best)
    return "".join(f"- {_both(a, b, best)}\n" for a, b in both)


def _both(a: str, b: str, best: dict[tuple[str, str], float]) -> str:
    there, back = best[a, b], best[b, a]
    one, other = text(a), text(b)
    lowest = min(there, back)
    return f"{one} → {other} {there:.3f}, {other} → {one} {back:.3f}: lowest {lowest:.3f}"
