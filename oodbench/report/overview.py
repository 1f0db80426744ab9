"""The front page of a leaderboard: each model's scorers ranked, baselines apart, pages and skips listed."""

from __future__ import annotations

from typing import NamedTuple

from oodbench.report.tables import (
    HEAD,
    LEGEND,
    TAKES,
    Notes,
    best_baseline,
    bits_cell,
    distinct,
    metric_cell,
    scorer_takes,
    skip_lines,
    slug,
    table,
    trial_of,
)
from oodbench.store import Row

RANKING = """\
Ranks are by mean AUROC over a model's pairs of real images, single images judged one by one. M1, M2, …: model-free baselines,
ranked apart. `passes`: walks of a model over the images that a scorer needs; those that scorers share are made once. `tunes on`:
what it looks at beside the test images.
"""


def overview(rows: list[Row], costs: dict[str, float]) -> str:
    """The front page: for each model its scorers ranked over pairs of real images; pages and skips listed.

    Scorers are ranked within one model, since a bound and an exact likelihood, or two in-dist sets, are not alike.
    """
    tried = sorted((row for row in rows if row["status"] != "skipped"), key=lambda r: (r["in_dist_name"], r["ood"]))
    skips = [row for row in rows if row["status"] == "skipped"]
    notes = Notes()
    parts = [HEAD, f"# Leaderboard of the suite `{rows[0]['suite']}`\n", LEGEND, RANKING]
    for model in distinct(row["model"] for row in tried):
        parts.append(_ranking([row for row in tried if row["model"] == model], skips, costs, notes))
    pages = [
        [f"[{name}]({slug(name)}.md)", *_summary(tried, name)] for name in distinct(r["in_dist_name"] for r in tried)
    ]
    parts.append("## Everything else, by in-dist set\n")
    parts.append(table(["page", "in-dist images", "models (bits/dim)", "OOD sets"], pages))
    if skips:
        parts.append("## Skipped\n")
        lines = skip_lines(sorted((row["in_dist"], row["ood"], row["reason"]) for row in skips))
        parts.append("\n".join(sorted(f"- {line}" for line in lines)) + "\n")
    parts.append(_provenance(tried))
    return "\n".join(parts) + notes.text()


def _summary(rows: list[Row], in_dist: str) -> list[str]:
    own = [row for row in rows if row["in_dist_name"] == in_dist]
    models = {row["model"]: (row["id_bits_per_dim"], row["likelihood"] == "exact") for row in own}
    named = ", ".join(
        f"{model} ({bits_cell(bits)}{', exact' if exact else ', bound'})" for model, (bits, exact) in models.items()
    )
    return [", ".join(distinct(r["in_dist"] for r in own)), named, ", ".join(distinct(r["ood"] for r in own))]


def _ranking(rows: list[Row], skips: list[Row], costs: dict[str, float], notes: Notes) -> str:
    """One model's scorers by mean AUROC over its pairs of real images; only those with a result on each are ranked."""
    model, row = rows[0]["model"], rows[0]
    alike = [r for r in rows if r["group_size"] == 1 and not r["synthetic"]]
    trials = sorted({trial_of(r) for r in alike})
    mixed = len(trials) != len({r["ood"].split("[")[0] for r in alike})
    why = {r["scorer"]: r["reason"] for r in skips if r["model"] == model and r["scorer"]}
    lines: list[list[str]] = []
    for baseline in (False, True):
        places = [_place(name, alike, trials, costs, notes) for name in _names(alike, baseline)]
        sound = sorted((p for p in places if p.mean is not None and not mixed), key=lambda p: (-(p.mean or 0), p.name))
        for rank, place in enumerate(sound, 1):
            lines.append([f"M{rank}" if baseline else str(rank), *place.cells(baseline)])
        for place in (p for p in places if p not in sound):
            reason = (
                "its rows are of unlike image sets" if mixed else f"{place.found} of {len(trials)} pairs have a result"
            )
            lines.append([f"not ranked{notes.mark(f'{place.name}: {reason}')}", *place.cells(baseline)])
    heads = [
        "rank",
        "scorer",
        "mean",
        "lowest",
        *(f"{in_dist} → {ood}" for _, in_dist, ood in trials),
        *TAKES,
    ]
    kind = "exact" if row["likelihood"] == "exact" else f"a bound: {row['likelihood']}"
    fit = f"{bits_cell(row['id_bits_per_dim'])} bits/dim on {row['in_dist']}"
    lacking = "; ".join(f"{name} ({reason})" for name, reason in sorted(why.items()))
    end = f"\nNot measured, and not ranked: {lacking}.\n" if lacking else ""
    return f"## {model}\n\nlog p(x) is {kind}; {fit}.\n\n" + table(heads, lines) + end


def _names(rows: list[Row], baseline: bool) -> list[str]:
    return distinct(sorted(row["scorer"] for row in rows if row["baseline"] is baseline))


class _Place(NamedTuple):
    """A scorer's line in a ranking; ``mean`` is None where a pair has no result."""

    name: str
    mean: float | None
    lowest: float | None
    found: int
    results: list[str]
    takes: list[str]

    def cells(self, baseline: bool) -> list[str]:
        shown = [f"*{self.name}* (model-free)" if baseline else self.name]
        shown += ["" if value is None else f"{value:.3f}" for value in (self.mean, self.lowest)]
        return [*shown, *self.results, *self.takes]


def _place(
    name: str, rows: list[Row], trials: list[tuple[str, str, str]], costs: dict[str, float], notes: Notes
) -> _Place:
    own = {trial_of(row): row for row in rows if row["scorer"] == name}
    found = [row["auroc"] for row in own.values() if row["status"] == "ok"]
    full = len(found) == len(trials)
    results = [metric_cell(own.get(trial), "auroc", notes, best_baseline(rows, trial)) for trial in trials]
    mean, lowest = (sum(found) / len(found), min(found)) if full else (None, None)
    return _Place(name, mean, lowest, len(found), results, scorer_takes(list(own.values()), costs))


def _provenance(rows: list[Row]) -> str:
    if not rows:
        return ""
    versions = distinct(", ".join(f"{k} {v}" for k, v in sorted(r["provenance"]["versions"].items())) for r in rows)
    devices = distinct(f"{r['provenance']['device']} ({r['provenance']['machine']})" for r in rows)
    return f"Measured with {'; '.join(versions)} on {', '.join(devices)}. Hashes of weights and images stand in each row.\n"
