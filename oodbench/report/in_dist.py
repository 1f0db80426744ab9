"""The page of one in-dist set: every metric of every scorer, model by model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from oodbench.data.corruptions import rung
from oodbench.report.illustrations import Illustration
from oodbench.report.ladders import ladder_table
from oodbench.report.older import older_sentence
from oodbench.report.results import Results, Subject, cells
from oodbench.report.tables import (
    HEAD,
    LEGEND,
    NO_LIKELIHOOD,
    TAKES,
    Notes,
    bar_of,
    bits_cell,
    distinct,
    metric_cell,
    scorer_takes,
    shown_scorer,
    table,
    text,
)
from oodbench.store import Row, Standing, standing

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


def in_dist_page(results: Results, in_dist: str, illustrations: Iterable[Illustration]) -> str:
    """All results of one in-dist set: for each model a table of each metric, groups apart, costs and
    skips."""
    notes = Notes()
    tried = [row for row in results.tried if row["in_dist_name"] == in_dist]
    known = {(row["model"], row["in_dist"], row["seed"]) for row in tried}
    parts = [HEAD, f"# In-dist: {text(in_dist)}\n", *older_sentence(tried), LEGEND]
    for subject in (one for one in results.subjects() if tuple(one) in known):
        label = results.name_of(subject)
        figures = [one for one in illustrations if one.of == label]
        skips = [row for row in results.skips if row["in_dist_name"] == in_dist]
        own_skips = [row for row in skips if row["model"] == subject.model]
        parts += [f"## {text(label)}\n", *_fit(results, subject, figures, notes)]
        own = results.of_subject(subject)
        parts += _metrics([row for row in own if rung(row["ood"]) is None], own_skips, notes)
        parts.append(ladder_table(own))
    return "\n".join(parts) + notes.text()


def _fit(
    results: Results, subject: Subject, figures: list[Illustration], notes: Notes
) -> list[str]:
    """What log p(x) is, the pairs with their sizes and bits/dim, and links to figures."""
    rows = results.of_subject(subject)
    likelihood = rows[0]["likelihood"]
    kind = "exact" if likelihood == "exact" else f"not exact (a bound: {text(likelihood)})"
    said = NO_LIKELIHOOD[:-1] if rows[0].get("uses_labels") else f"log p(x): {kind}"
    parts = [f"{said}; seed {subject.seed}.\n"]
    lines = [_pair_line(rows, ood, notes) for ood in _oods(rows)]
    heads = [
        "in-dist set",
        "OOD set",
        "images",
        "OOD base rate",
        "in-dist bits/dim",
        "OOD bits/dim",
    ]
    links = ", ".join(
        f"[{one.kind}]({one.file})" for one in figures if one.kind in ("likelihoods", "roc")
    )
    return [*parts, table(heads, lines), *([f"Figures: {links}.\n"] if links else [])]


def _oods(rows: list[Row]) -> list[str]:
    return sorted({row["ood"] for row in rows})


def _pair_line(rows: list[Row], ood: str, notes: Notes) -> list[str]:
    own = [row for row in rows if row["ood"] == ood]
    row = own[0]
    bits = [bits_cell(row.get(f"{role}_bits_per_dim")) for role in ("in_dist", "ood")]
    return [text(row["in_dist"]), text(ood) + _shared(row, notes), *_sizes(own), *bits]


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


def _metrics(rows: list[Row], skips: list[Row], notes: Notes) -> list[str]:
    """A table for each metric, and what each scorer takes."""
    parts = []
    for metric, title in METRIC_TITLES.items():
        having = [row for row in rows if row["status"] == "failed" or metric in row]
        if having:
            whole = [row for row in skips if row["scorer"] and row.get("group_size") is None]
            why = {row["scorer"]: row["reason"] for row in whole}
            shown = why if metric == "auroc" else {}  # once is enough
            parts += [f"### {title}\n", _metric_table(having, shown, _oods(rows), metric, notes)]
    scorers = distinct(sorted(row["scorer"] for row in rows))
    if not scorers:
        return []
    lines = [
        [text(name), *scorer_takes([row for row in rows if row["scorer"] == name])]
        for name in scorers
    ]
    return [*parts, "### Cost\n", table(["scorer", *TAKES], lines)]


def _metric_table(
    rows: list[Row], why: dict[str, str], oods: list[str], metric: str, notes: Notes
) -> str:
    """A line for each scorer and group size, a column for each OOD set; ``why`` says why a scorer was
    skipped."""
    found = cells(rows, "scorer", "group_size", "ood")
    kinds = {(standing(row), row["scorer"], row["group_size"]) for row in rows}
    known: dict[str, Standing] = {row["scorer"]: standing(row) for row in rows}
    skipped = {(known.get(name, "scorer"), name, 1) for name in why}
    lines = _constant_score(rows, oods, metric)
    for kind, scorer, size in sorted(kinds | skipped, key=_order):
        name = shown_scorer(scorer, kind)
        judged = "single" if size == 1 else f"groups of {size}"
        line = [found.get((scorer, size, ood)) for ood in oods]
        shown = [_cell(row, rows, metric, why.get(scorer), notes) for row in line]
        lines.append([name, judged, *shown])
    return table(["scorer", "judged", *map(text, oods)], lines)


def _order(line: tuple[Standing, str, int]) -> tuple[int, str, int]:
    """Baselines below the others."""
    kind, scorer, size = line
    return kind == "baseline", scorer, size


def _cell(row: Row | None, rows: list[Row], metric: str, why: str | None, notes: Notes) -> str:
    if row is None:
        return notes.mark(why) if why else ""
    bar = bar_of(row, rows) if row["group_size"] == 1 else None
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
        shown.append("" if of_class is None else f"{of_class:.3f}")
    return [["*a constant score* (base rate)", "single", *shown]]
