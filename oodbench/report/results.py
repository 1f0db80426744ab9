"""What a results folder stores, read once: rows, analysis rows, comparisons, and the curves that figures
draw."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from oodbench.errors import StoreError
from oodbench.foreign import inside, parsing, printable
from oodbench.report.older import COMPARISONS, COSTS, brought_up, renamed
from oodbench.store import Row, read_rows
from oodbench.trials.results import NAMES

ROWS = "rows.jsonl"
AGAIN = "delete the line and run the suite again"
FILES = (ROWS, "analysis.jsonl", "comparisons.jsonl", "curves.jsonl")
CELLS = {f"{table}.jsonl": fields for table, fields in NAMES.items()}
"""The fields of each file that name a cell: no two rows may share them all."""
NAMED = ("schema", "key", "suite", "model", "in_dist", "in_dist_name", "ood", "scorer")
TRIED = (*NAMED, "baseline", "group_size", "seed", "passes", "tunes_on", "likelihood", "synthetic")
NEEDED = {
    "ok": (*TRIED, "auroc", "n_in", "n_ood", "base_rate"),
    "failed": (*TRIED, "reason"),
    "skipped": (*NAMED, "reason"),
}
"""The fields without which a row of each status cannot be shown."""


NUMBERS = ("auroc", "aupr_in", "aupr_ood", "fpr80_in", "fpr80_ood", "fpr95_in", "fpr95_ood")
"""Fields of a row that are numbers from 0 to 1, with their ends."""


class Subject(NamedTuple):
    """What rows must share to be ranked together: a model, the in-dist set as it was measured, and the
    seed."""

    model: str
    in_dist: str
    seed: int


@dataclass(frozen=True)
class Results:
    """The stored rows of a folder, brought to today's names."""

    folder: Path
    rows: list[Row]
    analysis: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)
    curves: list[Row] = field(default_factory=list)

    @property
    def suite(self) -> str:
        return str(self.rows[0]["suite"])

    @cached_property
    def tried(self) -> list[Row]:
        """The rows of trials that were made, sound or failed."""
        return [row for row in self.rows if row["status"] != "skipped"]

    @cached_property
    def skips(self) -> list[Row]:
        return [row for row in self.rows if row["status"] == "skipped"]

    @cached_property
    def explained(self) -> list[Row]:
        """The sound analysis rows."""
        sound = [row for row in self.analysis if row["status"] == "ok"]
        return sorted(sound, key=lambda row: (row["in_dist"], row["model"], row["seed"]))

    def subjects(self) -> list[Subject]:
        """Every subject that was tried, by model."""
        return sorted({subject_of(row) for row in self.tried})

    def of_subject(self, subject: Subject) -> list[Row]:
        """The rows of trials of one subject."""
        return [row for row in self.tried if subject_of(row) == subject]

    def curves_of(self, kind: str, subject: Subject) -> list[Row]:
        """The curves of one kind of one subject."""
        return [row for row in self.curves if row["kind"] == kind and subject_of(row) == subject]

    def label(self, row: Row) -> str:
        """The model of a row, with what tells it apart here: its in-dist set where it has several, the
        seed likewise."""
        return self.name_of(Subject(row["model"], row["in_dist"], row.get("seed", 0)))

    def name_of(self, subject: Subject) -> str:
        """A subject's model, told apart as :meth:`label` does."""
        several = len(self._in_dists.get(subject.model, ())) > 1
        where = f" on {subject.in_dist}" if several else ""
        return f"{subject.model}{where}{self.seed_text(subject.seed)}"

    def seed_text(self, seed: int) -> str:
        """``, seed 1`` where the folder has more than one seed; nothing elsewhere."""
        return f", seed {seed}" if len(self._seeds) > 1 else ""

    @cached_property
    def _in_dists(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for row in [*self.tried, *self.analysis]:
            found.setdefault(row["model"], set()).add(row["in_dist"])
        return found

    @cached_property
    def _seeds(self) -> set[int]:
        return {row["seed"] for row in [*self.tried, *self.analysis]}


def subject_of(row: Row) -> Subject:
    """The subject that a row of a trial, of an analysis or of a curve belongs to."""
    return Subject(row.get("model", ""), row["in_dist"], row.get("seed", 0))


def read_results(folder: Path) -> Results:
    """Everything that a folder stores.

    Raises
    ------
    StoreError : no rows, a line that is no row or lacks a field, or two rows for one cell
    """
    with parsing(folder, StoreError, "results", AGAIN):
        return _read(folder)


def _read(folder: Path) -> Results:
    costs = {row["pass"]: row for row in read_rows(folder / COSTS)}
    found = {name: [brought_up(row, costs) for row in read_rows(folder / name)] for name in FILES}
    if not found[ROWS]:
        raise StoreError(
            f"{folder / ROWS} has no rows; run the suite first: `oodbench run --suite paper`"
        )
    found["comparisons.jsonl"] = read_comparisons(folder)
    for name, rows in found.items():
        for row in rows:
            _check_values(folder / name, row)
    for name in ("comparisons.jsonl", "curves.jsonl"):  # those that failed have nothing to show
        found[name] = [row for row in found[name] if row.get("status", "ok") == "ok"]
    for row in found[ROWS]:
        _demand_fields(folder / ROWS, row)
    found = renamed(found, ROWS)
    for name, rows in found.items():
        cells([row for row in rows if row.get("status") != "skipped"], *CELLS[name])
    return Results(folder, *found.values())


def read_comparisons(folder: Path) -> list[Row]:
    """The comparisons of scorers that a folder stores; those of an older file where no newer one has their name."""
    found = read_rows(folder / "comparisons.jsonl")
    measured = {_compared(row) for row in found}
    older = (row for row in read_rows(folder / COMPARISONS) if _compared(row) not in measured)
    return [*older, *found]


def _compared(row: Row) -> tuple[Hashable, ...]:
    """What a comparison is of; rows of schema 2 do not say their seed, which was 0."""
    return tuple(row.get(field, 0) for field in NAMES["comparisons"])


def _check_values(path: Path, row: Row) -> None:
    """:class:`StoreError` for a file elsewhere, or a rate that is none."""
    if "file" in row:
        inside(path.parent, row["file"], StoreError, path)
    if path.name == ROWS:
        _check_numbers(path, row)


def _check_numbers(path: Path, row: Row) -> None:
    for name in (f"{metric}{end}" for metric in NUMBERS for end in ("", "_low", "_high")):
        value = row.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value <= 1):
            raise StoreError(_of_another_kind(path, row, name))


