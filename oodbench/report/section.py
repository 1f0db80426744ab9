"""A section of the report as a value, and what sections are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from oodbench.report.illustrations import Illustration
from oodbench.report.results import Results, cells
from oodbench.report.tables import auroc_text
from oodbench.store import Row

OUTLIERS = 0.05
"""Share of a mean above which its standard error says that a few images make it."""
Table = tuple[list[str], list[list[str]]]
Pair = tuple[Row, Row]
"""The likelihood rows of the in-dist test set and of an OOD set."""


@dataclass
class Section:
    """A heading, what is to be seen, and what shows it; texts and cells are inline markdown."""

    title: str
    text: list[str]
    tables: list[Table] = field(default_factory=list)
    figures: list[Illustration] = field(default_factory=list)


@dataclass(frozen=True)
class Analysis:
    """The sound analysis rows of a folder, with its trials and its figures."""

    results: Results
    illustrations: list[Illustration] = field(default_factory=list)

    def figures(self, *kinds: str) -> list[Illustration]:
        """The figures of these kinds, kind by kind."""
        return [one for kind in kinds for one in self.illustrations if one.kind == kind]

    def of_kind(self, kind: str) -> list[Row]:
        """The rows of one kind, by in-dist set and model."""
        return [row for row in self.results.explained if row["kind"] == kind]

    def likelihood(self, like: Row, role: str, images: str) -> Row | None:
        """The likelihood row of an image set in a role, under the model that another row is of."""
        return self._likelihoods.get((*_subject(like), role, images))

    def train(self, like: Row) -> Row | None:
        """The likelihood row of the training images of the model that another row is of."""
        own = (row for row in self.of_kind("likelihood") if row["role"] == "train")
        return next((row for row in own if _subject(row) == _subject(like)), None)

    def pairs(self, synthetic: bool | None = None) -> list[Pair]:
        """The likelihood rows of the in-dist test set and of each OOD set, model by model."""
        found = []
        for ood in self.of_kind("likelihood"):
            test = self.likelihood(ood, "test", ood["in_dist"])
            if ood["role"] == "ood" and test is not None:
                found.append((test, ood))
        wanted = [pair for pair in found if synthetic is None or pair[1]["synthetic"] is synthetic]
        return sorted(
            wanted, key=lambda pair: (*_order(pair[1]), pair[1]["synthetic"], pair[1]["images"])
        )

    def auroc(self, ood: Row, scorer: str = "likelihood") -> Row | None:
        """The row of one scorer on single images of the pair that an OOD set's likelihood row belongs to."""
        row = self._trials.get((*_subject(ood), ood["images"], scorer, 1))
        return row if row and row["status"] == "ok" else None

    @cached_property
    def _likelihoods(self) -> dict[tuple[object, ...], Row]:
        return dict(cells(self.of_kind("likelihood"), "model", "in_dist", "seed", "role", "images"))

    @cached_property
    def _trials(self) -> dict[tuple[object, ...], Row]:
        fields = ("model", "in_dist", "seed", "ood", "scorer", "group_size")
        return dict(cells(self.results.tried, *fields))


def _subject(row: Row) -> tuple[str, str, int]:
    return row["model"], row["in_dist"], row["seed"]


def _order(row: Row) -> tuple[str, str, int]:
    return row["in_dist"], row["model"], row["seed"]


def bits(row: Row | None) -> str:
    """Mean bits/dim with its standard error; where outliers rule the mean, the median instead."""
    value = row and row.get("bits_per_dim")
    if not value:
        return "not finite" if row else "–"
    mean, error, median = value
    if outliers_rule(value):
        return f"median {median:.4g}, mean {mean:.2g}"
    return f"{mean:.3f} ± {error:.3f}"


def outliers_rule(summary: Sequence[float]) -> bool:
    """Whether a few images make the mean of a summary (mean, standard error, median)."""
    mean, error, _ = summary
    return error >= OUTLIERS * abs(mean)


def marked(row: Row | None) -> str:
    """The AUROC of a row as a cell; a dash where there is no row."""
    return "–" if row is None else auroc_text(row)
