"""The page of one in-dist set: the answer, all scorers on all its pairs, and the figures of its models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oodbench.report.again import shown_command
from oodbench.report.answers import set_sentence
from oodbench.report.illustrations import Illustration
from oodbench.report.ladders import ladder_table
from oodbench.report.leads import leads_table
from oodbench.report.links import Links, page_head
from oodbench.report.older import older_sentence
from oodbench.report.overall import Standings
from oodbench.report.reasons import skip_list
from oodbench.report.results import Results, Subject
from oodbench.report.set_tables import SetTable
from oodbench.report.tables import LEGEND, Notes, folded, only_here_notes, text
from oodbench.store import Row
from oodbench.trials.counted import is_counted

BOLD = """\
Bold: the best scorer with a model on a pair, and those that the paired test on the same images does not tell from it (DeLong,
Holm, 5 %). Scorers stand in the order of their mean over the columns; those that some model lacks, and model-free ones, below.
"""
AGAIN = """\
**A cell again**: {command}, in any folder; [each cell's command, every metric, groups and costs]({details}).
"""
FIGURES = ("likelihoods", "roc")


def set_page(
    results: Results,
    own: Standings,
    in_dist: str,
    links: Links,
    illustrations: Iterable[Illustration],
) -> str:
    """Who leads on the set, the command for a cell, the table, then figures, leads of each pair, and what was left out."""
    notes = Notes()
    tried = [row for row in results.tried if row["in_dist_name"] == in_dist]
    found = SetTable(own, in_dist, notes)
    parts = page_head(f"In-dist: {text(in_dist)}", links, links.sets[in_dist])
    parts += [f"{_capital(set_sentence(own, in_dist))}\n"]
    parts += [_again(tried, links.details(in_dist)), *found.tables(), LEGEND, BOLD]
    parts += [f"{note}\n" for note in only_here_notes([], [_names(tried)])]
    parts += _ladders(results, found.subjects) + _figures(results, found.subjects, illustrations)
    parts += _leads(own, in_dist) + _left_out(results, in_dist, tried)
    parts += older_sentence(tried)
    return "\n".join(parts) + notes.text()


def _capital(said: str) -> str:
    return said[:1].upper() + said[1:]


def _names(rows: Sequence[Row]) -> list[str]:
    return [name for row in rows for name in (row["in_dist"], row["ood"], row["model"])]


def _again(rows: Sequence[Row], details: str) -> str:
    sound = [row for row in rows if row["status"] == "ok" and is_counted(row)]
    shown = max(sound, key=lambda row: (not row["baseline"], row["auroc"]), default=rows[0])
    return AGAIN.format(command=shown_command(shown), details=details)


def _ladders(results: Results, subjects: Sequence[Subject]) -> list[str]:
    found = {one: ladder_table(results.of_subject(one)) for one in subjects}
    shown = [f"### {text(results.name_of(one))}\n{own}" for one, own in found.items() if own]
    return [folded("Ladders of corruptions", "\n".join(shown))] if shown else []


def _figures(
    results: Results, subjects: Sequence[Subject], illustrations: Iterable[Illustration]
) -> list[str]:
    """The first model's figures in sight, those of the others folded."""
    known = list(illustrations)
    shown = []
    for number, subject in enumerate(subjects):
        label = results.name_of(subject)
        own = [one for one in known if one.of == label and one.kind in FIGURES]
        content = "\n".join(_figure(one) for one in own)
        if own:
            shown += [folded(f"Figures: {text(label)}", content) if number else content]
    return ["## Figures\n", *shown] if shown else []


def _figure(one: Illustration) -> str:
    return f"![{text(one.label)}]({one.file})\n\n<sub>{one.caption}</sub>\n"


def _leads(own: Standings, in_dist: str) -> list[str]:
    words = leads_table(own.results, own.contests_of(in_dist))
    return [folded("Who leads each pair, and by how much", words)] if words else []


def _left_out(results: Results, in_dist: str, tried: Sequence[Row]) -> list[str]:
    skips = [row for row in results.skips if row["in_dist_name"] == in_dist]
    lines = skip_list(skips, tried)
    return [folded("Not measured, and why", "\n".join(lines) + "\n")] if lines else []
