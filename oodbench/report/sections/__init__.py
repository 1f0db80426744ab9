"""The report's sections, one topic a file: what it says, its figure and the figure's caption.

Their order is that of the paper's slides. A section is a pure function of what a folder stores;
:mod:`oodbench.report.page` shows it as HTML and as markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oodbench.report.illustrations import Illustration
from oodbench.report.results import Results, Subject
from oodbench.report.section import Analysis, Section
from oodbench.report.sections import (
    both_directions,
    complexity,
    conclusions,
    constant_volume,
    decomposition,
    ensembles,
    graying,
    how_flows_work,
    likelihoods,
    samples,
    second_order,
    statements,
    synthetic,
    training,
)
from oodbench.report.tables import sentence, text

ORDER: tuple[Callable[[Analysis], Section], ...] = (
    likelihoods.section,
    how_flows_work.section,
    decomposition.section,
    constant_volume.section,
    second_order.section,
    graying.section,
    synthetic.section,
    both_directions.section,
    training.section,
    ensembles.section,
    samples.section,
    complexity.section,
    statements.section,
    conclusions.section,
)
OF_SUBJECT: tuple[Callable[[Results, Subject], Illustration | None], ...] = (
    likelihoods.figure,
    decomposition.figure,
    how_flows_work.figure,
    graying.figure,
    samples.grids_figure,
    samples.latents_figure,
)
"""The figures that each subject has."""


def make_sections(results: Results, illustrations: Sequence[Illustration]) -> list[Section]:
    """All sections that the rows give; none without sound analysis rows, and none that would be empty."""
    if not results.explained:
        return []
    analysis = Analysis(results, list(illustrations))
    found = [section(analysis) for section in ORDER]
    found[0].text += _failures(results)
    return [one for one in found if _shows_something(one)]


def _shows_something(section: Section) -> bool:
    """Whether there is a figure, a line of a table, or, in a section of text alone, a word."""
    if not (section.tables or section.figures):
        return bool(section.text)
    return bool(section.figures) or any(lines for _, lines in section.tables)


def _failures(results: Results) -> list[str]:
    failed = [row for row in results.analysis if row["status"] == "failed"]
    return [
        f"FAILED: {row['kind']} of {text(results.label(row))} on {text(row['images'])}: "
        f"{sentence(row['reason'])}"
        for row in failed
    ]
