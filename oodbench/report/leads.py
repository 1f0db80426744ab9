"""Who wins a pair: a winner is named only where its lead exceeds what images, trainings and seeds may make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from oodbench.report.comparison import Lead, bar, gap_of, gap_text, in_order, lead
from oodbench.report.made import training_of
from oodbench.report.results import Results, subject_of
from oodbench.report.section import Analysis
from oodbench.report.tables import bare_table, set_name, short, text
from oodbench.store import Row

WINNERS = """\
A winner is named where it is above every other scorer with a model in the paired test on the same images (DeLong, Holm, 5 %),
and where its lead over the next one also exceeds the spread, largest less smallest, over trainings and over seeds, where
there are several; elsewhere the best are *not distinguished*. **trainings**: the spread of likelihood's AUROC over the members
of the model's ensemble, or of this lead over shipped models that differ in the training's seed alone, whichever is wider.
**seeds**: of this lead over the seeds that were run. *one*: nothing was repeated, so that the line is of that one alone.
‡ not above the best model-free baseline that sees no more data.
"""
HEADS = ["model", "OOD", "winner", "AUROC", "lead over the next", "trainings", "seeds"]


class Spread(NamedTuple):
    """Largest less smallest of n values."""

    width: float
    n: int

    def __str__(self) -> str:
        return f"{self.width:.3f} ({self.n})"


class Contest(NamedTuple):
    """A pair with who is ahead, and how far repetitions lie apart; None where nothing was repeated."""

    row: Row
    lead: Lead
    trainings: Spread | None
    seeds: Spread | None

    @property
    def winner(self) -> str:
        """The scorer whose lead exceeds all that is known of its spread; empty where none does."""
        spreads = [one.width for one in (self.trainings, self.seeds) if one]
        ahead = self.lead.gap.value > max(spreads, default=0.0)
        return self.lead.best if ahead and not self.lead.as_good else ""

    @property
    def undistinguished(self) -> list[str]:
        """Scorers of which none is named the winner; the next one where trainings or seeds alone forbid it."""
        return [self.lead.best, *(self.lead.as_good or [self.lead.next])]


def contests(results: Results) -> list[Contest]:
    """Every pair on which two scorers with a model can be compared."""
    rows = in_order(results.comparisons)
    found = [(row, lead(row)) for row in rows]
    return [
        Contest(row, own, _over_trainings(results, row, own), _over_seeds(rows, row, own))
        for row, own in found
        if own
    ]


def _over_trainings(results: Results, row: Row, own: Lead) -> Spread | None:
    """The widest of what is known: over the members of the ensemble, and over trainings of the same recipe."""
    members = [one["aurocs"] for one in results.explained if _is_of_members(one, row)]
    alike = [one for one in results.comparisons if _is_retraining(one, row)]
    known = [_spread(aurocs) for aurocs in members] + [_spread_of_lead(alike, own)]
    return max((one for one in known if one), default=None)


def _is_of_members(one: Row, row: Row) -> bool:
    same = subject_of(one) == subject_of(row)
    return one["kind"] == "members" and same and one["images"] == row["ood"]


def _is_retraining(one: Row, row: Row) -> bool:
    sets = ("in_dist", "ood", "seed")
    same = all(one.get(field) == row.get(field) for field in sets)
    return same and training_of(one["model"]) == training_of(row["model"])


def _over_seeds(rows: Sequence[Row], row: Row, own: Lead) -> Spread | None:
    pair = ("model", "in_dist", "ood")
    alike = [one for one in rows if all(one[field] == row[field] for field in pair)]
    return _spread_of_lead(alike, own)


def _spread_of_lead(rows: Sequence[Row], own: Lead) -> Spread | None:
    gaps = [gap_of(row, own.best, own.next) for row in rows]
    return _spread([gap for gap in gaps if gap is not None])


def _spread(values: Sequence[float]) -> Spread | None:
    return Spread(max(values) - min(values), len(values)) if len(values) > 1 else None


def leads_table(results: Results, found: Sequence[Contest]) -> str:
    """The words and the table of the winners of some pairs; empty where nothing was compared."""
    if not found:
        return ""
    return f"{WINNERS}\n{bare_table(HEADS, [_line(results, one) for one in found])}"


def _line(results: Results, one: Contest) -> list[str]:
    names = [text(results.label(one.row)), text(set_name(one.row["ood"])), _winner_cell(one)]
    ahead = f"{gap_text(one.lead.gap)} over {text(one.lead.next)}"
    spreads = [str(spread) if spread else "one" for spread in (one.trainings, one.seeds)]
    return [*names, short(one.lead.auroc), ahead, *spreads]


def _winner_cell(one: Contest) -> str:
    plain = " ‡" if is_below_bar(one) else ""
    if one.winner:
        return f"**{text(one.winner)}**{plain}"
    return f"not distinguished: {', '.join(map(text, one.undistinguished))}{plain}"


def is_below_bar(one: Contest) -> bool:
    """Whether the best baseline that sees no more data is as good as the best scorer."""
    gap = gap_of(one.row, one.lead.best, bar(one.row, one.lead.best))
    return gap is not None and gap <= 0


def conclusion(analysis: Analysis) -> str:
    """On how many pairs a scorer wins, and on which the best are not distinguished; empty where nothing was compared."""
    found = contests(analysis.results)
    if not found:
        return ""
    won, rest = ([one for one in found if bool(one.winner) is named] for named in (True, False))
    said = f"One scorer with a model is ahead of all others on {len(won)} of {len(found)} pairs{_counted(won)}"
    undecided = [f"{_pair_name(analysis, one)} ({len(one.undistinguished)})" for one in rest]
    parts = [said]
    parts += [f"not distinguished (how many): {', '.join(undecided)}"] if undecided else []
    return f"{'; '.join([*parts, _repeated(found)])}."


def _counted(won: Sequence[Contest]) -> str:
    """Winners with their number of pairs, most first, and how many of the leads a baseline has too."""
    counts = Counter(one.winner for one in won)
    named = [f"{text(name)} on {n}" for name, n in sorted(counts.items(), key=most_first)]
    below = sum(is_below_bar(one) for one in won)
    named += [f"{below} of them not above the best model-free baseline"] if below else []
    return f" ({', '.join(named)})" if named else ""


def most_first(counted: tuple[str, int]) -> tuple[int, str]:
    name, n = counted
    return -n, name


def _pair_name(analysis: Analysis, one: Contest) -> str:
    return f"{text(analysis.results.label(one.row))} → {text(set_name(one.row['ood']))}"


def _repeated(found: Sequence[Contest]) -> str:
    trainings, seeds = (
        sum(spread is not None for spread in own)
        for own in zip(*((one.trainings, one.seeds) for one in found), strict=True)
    )
    return f"trainings were repeated for {trainings} of these pairs, seeds for {seeds}"
