"""The table over all in-dist sets: scorers by mean rank, with means, worst pairs, duels and costs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from statistics import median
from typing import NamedTuple

import numpy as np

from oodbench.metrics.comparison import average_ranks, critical_difference
from oodbench.report.comparison import LIKELIHOOD, common, undistinguished
from oodbench.report.duels import Tally, against_bar, duel
from oodbench.report.leads import Contest, contests
from oodbench.report.made import family_of, training_of
from oodbench.report.means import Mean, mean_in, mean_over_sets
from oodbench.report.order import in_dist_names, pair_key
from oodbench.report.results import Results
from oodbench.report.tables import (
    bare_table,
    chance_mark,
    distinct,
    folded,
    set_name,
    short,
    shown_scorer,
    text,
)
from oodbench.store import STANDINGS, Row, Standing, standing
from oodbench.trials.counted import is_counted

OVERALL = """\
A column an in-dist set: the mean AUROC over its pairs of real images, and below it the worst pair. Of each family of models
the one of fewest bits/dim in-dist stands for it ({models}). **rank**: mean rank over {n} pairs of sets and families, other
trainings and seeds of a model averaged; scorers that share a letter differ by less than the critical difference {gap:.2f}
(Nemenyi, 5 %). **likelihood**, **bar**: on how many pairs better–worse–undecided against likelihood, and against the best
baseline that sees no more data (paired DeLong, Holm, 5 %). Below each name: what it looks at beside the test images, walks of
a model, and wall time an image on a CPU.
"""
UNRANKED = "Measured for some of these models alone, or tuned on OOD images: no rank"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Ranks(NamedTuple):
    """Mean ranks of the scorers that every pair has, and what tells them apart."""

    of: dict[str, float]
    n: int
    gap: float

    def letters(self, scorer: str) -> str:
        """The groups of scorers, not told from each other, that a scorer belongs to."""
        spans = undistinguished(sorted(self.of.values()), self.gap)
        own = self.of[scorer]
        return "".join(letter for letter, (low, high) in zip(LETTERS, spans) if low <= own <= high)


class Standings:
    """What a suite's rows say of each scorer over all in-dist sets, with one model of each family."""

    def __init__(self, results: Results):
        self.results = results
        self.seed = min((row["seed"] for row in results.tried), default=0)

    @cached_property
    def rows(self) -> list[Row]:
        """The sound and failed rows of single real images of the models that stand for their families, of the first seed."""
        counted = [row for row in self.results.tried if is_counted(row)]
        return [row for row in counted if row["seed"] == self.seed and self._stands(row)]

    @cached_property
    def sets(self) -> dict[str, list[Row]]:
        """Rows by in-dist set, in the order of pages."""
        names = in_dist_names(self.results)
        found = {name: [row for row in self.rows if row["in_dist_name"] == name] for name in names}
        return {name: rows for name, rows in found.items() if rows}

    @cached_property
    def models(self) -> dict[tuple[str, str], str]:
        """In-dist set and family → the model of fewest bits/dim on the in-dist test images."""
        fits: dict[tuple[str, str], dict[str, float]] = {}
        for row in self.results.tried:
            bits = row.get("in_dist_bits_per_dim")
            known = fits.setdefault((row["in_dist_name"], family_of(row["model"])), {})
            known[row["model"]] = float("inf") if bits is None else bits
        return {cell: min(own, key=lambda name: (own[name], name)) for cell, own in fits.items()}

    def _stands(self, row: Row) -> bool:
        return self.models[row["in_dist_name"], family_of(row["model"])] == row["model"]

    @cached_property
    def names(self) -> dict[str, str]:
        """In-dist set as it was measured → its name."""
        return {row["in_dist"]: row["in_dist_name"] for row in self.results.tried}

    @cached_property
    def comparisons(self) -> list[Row]:
        """The comparisons of the models that stand for their families, of the first seed."""
        own = [row for row in self._retrained if self._is_first(row)]
        return sorted(own, key=pair_key)

    def _is_first(self, row: Row) -> bool:
        model = self.models.get((self.names[row["in_dist"]], family_of(row["model"])))
        return row.get("seed", 0) == self.seed and row["model"] == model

    @cached_property
    def _retrained(self) -> list[Row]:
        """As :attr:`comparisons`, with other trainings of the same recipe, and other seeds."""
        chosen = {(name, training_of(model)) for (name, _), model in self.models.items()}
        known = [row for row in self.results.comparisons if row["in_dist"] in self.names]
        return [
            row
            for row in known
            if (self.names[row["in_dist"]], training_of(row["model"])) in chosen
        ]

    @cached_property
    def ranks(self) -> Ranks | None:
        """None where ranks say nothing: of fewer than two pairs, or of three scorers."""
        names, aurocs = common(self._retrained)
        if len(names) < 3:
            return None
        groups = [self._group(row) for row in self._retrained]
        every = distinct(groups)
        if len(every) < 2:
            return None
        by_group = [average_ranks(aurocs[[group == own for group in groups]]) for own in every]
        means = dict(zip(names, np.mean(by_group, axis=0).tolist(), strict=True))
        return Ranks(means, len(every), critical_difference(len(names), len(every)))

    def _group(self, row: Row) -> str:
        """What trainings and seeds are averaged within: a family on a pair of sets."""
        return f"{family_of(row['model'])} {self.names[row['in_dist']]} {set_name(row['ood'])}"

    @cached_property
    def contests(self) -> list[Contest]:
        """Who is ahead on each pair, of all models and seeds."""
        return contests(self.results)

    def contests_of(self, in_dist: str) -> list[Contest]:
        """Of one in-dist set."""
        return [one for one in self.contests if self.names.get(one.row["in_dist"]) == in_dist]

    def scorers(self) -> list[tuple[Standing, str]]:
        """By standing, then mean rank, then mean."""
        found = {(standing(row), row["scorer"]) for row in self.rows}
        return sorted(found, key=self._order)

    def _order(self, one: tuple[Standing, str]) -> tuple[int, float, float, str]:
        kind, name = one
        ranked = self.ranks.of.get(name, np.inf) if self.ranks else np.inf
        mean = self.mean(name)
        return STANDINGS.index(kind), ranked, -np.inf if mean is None else -mean, name

    def mean_in(self, in_dist: str, scorer: str) -> Mean | None:
        """Over the pairs of one in-dist set; None where one of its models lacks the scorer."""
        return mean_in(self.sets[in_dist], scorer)

    def mean(self, scorer: str) -> float | None:
        """Over in-dist sets, each of which counts once; None where one is lacking."""
        found = {name: self.mean_in(name, scorer) for name in self.sets}
        known = {name: mean.value for name, mean in found.items() if mean}
        return mean_over_sets(known) if len(known) == len(found) else None

    def worst(self, scorer: str) -> Row | None:
        """The row of the worst pair of all."""
        own = [mean.worst for name in self.sets if (mean := self.mean_in(name, scorer))]
        return min(own, key=lambda row: row["auroc"], default=None)

    def against_likelihood(self, scorer: str) -> Tally:
        return duel(self.comparisons, scorer, LIKELIHOOD)

    def against_bar(self, scorer: str) -> Tally:
        return against_bar(self.comparisons, scorer)

    def leader(self) -> str | None:
        """The scorer with a model that has the best mean rank, or the best mean where there are no ranks."""
        full = [name for kind, name in self.scorers() if kind == "scorer" and self._is_full(name)]
        return full[0] if full else None

    def _is_full(self, scorer: str) -> bool:
        return self.mean(scorer) is not None

    def as_good(self, scorer: str) -> list[str]:
        """Scorers with a model whose mean rank is not told from a scorer's."""
        if not self.ranks or scorer not in self.ranks.of:
            return []
        of, gap = self.ranks.of, self.ranks.gap
        kinds = {name: kind for kind, name in self.scorers()}
        near = [name for name in of if name != scorer and abs(of[name] - of[scorer]) < gap]
        return sorted((name for name in near if kinds[name] == "scorer"), key=lambda name: of[name])


