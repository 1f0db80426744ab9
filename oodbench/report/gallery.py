"""Which figures a results folder has: those that its stored rows give, and those of older rows that lie
there still."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from oodbench.report import sections
from oodbench.report.comparison import ranks_figure
from oodbench.report.headline import headline_figures
from oodbench.report.illustrations import Illustration
from oodbench.report.ladders import ladder_figures
from oodbench.report.older import is_older
from oodbench.report.order import subjects_in_order
from oodbench.report.results import Results, Subject, subject_of
from oodbench.report.roc import roc_figure
from oodbench.report.tables import file_names


def gallery(results: Results) -> list[Illustration]:
    """All figures that can be drawn from what is stored, and those of rows of older schemas that are on
    disk."""
    found = [one for one in _all(results) if one is not None]
    names = file_names(dict.fromkeys(one.of for one in found if one.of))
    named = [replace(one, file_name=names.get(one.of, "")) for one in found]
    return [one for one in named if one.drawn_from or _is_kept(results, one)]


def _all(results: Results) -> Iterator[Illustration | None]:
    for subject in _illustrated(results):
        for figure in (*sections.OF_SUBJECT, roc_figure):
            yield figure(results, subject)
    yield sections.training.figure(results)
    yield ranks_figure(results)
    yield from headline_figures(results)
    yield from ladder_figures(results)
    yield from sections.second_order.figures(results)


def _illustrated(results: Results) -> list[Subject]:
    """The subjects with a sound row, the paper's first."""
    sound = {subject_of(row) for row in results.tried if row["status"] == "ok"}
    return [subject for subject in subjects_in_order(results) if subject in sound]


def _is_kept(results: Results, one: Illustration) -> bool:
    """Whether a figure that nothing stored can draw again was drawn by the version that measured the rows."""
    older = any(map(is_older, results.tried))
    return older and (results.folder / one.file).exists()
