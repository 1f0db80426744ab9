"""The answers of a leaderboard in sentences: who leads, what is not told apart, what beats the bar, what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from oodbench.report.comparison import LIKELIHOOD
from oodbench.report.leads import Contest, is_below_bar, most_first
from oodbench.report.means import Mean
from oodbench.report.overall import Standings, passes_words, time_words
from oodbench.report.tables import chance_mark, distinct, set_name, short, text
from oodbench.store import Row

MANY = 4
"""Names up to which a sentence lists them all."""


def leader_sentence(own: Standings) -> str:
    """Who is best over all in-dist sets, and who is not told from it; empty where no scorer has every pair."""
    name = own.leader()
    mean, worst = (own.mean(name), own.worst(name)) if name else (None, None)
    if not name or mean is None or worst is None:
        return ""
    said = f"**Best over all: {text(name)}**, mean AUROC {short(mean)}, worst pair {_worst(worst)}"
    if own.ranks is None or name not in own.ranks.of:
        return f"{said}."
    near = own.as_good(name)
    return f"{said}; mean rank {own.ranks.of[name]:.1f}, {_not_told(near)}."


def _worst(row: Row) -> str:
    pair = f"{text(row['in_dist_name'])} → {text(set_name(row['ood']))}"
    return f"{short(row['auroc'])}{chance_mark(row['auroc'])} ({pair}, {text(row['model'])})"


def _not_told(names: Sequence[str]) -> str:
    """Who is not distinguished from the first by the critical difference."""
    return f"not distinguished from {named(names)}" if names else "ahead of every other"


def named(names: Sequence[str]) -> str:
    """Names in a sentence; of many the first, and how many more."""
    shown = [text(name) for name in names[:MANY]]
    more = len(names) - len(shown)
    return ", ".join(shown) + f" and {more} more" * bool(more)


def likelihood_sentence(own: Standings) -> str:
    """On how many pairs raw likelihood prefers the wrong images; empty where it was not run."""
    rows = [row for row in own.rows if row["scorer"] == LIKELIHOOD and row["status"] == "ok"]
    if not rows:
        return ""
    below = [row for row in rows if row["auroc"] < 0.5]
    lowest = min(rows, key=lambda row: row["auroc"])
    return (
        f"**Raw likelihood prefers the wrong images on {len(below)} of {len(rows)} pairs** (AUROC below ½; lowest "
        f"{_worst(lowest)})."
    )


def bar_sentence(own: Standings) -> str:
    """Against the best baseline of each pair; empty where there is none."""
    name = own.leader()
    found = own.against_bar(name) if name else None
    if not name or not found or not found.pairs:
        return ""
    return (
        f"**Against the bar**, the best baseline without a deep model: {text(name)} is better on {found.better} of "
        f"{found.pairs} pairs, worse on {found.worse}, not told from it on {found.undecided}."
    )


def cost_sentence(own: Standings) -> str:
    """Wall time an image of the leading scorers and of likelihood; empty where it was not noted."""
    first = own.leader()
    names = distinct([name for name in (first, *own.as_good(first or "")) if name][:3])
    said = [_cost(own, name) for name in distinct([*names, LIKELIHOOD])]
    known = [one for one in said if one]
    return f"**Cost** an image, on a CPU: {'; '.join(known)}." if known else ""


def _cost(own: Standings, scorer: str) -> str:
    rows = [row for row in own.rows if row["scorer"] == scorer]
    taken = time_words(rows) if rows else ""
    return f"{text(scorer)} {taken} ({passes_words(rows)})" if taken else ""


def set_sentence(own: Standings, in_dist: str) -> str:
    """Who leads on an in-dist set: the best mean over its pairs, and the pairs that each scorer wins."""
    parts = [_best_mean(own, in_dist), *_winners(own.contests_of(in_dist))]
    return "; ".join(filter(None, parts)) + "." if any(parts) else "no scorer has every pair."


def _best_mean(own: Standings, in_dist: str) -> str:
    means = {name: own.mean_in(in_dist, name) for kind, name in own.scorers() if kind == "scorer"}
    known: dict[str, Mean] = {name: mean for name, mean in means.items() if mean}
    if not known:
        return ""
    best = max(known, key=lambda name: known[name].value)
    mean = known[best]
    worst = mean.worst
    where = f"{text(set_name(worst['ood']))}, {text(worst['model'])}"
    return (
        f"best mean: **{text(best)}** {short(mean.value)} (worst {short(worst['auroc'])}"
        f"{chance_mark(worst['auroc'])}, {where})"
    )


def _winners(found: Sequence[Contest]) -> list[str]:
    """Who wins how many pairs of all models, how many are undecided, and how many leads a baseline has too."""
    if not found:
        return []
    counts = Counter(one.winner for one in found if one.winner)
    n = f" of {len(found)} pairs"
    said = [f"{text(name)} wins {k}{n}" for name, k in sorted(counts.items(), key=most_first)[:3]]
    open_ones = len(found) - counts.total()
    said += [f"{open_ones}{n} not distinguished"] if open_ones else []
    below = sum(map(is_below_bar, found))
    return [", ".join(said), f"on {below} the best is not above the bar" if below else ""]