def milliseconds(rows: Iterable[Row]) -> float | None:
    """The median over rows of the wall time an image of all passes on a CPU; None where it was not noted."""
    known = [row for row in rows if set(row["passes"]) <= (row.get("cost") or {}).keys()]
    times = [
        sum(row["cost"][name]["ms_per_image"] for name in row["passes"])
        for row in known
        if all(row["cost"][name]["device"] == "cpu" for name in row["passes"])
    ]
    return median(times) if times else None


def time_words(rows: Iterable[Row]) -> str:
    """``12 ms``; empty where it was not noted."""
    value = milliseconds(rows)
    return "" if value is None else f"{value:.{0 if value >= 10 else 1}f} ms"


def passes_words(rows: Iterable[Row]) -> str:
    """``1 pass``, ``5–6 passes``: walks of a model over the images."""
    found = sorted({sum(" of " in name for name in row["passes"]) for row in rows})
    span = str(found[0]) if found[0] == found[-1] else f"{found[0]}–{found[-1]}"
    return f"{span} pass{'' if span == '1' else 'es'}"


def seen_words(row: Row) -> str:
    """What a scorer looks at beside the test images."""
    kept = "" if row["tunes_on"] == "none" else text(row["tunes_on"])
    return kept or ("in-dist ref" if row.get("ref") else "nothing else")