def _of_another_kind(path: Path, row: Row, field: str) -> str:
    found = printable(repr(row[field])[:40])
    return f"{path}: the row {printable(row.get('key', ''))} has {field} {found}, which no run writes; {AGAIN}"


def _demand_fields(path: Path, row: Row) -> None:
    status = row.get("status")
    if status not in NEEDED:
        raise StoreError(
            f"{path}: the row {row.get('key', '')} has the status {status!r}; known: {', '.join(NEEDED)}. "
            "Delete the line and run the suite again"
        )
    lacking = [name for name in NEEDED[status] if name not in row]
    if lacking:
        raise StoreError(
            f"{path}: the row {row.get('key', '')} lacks {', '.join(lacking)}; delete the line and run "
            "the suite again"
        )


def cells(rows: Iterable[Row], *fields: str) -> dict[tuple[Hashable, ...], Row]:
    """Rows by the values of some fields: the index of a table's cells.

    Raises
    ------
    StoreError : two rows for one cell, of which only one could be shown
    """
    found: dict[tuple[Hashable, ...], Row] = {}
    for row in rows:
        cell = tuple(row.get(name) for name in fields)
        if cell in found:
            named = ", ".join(str(value) for value in cell if value is not None)
            keys = f"{found[cell].get('key')} and {row.get('key')}"
            raise StoreError(
                f"two rows are for one cell ({named}): {keys}; delete the line of the one that is not meant"
            )
        found[cell] = row
    return found
