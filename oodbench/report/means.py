"""Means over pairs with the worst pair beside them: of one subject, and of all in-dist sets, each of which counts once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from oodbench.report.results import Results
from oodbench.report.tables import (
    chance_mark,
    distinct,
    set_name,
    short_names,
    shown_scorer,
    table,
    text,
    trial_of,
)
from oodbench.store import STANDINGS, Row, Standing, is_ranked, standing
from oodbench.trials.counted import is_counted

MEANS = """\
The mean AUROC over an in-dist set's pairs of real images, and in brackets its worst pair; where several models stand
for a set, over all of them; classifiers are taken by themselves. *mean* is the mean over in-dist sets, so that a set with many
pairs counts as much as any other;
*worst* is the worst pair of all. A scorer that some model lacks has no mean, and its columns are over the models that have it.
"""


class Mean(NamedTuple):
    """A mean over pairs, and the row of the worst one."""

    value: float
    worst: Row


def mean_of(rows: Sequence[Row], pairs: int) -> Mean | None:
    """The mean AUROC of rows that are ranked, one a pair; None where not all of ``pairs`` have one."""
    sound = [row for row in rows if row["status"] == "ok" and is_ranked(row)]
    if not sound or len(sound) != pairs:
        return None
    return Mean(sum(row["auroc"] for row in sound) / pairs, min(sound, key=_by_auroc))


def _by_auroc(row: Row) -> tuple[float, str]:
    return row["auroc"], row["ood"]


def mean_over_sets(means: Mapping[str, float]) -> float:
    """The mean over in-dist sets of the mean over each one's pairs."""
    return sum(means.values()) / len(means)


def by_set(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by the name of their in-dist set."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["in_dist_name"], []).append(row)
    return dict(sorted(found.items()))


def means_table(results: Results) -> str:
    """A line for each scorer, a column for each in-dist set; empty where there is but one set."""
    counted = [row for row in results.tried if is_counted(row)]
    sets = by_set(counted)
    if len(sets) < 2:
        return ""
    found = [(kind, _line(name, kind, sets)) for kind, name in _scorers(counted)]
    found.sort(
        key=lambda one: (STANDINGS.index(one[0]), not one[1][1], _descending(one[1][1]), one[1][0])
    )
    lines = [line for _, line in found]
    heads = ["scorer", "mean", "worst", *map(text, sets)]
    return f"## Means over in-dist sets\n\n{MEANS}\n{table(heads, lines)}"


def _descending(shown: str) -> float:
    return -float(shown or 0)


def _scorers(rows: Iterable[Row]) -> list[tuple[Standing, str]]:
    return sorted({(standing(row), row["scorer"]) for row in rows})


def _line(scorer: str, kind: Standing, sets: Mapping[str, list[Row]]) -> list[str]:
    found = {name: mean_in(rows, scorer) for name, rows in sets.items()}
    shown = shown_scorer(scorer, kind)
    cells = [_cell(rows, scorer) for rows in sets.values()]
    known = {name: mean for name, mean in found.items() if mean is not None}
    if len(known) < len(found):
        return [shown, "", "", *cells]
    overall = mean_over_sets({name: mean.value for name, mean in known.items()})
    worst = min((mean.worst for mean in known.values()), key=_by_auroc)
    of_set = f"{text(worst['in_dist_name'])} → {worst_name(worst, sets[worst['in_dist_name']])}"
    return [shown, f"{overall:.3f}", f"{worst['auroc']:.3f} ({of_set})", *cells]


def mean_in(rows: Sequence[Row], scorer: str) -> Mean | None:
    """A scorer's mean over the trials of one in-dist set; None where it lacks one."""
    alike = of_its_models(rows, scorer)
    own = [row for row in alike if row["scorer"] == scorer]
    return mean_of(own, len(set(map(trial_of, alike))))


def of_its_models(rows: Iterable[Row], scorer: str) -> list[Row]:
    """The rows with models of the scorer's kind: classifiers, or density models; where all rows are of one kind, these."""
    found = list(rows)
    own = [row for row in found if row["scorer"] == scorer]
    labelled = any(standing(row) == "labelled" for row in own)
    alike = [row for row in found if bool(row.get("uses_labels")) == labelled]
    return alike or found


def _cell(rows: Sequence[Row], scorer: str) -> str:
    """The mean of one in-dist set over those of its models that have the scorer on all pairs; how many, where not all have."""
    alike = of_its_models(rows, scorer)
    models = distinct(row["model"] for row in alike)
    by_model = {name: [row for row in alike if row["model"] == name] for name in models}
    having = [row for own in by_model.values() if mean_in(own, scorer) for row in own]
    mean = mean_in(having, scorer)
    if mean is None:
        return ""
    n = len(distinct(row["model"] for row in having))
    lacking = f", {n} of {len(models)} models" if n < len(models) else ""
    return mean_cell(mean, alike) + lacking


def mean_cell(mean: Mean, beside: Iterable[Row]) -> str:
    """``mean (worst set)``, the set named as short as it can be beside the others."""
    worst = mean.worst["auroc"]
    return f"{mean.value:.3f} ({worst:.3f}{chance_mark(worst)} {worst_name(mean.worst, beside)})"


def worst_name(row: Row, beside: Iterable[Row]) -> str:
    """The OOD set of a row, with its model where several stand for the in-dist set."""
    rows = list(beside)
    names = short_names(distinct(one["ood"] for one in rows), set_name)
    models = {one["model"] for one in rows}
    of_model = f", {text(row['model'])}" if len(models) > 1 else ""
    return f"{text(names[row['ood']])}{of_model}"
