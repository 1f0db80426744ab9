"""The table of one in-dist set over all its models: a row a scorer, a column a pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oodbench.report.comparison import LIKELIHOOD
from oodbench.report.order import oods_in_order, subjects_in_order
from oodbench.report.overall import Standings
from oodbench.report.results import Subject, subject_of
from oodbench.report.tables import (
    Notes,
    bar_of,
    bare_name,
    bare_table,
    metric_cell,
    set_name,
    short,
    short_names,
    shown_scorer,
    text,
)
from oodbench.store import STANDINGS, Row, Standing, is_ranked, standing
from oodbench.trials.counted import is_counted

WIDE = 6
"""Columns up to which one table holds all pairs of an in-dist set; a wider one is made a table for each OOD set."""
FIRST = 5
"""Scorers with a model that a leaderboard's front page shows of each set, beside likelihood and the bar."""
Trial = tuple[Subject, str]


class Column(NamedTuple):
    """A pair under one model."""

    subject: Subject
    ood: str
    head: str


class SetTable:
    """The rows of one in-dist set on single real images, as tables."""

    def __init__(self, standings: Standings, in_dist: str, notes: Notes):
        results = standings.results
        own = [row for row in results.tried if row["in_dist_name"] == in_dist and is_counted(row)]
        self._notes, self._results, self.rows = notes, results, own
        self._cells = {(subject_of(row), row["ood"], row["scorer"]): row for row in own}
        known = {subject_of(row) for row in own}
        self.subjects = [one for one in subjects_in_order(results) if one in known]
        self._ties = {
            (subject_of(one.row), one.row["ood"]): {one.lead.best, *one.lead.as_good}
            for one in standings.contests_of(in_dist)
        }

    def tables(self, short_form: bool = False) -> list[str]:
        """All pairs in one table, or a table for each OOD set where that would be too wide; ``short_form`` shows the first few
        scorers, likelihood and the bar."""
        oods = oods_in_order(self.rows)
        names = short_names(oods, set_name)
        trials = [(subject, ood) for ood in oods for subject in self.subjects]
        known = [one for one in trials if any(cell[:2] == one for cell in self._cells)]
        if len(known) <= WIDE:
            return [self._table([self._column(*one, names) for one in known], short_form)]
        parts = []
        for ood in oods:
            columns = [Column(one, ood, self._model(one)) for one, other in known if other == ood]
            parts += [f"**→ {text(names[ood])}**\n", self._table(columns, short_form)]
        return parts

    def _column(self, subject: Subject, ood: str, names: dict[str, str]) -> Column:
        model = self._model(subject)
        head = f"→ {text(names[ood])}"
        return Column(subject, ood, head if len(self.subjects) == 1 else f"{model} {head}")

    def _model(self, subject: Subject) -> str:
        """A model without the name of the set that it is trained on."""
        name = self._results.name_of(subject)
        return text(name.removesuffix(f"-{bare_name(subject.in_dist)}"))

    def _table(self, columns: Sequence[Column], short_form: bool) -> str:
        scorers = self._scorers(columns)
        shown = _first(scorers) if short_form else scorers
        lines = [self._line(kind, name, columns) for kind, name in shown]
        lines += [self._bars(columns)] if short_form else []
        return bare_table(["scorer", *(one.head for one in columns)], lines)

    def _scorers(self, columns: Sequence[Column]) -> list[tuple[Standing, str]]:
        """Those with a result under every model first, each by their mean."""
        found: dict[tuple[Standing, str], list[float]] = {}
        for column in columns:
            for row in self._rows_of(column):
                known = found.setdefault((standing(row), row["scorer"]), [])
                known += [row["auroc"]] if row["status"] == "ok" and is_ranked(row) else []
        return sorted(found, key=lambda one: _scorer_key(one, found[one], len(columns)))

    def _rows_of(self, column: Column) -> list[Row]:
        trial = column.subject, column.ood
        return [row for cell, row in self._cells.items() if cell[:2] == trial]

    def _line(self, kind: Standing, scorer: str, columns: Iterable[Column]) -> list[str]:
        return [shown_scorer(scorer, kind), *(self._cell(one, scorer) for one in columns)]

    def _cell(self, column: Column, scorer: str) -> str:
        trial = column.subject, column.ood
        row = self._cells.get((*trial, scorer))
        shown = metric_cell(row, "auroc", self._notes, bar_of(row, self._rows_of(column)))
        if row is None or scorer not in self._ties.get(trial, ()):
            return shown
        value = short(row["auroc"])
        return shown.replace(value, f"**{value}**", 1)

    def _bars(self, columns: Iterable[Column]) -> list[str]:
        """The best baseline of each column, with its name."""
        return ["*best baseline* (model-free)", *(self._bar(one) for one in columns)]

    def _bar(self, column: Column) -> str:
        own = [row for row in self._rows_of(column) if row["baseline"] and row["status"] == "ok"]
        best = max(own, key=lambda row: row["auroc"], default=None)
        return f"{short(best['auroc'])} <sub>{text(best['scorer'])}</sub>" if best else ""


def _scorer_key(
    one: tuple[Standing, str], known: Sequence[float], columns: int
) -> tuple[int, bool, float, str]:
    kind, name = one
    mean = sum(known) / len(known) if known else 0.0
    return STANDINGS.index(kind), len(known) < columns, -mean, name


def _first(scorers: Sequence[tuple[Standing, str]]) -> list[tuple[Standing, str]]:
    own = [one for one in scorers if one[0] == "scorer"]
    return own[:FIRST] + [one for one in own[FIRST:] if one[1] == LIKELIHOOD]
