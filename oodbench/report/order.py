"""In which order pages show sets, models and pairs: what the paper has first, in its suite's order; then what is judged most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from oodbench.report.results import Results, Subject, subject_of
from oodbench.report.tables import bare_name, set_name, short_name
from oodbench.store import Row
from oodbench.suite import load_suite, named

PAPER = "paper"
"""The suite whose order is that of the paper's pairs."""


class _Paper(NamedTuple):
    """Places in the paper's suite."""

    sets: dict[str, int]
    models: dict[str, int]
    oods: dict[str, dict[str, int]]
    """In-dist set → OOD set → its place."""


@cache
def _paper() -> _Paper:
    suite = load_suite(PAPER)
    oods = {
        named(pair.in_dist)[1]: _places(named(entry)[1] for entry in pair.ood)
        for pair in suite.pairs
    }
    models = [shown or reference for shown, reference in map(named, suite.models)]
    return _Paper(_places(oods), _places(models), oods)


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _place(places: dict[str, int], name: str) -> int:
    return places.get(name, len(places))


def in_dist_names(results: Results) -> list[str]:
    """The names of in-dist sets: the paper's first, then those of most rows."""
    rows = Counter(row["in_dist_name"] for row in results.tried)
    sets = _paper().sets
    return sorted(rows, key=lambda name: (_place(sets, name), -rows[name], name))


def subjects_in_order(results: Results) -> list[Subject]:
    """Subjects by in-dist set, then model."""
    names = in_dist_names(results)
    of = {subject_of(row): row["in_dist_name"] for row in results.tried}
    return sorted(of, key=lambda one: (names.index(of[one]), *_model_key(one)))


def _model_key(subject: Subject) -> tuple[int, str, str, int]:
    return _place(_paper().models, subject.model), *subject


def oods_in_order(rows: Iterable[Row]) -> list[str]:
    """OOD sets: images that exist before synthetic ones, the paper's first, then near before far."""
    found = {row["ood"]: row for row in rows}
    return sorted(found, key=lambda name: _ood_key(found[name]))


def _ood_key(row: Row) -> tuple[bool, int, str, str]:
    nearness = row.get("nearness") or ""
    rank = {"near": "0", "far": "1"}.get(nearness, "2")
    return row["synthetic"], _ood_place(row), rank, row["ood"]


def _ood_place(row: Row) -> int:
    """The place of an OOD set among those that the paper's suite has for the same in-dist set."""
    oods = _paper().oods.get(short_name(row["in_dist"]), {})
    return min(_place(oods, name) for name in (set_name(row["ood"]), bare_name(row["ood"])))


def pair_key(row: Row) -> tuple[int, str, int, str, int, str]:
    """Of a comparison: in-dist set, model and OOD set in the order of the paper's suite."""
    paper, in_dist = _paper(), row["in_dist"]
    place, model = _place(paper.sets, short_name(in_dist)), row["model"]
    return place, in_dist, _place(paper.models, model), model, _ood_place(row), row["ood"]
