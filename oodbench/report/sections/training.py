"""Whether stopping early helps."""

from __future__ import annotations

from collections.abc import Sequence

from oodbench.report.illustrations import Illustration
from oodbench.report.results import Results
from oodbench.report.section import Analysis, Section
from oodbench.report.tables import bare_name, distinct, text
from oodbench.store import Row

HEADS = ["model", "OOD", "first", "best", "last", "step of the best"]
WORDS = (
    "AUROC of raw likelihood at bits/dim on `ref`, at the first, the best and the last validation of a "
    "training. The members of an ensemble are trainings of one small model that differ in their seed "
    "alone."
)


def watched(row: Row) -> list[str]:
    """Names of the AUROCs that a training's log holds, ``auroc_<set>``."""
    return distinct(name for line in row["log"] for name in line if name.startswith("auroc_"))


def trained_name(row: Row) -> str:
    """What a training is called in a figure: its model's name; the members of an ensemble go by one."""
    member = row["role"] == "member"
    return f"ensemble of {bare_name(row['in_dist'])}" if member else str(row["model"])


def trainings(rows: list[Row]) -> list[Row]:
    """One row for each training that was watched, whatever the in-dist views and seeds that it was met
    with."""
    of_kind = [row for row in rows if row["kind"] == "training" and watched(row)]
    return list({row["model"]: row for row in of_kind}.values())


def section(analysis: Analysis) -> Section:
    rows = trainings(analysis.results.explained)
    found = [(row, name) for row in rows for name in watched(row)]
    lines = [[text(row["model"]), *_line(row, name)] for row, name in found]
    words = [WORDS, *([_tally(found)] if found else [])]
    return Section("While training", words, [(HEADS, lines)], analysis.figures("training"))


def _tally(found: Sequence[tuple[Row, str]]) -> str:
    """How often the AUROC was best where the fit was."""
    at_best_fit = sum(_best(row, name) is _best_fit(row, name) for row, name in found)
    return (
        f"On {at_best_fit} of {len(found)} lines the AUROC is best at the validation of the best fit; on the others "
        "fit and detection part ways."
    )


def _known(row: Row, name: str) -> list[Row]:
    return [line for line in row["log"] if name in line]


def _best(row: Row, name: str) -> Row:
    """The first validation of the largest AUROC."""
    return max(_known(row, name), key=lambda line: float(line[name]))


def _best_fit(row: Row, name: str) -> Row:
    return min(_known(row, name), key=lambda line: float(line["ref_bits_per_dim"]))


def _line(row: Row, name: str) -> list[str]:
    known, best = _known(row, name), _best(row, name)
    ends = [
        f"{line[name]:.3f} at {line['ref_bits_per_dim']:.3f}"
        for line in (known[0], best, known[-1])
    ]
    return [text(name.removeprefix("auroc_")), *ends, f"{best['step'] + 1:.0f}"]


def figure(results: Results) -> Illustration | None:
    """AUROC of raw likelihood, and bits/dim, against the training step."""
    rows = trainings(results.explained)
    if not rows:
        return None
    named = ", ".join(text(name) for name in distinct(map(trained_name, rows)))
    caption = (
        "AUROC of raw likelihood (500 images of `ref` and of each OOD set's test split) and bits/dim on "
        f"`ref` at each validation during training, of {named}; one training each, one curve for each "
        "member of an ensemble; seeds are in the cards."
    )
    return Illustration("training", "", caption, rows)
