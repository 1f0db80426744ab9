"""The details of one in-dist set: every metric of every scorer, groups, costs, and the command for each cell, model by model."""

from __future__ import annotations

from collections.abc import Iterator

from oodbench.data.corruptions import rung
from oodbench.report.again import shown_command
from oodbench.report.ladders import ladder_table
from oodbench.report.links import Links, page_head
from oodbench.report.older import older_sentence
from oodbench.report.order import oods_in_order, subjects_in_order
from oodbench.report.results import Results, Subject, cells, subject_of
from oodbench.report.tables import (
    LEGEND,
    NO_LIKELIHOOD,
    TAKES,
    Notes,
    bar_of,
    bare_table,
    bits_cell,
    distinct,
    folded,
    metric_cell,
    scorer_takes,
    set_name,
    short,
    short_names,
    shown_scorer,
    table,
    text,
)
from oodbench.store import STANDINGS, Row, Standing, is_ranked, standing

UP = """\
All models side by side, and figures: [{}]({}).
"""
AGAIN = """\
Each runs in an empty folder and writes the cell to `runs/`, with all that it needs of a model; what was measured before is not
measured again. The bundled sample is used where the full sets are not on the machine, and then gives the sample's numbers.
"""
METRIC_TITLES = {
    "auroc": "AUROC",
    "aupr_ood": "AUPR, OOD positive",
    "aupr_in": "AUPR, in-dist positive",
    "fpr95_ood": "FPR@95, OOD positive: in-dist images flagged when 95 % of OOD is caught",
    "fpr80_ood": "FPR@80, OOD positive",
    "fpr95_in": "FPR@95, in-dist positive: OOD images accepted when 95 % of in-dist is accepted",
    "fpr80_in": "FPR@80, in-dist positive",
    "flagged_ood": (
        "OOD flagged by a test that 1 % of in-dist groups should fail "
        "(threshold from bootstrap groups of `ref`)"
    ),
    "flagged_in": "In-dist flagged by the same test: 0.01 where it holds its size",
}


def details_page(results: Results, in_dist: str, links: Links) -> str:
    """All results of one in-dist set: for each model a table of each metric, groups apart, costs and
    commands."""
    notes = Notes()
    tried = [row for row in results.tried if row["in_dist_name"] == in_dist]
    known = {subject_of(row) for row in tried}
    title = f"In-dist: {text(in_dist)}, every metric and command"
    parts = [
        *page_head(title, links, links.details(in_dist)),
        UP.format(text(in_dist), links.sets[in_dist]),
    ]
    for subject in (one for one in subjects_in_order(results) if one in known):
        own = results.of_subject(subject)
        parts += [f"## {text(results.name_of(subject))}\n", *_fit(results, subject, notes)]
        parts += _metrics([row for row in own if rung(row["ood"]) is None], notes)
        parts += [_commands(own), ladder_table(own)]
    return "\n".join([*parts, LEGEND, *older_sentence(tried)]) + notes.text()


def _commands(rows: list[Row]) -> str:
    """The command for each cell, whose result is that of the row, folded."""
    order = oods_in_order(rows)
    shown = sorted(
        rows, key=lambda row: (order.index(row["ood"]), row["scorer"], row["group_size"])
    )
    lines = [_command(row) for row in shown if row["status"] == "ok"]
    return folded(
        f"The command for each of these {len(lines)} cells", AGAIN + "\n" + "\n".join(lines) + "\n"
    )


def _command(row: Row) -> str:
    groups = f", groups of {row['group_size']}" * (row["group_size"] > 1)
    what = f"{text(row['scorer'])} → {text(set_name(row['ood']))}{groups}"
    return f"- {what}, AUROC {short(row['auroc'])}: {shown_command(row)}"


def _fit(results: Results, subject: Subject, notes: Notes) -> list[str]:
    """What log p(x) is, and the pairs with their sizes and bits/dim."""
    rows = results.of_subject(subject)
    likelihood = rows[0]["likelihood"]
    kind = "exact" if likelihood == "exact" else f"not exact (a bound: {text(likelihood)})"
    said = NO_LIKELIHOOD[:-1] if rows[0].get("uses_labels") else f"log p(x): {kind}"
    parts = [f"{said}; seed {subject.seed}.\n"]
    lines = [_pair_line(rows, ood, notes) for ood in oods_in_order(rows)]
    heads = [
        "OOD set",
        "images",
        "OOD base rate",
        "in-dist bits/dim",
        "OOD bits/dim",
    ]
    return [*parts, table(heads, lines)]


