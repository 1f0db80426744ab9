"""What a run comes to, on a terminal: a table a pair in the suite's order, what leads it, and why trials were left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from oodbench.report.tables import changes
from oodbench.resolver import set_name
from oodbench.screen import leaderboard, skips_by_reason
from oodbench.store import Row, is_bar, is_ranked, standing
from oodbench.suite import Entry, Suite, named
from oodbench.trials.counted import is_counted

LEGEND = (
    "AUROC [95 % interval], larger score = more OOD; ▼ worse than chance; * model-free baseline"
)
OF_PAIRS = "; ◂ likelihood itself; ‡ the bar: the best baseline that sees no more data"
LABELLED = "; ¶ reads a classifier, trained on class labels, ranked apart"
TUNED = "; † tuned on validation OOD images, ranked apart"
SEEN = "; § a model that the scorer reads has seen the OOD set: ranked nowhere"
SKIPS = 5
"""Lines of skips that are shown."""


def legend(rows: Iterable[Row]) -> str:
    """What the marks mean that may stand behind the numbers of these rows."""
    tried = [row for row in rows if row["status"] != "skipped"]
    tuned = TUNED * any(standing(row) == "tuned" for row in tried)
    labelled = LABELLED * any(standing(row) == "labelled" for row in tried)
    return LEGEND + tuned + labelled + ("" if all(map(is_ranked, tried)) else SEEN)


class PairTable(NamedTuple):
    """The scorers of all models on one pair."""

    title: str
    heads: list[str]
    lines: list[list[str]]
    lead: str


def pair_tables(rows: Sequence[Row], suite: Suite) -> Iterator[PairTable]:
    """A table for each pair of real images, in the suite's order; models are columns, scorers lines by mean AUROC."""
    counted = [row for row in rows if row["status"] != "skipped" and is_counted(row)]
    for pair in _pairs(suite):
        own = [row for row in counted if _pair_of(row) == pair]
        if own:
            yield _pair_table(_by_model(own, suite))


def _pairs(suite: Suite) -> Iterator[tuple[str, str, str]]:
    """In-dist set, OOD set, and what the OOD set's view changes in the pictures."""
    for pair in suite.pairs:
        for entry in pair.ood:
            yield _shown(pair.in_dist), _shown(entry), changes(named(entry)[1])


def _pair_of(row: Row) -> tuple[str, str, str]:
    return row["in_dist_name"], row["ood_name"], changes(row["ood"])


def _shown(entry: Entry) -> str:
    name, reference = named(entry)
    return name or set_name(reference)


def _by_model(rows: list[Row], suite: Suite) -> list[Row]:
    """Rows in the order of the suite's models; those of none come last."""
    order = [name or set_name(reference) for name, reference in map(named, suite.models)]
    return sorted(rows, key=lambda row: order.index(row["model"]) if row["model"] in order else len(order))  # fmt: skip


def _pair_table(rows: list[Row]) -> PairTable:
    heads, lines = leaderboard(rows, _mean_where_known)
    models = dict.fromkeys(row["model"] for row in rows)
    start = len(heads) - len(models)
    first, second = two_best(row for row in rows if standing(row) == "scorer")
    bar = best(row for row in rows if first is None or is_bar(row, first) if row["baseline"])
    marked = {"likelihood": "likelihood ◂"}
    if bar is not None:
        marked[f"{bar['scorer']} *"] = f"{bar['scorer']} * ‡"
    shown = [[marked.get(name, name), *cells] for name, *cells in lines]
    title = f"{rows[0]['in_dist']} → {rows[0]['ood']}"
    return PairTable(title, [*heads[:start], *models], shown, _lead(first, second, bar))


def _mean_where_known(rows: Iterable[Row], scorer: str) -> float | None:
    """A scorer's mean over the models that have it, by which one that some lack stands in its place."""
    own = [row for row in rows if row["scorer"] == scorer]
    found = [row["auroc"] for row in own if row["status"] == "ok" and is_ranked(row)]
    return sum(found) / len(found) if found else None


def _lead(first: Row | None, second: Row | None, bar: Row | None) -> str:
    """What leads a pair, where its interval and the next one's do not overlap, and the bar beside it."""
    parts = [] if first is None else [_ahead(first, second)]
    parts += [] if bar is None else [f"the bar: {bar['scorer']}, {bar['auroc']:.3f}"]
    return "; ".join(parts)


def _ahead(first: Row, second: Row | None) -> str:
    if second is None or _is_apart(first, second):
        return f"leads: {_told(first)}"
    return f"not told apart: {_told(first)} and {_told(second)}"


def _is_apart(first: Row, second: Row) -> bool:
    """Whether 95 % intervals do not overlap; unlike the paired test of a report, this takes images for unlike ones."""
    low, high = first["auroc_low"], second["auroc_high"]
    return low is not None and high is not None and bool(low > high)


def _told(row: Row) -> str:
    return f"{row['scorer']} with {row['model']}, {row['auroc']:.3f}"


def two_best(rows: Iterable[Row]) -> tuple[Row | None, Row | None]:
    """The ranked row of the largest AUROC, and that of the next scorer or model, whatever the seed."""
    own = list(rows)
    first = best(own)
    return first, best(row for row in own if first and _name(row) != _name(first))


def _name(row: Row) -> tuple[str, str]:
    return row["scorer"], row["model"]


def best(rows: Iterable[Row]) -> Row | None:
    """The row of the largest AUROC among those that are ranked."""
    sound = [row for row in rows if row["status"] == "ok" and is_ranked(row)]
    return max(sound, key=lambda row: float(row["auroc"]), default=None)


def skip_summary(rows: Iterable[Row], page: str) -> list[str]:
    """Why trials were left out, in a few lines; ``page`` lists the rest."""
    skipped = [row for row in rows if row["status"] == "skipped"]
    lines = skips_by_reason(
        (row["model"], row["in_dist"], row["ood"], row["reason"]) for row in skipped
    )
    if len(lines) > SKIPS:
        rest = f"… and for {len(lines) - SKIPS + 1} more reasons, see {page}"
        lines = [*lines[: SKIPS - 1], rest]
    return [f"skipped: {line}" for line in lines]