def overall(own: Standings) -> str:
    """The table with its words; empty where nothing was measured on real images."""
    if not own.rows:
        return ""
    ranks = own.ranks
    shown = {kind_and_name: _line(own, *kind_and_name) for kind_and_name in own.scorers()}
    full = [line for (_, name), line in shown.items() if not ranks or name in ranks.of]
    rest = [line for (_, name), line in shown.items() if ranks and name not in ranks.of]
    heads = ["scorer", "rank", *map(text, own.sets), "likeli&shy;hood", "bar"]
    words = OVERALL.format(
        models=_models_words(own), n=ranks.n if ranks else 0, gap=ranks.gap if ranks else 0
    )
    parts = [bare_table(heads, full), words]
    parts += [folded(f"{UNRANKED} ({len(rest)})", bare_table(heads, rest))] if rest else []
    return "\n".join(parts)


def _models_words(own: Standings) -> str:
    """``cifar10: glow, pixelcnn``, of each set."""
    by_set: dict[str, list[str]] = {}
    for (name, _), model in own.models.items():
        by_set.setdefault(name, []).append(text(model))
    return "; ".join(", ".join(by_set[name]) for name in own.sets)


def _line(own: Standings, kind: Standing, scorer: str) -> list[str]:
    rows = [row for row in own.rows if row["scorer"] == scorer]
    about = [seen_words(rows[0]), passes_words(rows), time_words(rows)]
    name = f"{shown_scorer(scorer, kind)}<br><sub>{' · '.join(filter(None, about))}</sub>"
    means = [_mean_cell(own.mean_in(in_dist, scorer)) for in_dist in own.sets]
    against = [_tally_cell(own.against_likelihood(scorer)) if scorer != LIKELIHOOD else ""]
    against += ["" if kind == "baseline" else _tally_cell(own.against_bar(scorer))]
    return [name, _rank_cell(own.ranks, scorer), *means, *against]


def _rank_cell(ranks: Ranks | None, scorer: str) -> str:
    if not ranks or scorer not in ranks.of:
        return ""
    return f"{ranks.of[scorer]:.1f} {ranks.letters(scorer)}".strip()


def _mean_cell(mean: Mean | None) -> str:
    if mean is None:
        return ""
    worst = mean.worst["auroc"]
    return f"{short(mean.value)}<br><sub>{short(worst)}{chance_mark(worst)}</sub>"


def _tally_cell(found: Tally) -> str:
    return str(found) if found.pairs else ""
