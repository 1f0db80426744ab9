"""The front page of a leaderboard: scorers ranked over all pairs of real images, baselines apart, pages and skips listed."""

from __future__ import annotations

from oodbench.report.tables import (
    HEAD,
    LEGEND,
    Notes,
    best_baseline,
    bits_cell,
    distinct,
    metric_cell,
    scorer_cost,
    slug,
    table,
    trial_of,
)
from oodbench.store import Row


def overview(rows: list[Row], costs: dict[str, float]) -> str:
    """The front page: scorers ranked over all pairs of real images, baselines apart, pages and skips listed."""
    tried = sorted((row for row in rows if row["status"] != "skipped"), key=lambda r: (r["in_dist_name"], r["ood"]))
    single = [row for row in tried if row["group_size"] == 1]
    ranked = [row for row in single if not row["synthetic"]]
    suite = rows[0]["suite"]
    parts = [HEAD, f"# Leaderboard of the suite `{suite}`\n", LEGEND]
    parts.append(_ranking("Scorers", [row for row in ranked if not row["baseline"]], ranked, costs))
    parts.append(_ranking("Model-free baselines", [row for row in ranked if row["baseline"]], ranked, costs))
    pages = [
        [f"[{name}]({slug(name)}.md)", *_summary(tried, name)] for name in distinct(r["in_dist_name"] for r in tried)
    ]
    parts.append("## By in-dist set\n")
    parts.append(table(["page", "in-dist images", "models (bits/dim)", "OOD sets"], pages))
    skips = [row for row in rows if row["status"] == "skipped"]
    if skips:
        parts.append("## Skipped\n")
        parts.append("\n".join(sorted(f"- {_subject(row)}: {row['reason']}" for row in skips)) + "\n")
    parts.append(_provenance(tried))
    return "\n".join(parts)


def _subject(row: Row) -> str:
    who = ", ".join(row[name] for name in ("model", "scorer") if row[name])
    return f"{row['in_dist']} → {row['ood']}" + f" ({who})" * bool(who)


def _summary(rows: list[Row], in_dist: str) -> list[str]:
    own = [row for row in rows if row["in_dist_name"] == in_dist]
    models = {row["model"]: (row["id_bits_per_dim"], row["likelihood"] == "exact") for row in own}
    named = ", ".join(
        f"{model} ({bits_cell(bits)}{', exact' if exact else ', bound'})" for model, (bits, exact) in models.items()
    )
    return [", ".join(distinct(r["in_dist"] for r in own)), named, ", ".join(distinct(r["ood"] for r in own))]


def _ranking(title: str, rows: list[Row], everything: list[Row], costs: dict[str, float]) -> str:
    """Scorers by mean AUROC over the trials of real images; only those with a result in each are ranked."""
    trials = sorted({trial_of(row) for row in everything})
    by_scorer = {
        name: {trial_of(r): r for r in rows if r["scorer"] == name} for name in distinct(r["scorer"] for r in rows)
    }
    mixed = len(trials) != len({(r["model"], r["in_dist_name"], r["ood"].split("[")[0]) for r in everything})
    notes, complete, partial = Notes(), [], []
    for name, own in by_scorer.items():
        found = [own[t]["auroc"] for t in trials if t in own and own[t]["status"] == "ok"]
        cells = [metric_cell(own.get(t), "auroc", notes, best_baseline(everything, t)) for t in trials]
        cost = scorer_cost(list(own.values()), costs)
        if len(found) == len(trials) and not mixed:
            complete.append((sum(found) / len(found), min(found), name, cells, cost))
        else:
            why = "its rows are of unlike image sets" if mixed else f"{len(found)} of {len(trials)} pairs have a result"
            partial.append([f"not ranked{notes.mark(f'{name}: {why}')}", name, "", "", *cells, *cost])
    complete.sort(key=lambda entry: (-entry[0], entry[2]))
    lines = [
        [str(n), name, f"{mean:.3f}", f"{low:.3f}", *cells, *cost]
        for n, (mean, low, name, cells, cost) in enumerate(complete, 1)
    ]
    heads = [
        "rank",
        "scorer",
        "mean",
        "lowest",
        *(f"{model}: {i} → {o}" for model, i, o in trials),
        "passes",
        "ms/image",
    ]
    return f"## {title}\n\n" + table(heads, lines + partial) + notes.text()


def _provenance(rows: list[Row]) -> str:
    if not rows:
        return ""
    versions = distinct(", ".join(f"{k} {v}" for k, v in sorted(r["provenance"]["versions"].items())) for r in rows)
    devices = distinct(f"{r['provenance']['device']} ({r['provenance']['machine']})" for r in rows)
    return f"Measured with {'; '.join(versions)} on {', '.join(devices)}. Hashes of weights and images stand in each row.\n"