def _pair_line(rows: list[Row], ood: str, notes: Notes) -> list[str]:
    own = [row for row in rows if row["ood"] == ood]
    row = own[0]
    bits = [bits_cell(row, role) for role in ("in_dist", "ood")]
    return [text(ood) + _shared(row, notes), *_sizes(own), *bits]


def _sizes(rows: list[Row]) -> list[str]:
    single = [row for row in rows if row["status"] == "ok" and row["group_size"] == 1]
    if not single:
        return ["", ""]
    first = single[0]
    return [f"{first['n_in']:,} / {first['n_ood']:,}", f"{first['base_rate']:.3f}"]


def _shared(row: Row, notes: Notes) -> str:
    return "".join(notes.mark(sentence) for sentence in _shared_sentences(row))


def _shared_sentences(row: Row) -> Iterator[str]:
    """What the OOD set of a row shares with the in-dist set, and with what models were trained on."""
    if row.get("shared_images"):
        yield f"{row['shared_images']} images of {row['in_dist']} occur, pixel by pixel, in {row['ood']} too"
    checked = row.get("left_out_checked", {})
    if row.get("left_out"):
        sets = ", ".join(name for name, here in checked.items() if here != "none")
        yield f"{row['left_out']} images of {row['ood']} are left out: they are among the training images of {sets}"
    for name, here in checked.items():
        if here != "all":
            yield _unchecked(name, here)


def _unchecked(name: str, here: str) -> str:
    these = "only some of these" if here == "some" else "none of these"
    return (
        f"not checked in full: whether images are among the training images of {name}, since {these} are on the machine "
        "that measured"
    )


def _metrics(rows: list[Row], notes: Notes) -> list[str]:
    """A table for each metric, that of the AUROC in sight, and what each scorer takes."""
    parts = []
    for metric, title in METRIC_TITLES.items():
        having = [row for row in rows if row["status"] == "failed" or metric in row]
        if having:
            shown = _metric_table(having, oods_in_order(rows), metric, notes)
            parts += [f"### {title}\n\n{shown}" if metric == "auroc" else folded(title, shown)]
    scorers = distinct(sorted(row["scorer"] for row in rows))
    if not scorers:
        return []
    lines = [
        [text(name), *scorer_takes([row for row in rows if row["scorer"] == name])]
        for name in scorers
    ]
    return [*parts, folded("Cost", bare_table(["scorer", *TAKES], lines))]


def _metric_table(rows: list[Row], oods: list[str], metric: str, notes: Notes) -> str:
    """A line for each scorer and group size, best first, a column for each OOD set."""
    found = cells(rows, "scorer", "group_size", "ood")
    kinds = {(standing(row), row["scorer"], row["group_size"]) for row in rows}
    lines = _constant_score(rows, oods, metric)
    for kind, scorer, size in sorted(kinds, key=lambda one: _order(one, rows)):
        name = shown_scorer(scorer, kind)
        judged = f"<br><sub>groups of {size}</sub>" if size > 1 else ""
        line = [found.get((scorer, size, ood)) for ood in oods]
        lines.append([name + judged, *(_cell(row, rows, metric, notes) for row in line)])
    names = short_names(oods, set_name)
    return bare_table(["scorer", *(text(names[ood]) for ood in oods)], lines)


def _order(line: tuple[Standing, str, int], rows: list[Row]) -> tuple[int, float, str, int]:
    """By standing, then the mean over the pairs on which a scorer is ranked, then group size."""
    kind, scorer, size = line
    own = [row["auroc"] for row in rows if _is_single(row, scorer)]
    return STANDINGS.index(kind), -sum(own) / max(1, len(own)), scorer, size


def _is_single(row: Row, scorer: str) -> bool:
    sound = row["status"] == "ok" and is_ranked(row)
    return row["scorer"] == scorer and row["group_size"] == 1 and sound


def _cell(row: Row | None, rows: list[Row], metric: str, notes: Notes) -> str:
    bar = bar_of(row, rows) if row and row["group_size"] == 1 else None
    return metric_cell(row, metric, notes, bar)


def _constant_score(rows: list[Row], oods: list[str], metric: str) -> list[list[str]]:
    """The line of an AUPR table that says what a constant score would get: the base rate of the positive
    class."""
    if not metric.startswith("aupr"):
        return []
    sound = [row for row in rows if row["status"] == "ok"]
    shown = []
    for ood in oods:
        rate = next((row["base_rate"] for row in sound if row["ood"] == ood), None)
        of_class = rate if metric == "aupr_ood" or rate is None else 1 - rate
        shown.append("" if of_class is None else short(of_class))
    return [["*a constant score* (base rate)", *shown]]
