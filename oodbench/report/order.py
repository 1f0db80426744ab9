"""In which order pages show sets, models and pairs: what the paper has first, in its suite's order; then what is judged most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

from oodbench.report.results import Results, Subject, subject_of
from oodbench.report.tables import bare_name, distinct, set_name
from oodbench.store import Row
from oodbench.suite import load_suite, named

PAPER = "paper"
"""The suite whose order is that of the paper's pairs."""


@cache
def _paper() -> tuple[dict[str, int], dict[str, int]]:
    """Places of sets and of models in the paper's suite: of each in-dist set in turn with its OOD sets."""
    suite = load_suite(PAPER)
    references = [named(entry) for pair in suite.pairs for entry in (pair.in_dist, *pair.ood)]
    in_dists = [named(pair.in_dist)[1] for pair in suite.pairs]
    sets = distinct([*in_dists, *(reference for _, reference in references)])
    models = [shown or reference for shown, reference in map(named, suite.models)]
    return _places(sets), _places(models)


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


def _place(places: dict[str, int], name: str) -> int:
    return places.get(name, len(places))


def in_dist_names(results: Results) -> list[str]:
    """The names of in-dist sets: the paper's first, then those of most rows."""
    rows = Counter(row["in_dist_name"] for row in results.tried)
    sets, _ = _paper()
    return sorted(rows, key=lambda name: (_place(sets, name), -rows[name], name))


def subjects_in_order(results: Results) -> list[Subject]:
    """Subjects by in-dist set, then model."""
    names = in_dist_names(results)
    of = {subject_of(row): row["in_dist_name"] for row in results.tried}
    return sorted(of, key=lambda one: (names.index(of[one]), *_model_key(one)))


def _model_key(subject: Subject) -> tuple[int, str, str, int]:
    _, models = _paper()
    return _place(models, subject.model), *subject


def oods_in_order(rows: Iterable[Row]) -> list[str]:
    """OOD sets: images that exist before synthetic ones, the paper's first, then near before far."""
    found = {row["ood"]: row for row in rows}
    return sorted(found, key=lambda name: _ood_key(found[name]))


def _ood_key(row: Row) -> tuple[bool, int, str, str]:
    sets, _ = _paper()
    place = min(_place(sets, set_name(row["ood"])), _place(sets, bare_name(row["ood"])))
    nearness = row.get("nearness") or ""
    return row["synthetic"], place, {"near": "0", "far": "1"}.get(nearness, "2"), row["ood"]


def pair_key(row: Row) -> tuple[int, int, str, str, str]:
    """Of a comparison: in-dist set, OOD set and model in the order of the paper's suite."""
    sets, models = _paper()
    ood = min(_place(sets, set_name(row["ood"])), _place(sets, bare_name(row["ood"])))
    place = min(_place(sets, set_name(row["in_dist"])), _place(sets, bare_name(row["in_dist"])))
    return (
        place,
        _place(models, row["model"]),
        row["in_dist"],
        row["model"],
        f"{ood:04} {row['ood']}",
    )
