"""The figures of the finding: all pairs at a glance, and two histograms small enough for a README."""

from __future__ import annotations

from collections.abc import Iterator

from oodbench.report.comparison import LIKELIHOOD
from oodbench.report.illustrations import Illustration
from oodbench.report.order import in_dist_names, oods_in_order, subjects_in_order
from oodbench.report.overall import Standings
from oodbench.report.results import Results, Subject
from oodbench.report.sections.likelihoods import drawn_curves
from oodbench.report.tables import set_name, short, text, trial_of
from oodbench.store import Row

THUMBNAILS = 2
"""Pairs of the small figure."""


def headline_figures(results: Results) -> Iterator[Illustration]:
    """What can be drawn of the rows of real images, and of the stored histograms."""
    if not results.tried:
        return
    own = Standings(results)
    rows = list(_marks(own))
    if len({row["pair"] for row in rows}) > 1:
        leader = next((row["label"] for row in rows if row["what"] == "leader"), LIKELIHOOD)
        caption = (
            f"AUROC of likelihood, of {text(leader)}, best over all, and of the best model-free baseline on each pair; "
            "one mark a model, one model a family."
        )
        yield Illustration("headline", "", caption, rows)
    curves = _first_pairs(results)
    if curves:
        shown = "; ".join(_pair_words(row) for row in curves)
        yield Illustration(
            "thumbnail", "", f"Histograms of log p(x) of test images. {shown}.", curves
        )


def _marks(own: Standings) -> Iterator[Row]:
    leader = own.leader()
    chosen = {LIKELIHOOD: "likelihood"} | ({leader: "leader"} if leader else {})
    ranked = [row for rows in own.sets.values() for row in rows if row["status"] == "ok"]
    for in_dist, rows in own.sets.items():
        for ood in oods_in_order(rows):
            known = [row for row in ranked if row["in_dist_name"] == in_dist and row["ood"] == ood]
            pair = f"{in_dist} → {set_name(ood)}"
            for row in known:
                if row["scorer"] in chosen:
                    yield _mark(pair, chosen[row["scorer"]], row["scorer"], row["auroc"])
            yield from _bar_marks(pair, known)


def _bar_marks(pair: str, rows: list[Row]) -> Iterator[Row]:
    """The best baseline of each model's trial."""
    best: dict[object, float] = {}
    for row in rows:
        if row["baseline"]:
            best[trial_of(row)] = max(row["auroc"], best.get(trial_of(row), 0.0))
    for auroc in dict.fromkeys(best.values()):
        yield _mark(pair, "bar", "best baseline", auroc)


def _mark(pair: str, what: str, label: str, auroc: float) -> Row:
    return {"pair": pair, "what": what, "label": label, "auroc": auroc}


def _first_pairs(results: Results) -> list[Row]:
    """The first pairs of unlike in-dist sets on which likelihood prefers the OOD images; elsewhere the first ones."""
    firsts = [row for name in in_dist_names(results) if (row := _first_pair(results, name))]
    inverted = [row for row in firsts if row["auroc"] is not None and row["auroc"] < 0.5]
    return (inverted if len(inverted) >= THUMBNAILS else firsts)[:THUMBNAILS]


def _first_pair(results: Results, in_dist: str) -> Row | None:
    curves = [row for one in _subjects(results, in_dist) for row in drawn_curves(results, one)]
    return next((row for row in curves if not row["synthetic"]), None)


def _subjects(results: Results, in_dist: str) -> list[Subject]:
    own = {row["in_dist"] for row in results.tried if row["in_dist_name"] == in_dist}
    return [one for one in subjects_in_order(results) if one.in_dist in own]


def _pair_words(row: Row) -> str:
    known = "" if row["auroc"] is None else f", AUROC of likelihood {short(row['auroc'])}"
    return f"{text(row['model'])}: {text(set_name(row['in_dist']))} → {text(set_name(row['ood']))}{known}"
