"""The page of one in-dist set: every metric of every scorer, model by model."""

from __future__ import annotations

from oodbench.report.gallery import gallery
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
    table,
    trial_of,
)
from oodbench.store import Row

METRIC_TITLES = {
    "auroc": "AUROC",
    "aupr_ood": "AUPR, OOD positive",
    "aupr_in": "AUPR, in-dist positive",
    "fpr95_ood": "FPR@95, OOD positive: in-dist images flagged when 95 % of OOD is caught",
    "fpr80_ood": "FPR@80, OOD positive",
    "fpr95_in": "FPR@95, in-dist positive: OOD images accepted when 95 % of in-dist is accepted",
    "fpr80_in": "FPR@80, in-dist positive",
    "flagged_ood": "OOD flagged by a test that 1 % of in-dist groups should fail (threshold from bootstrap groups of `ref`)",
    "flagged_in": "In-dist flagged by the same test: 0.01 where it holds its size",
}


def in_dist_page(in_dist: str, rows: list[Row], costs: dict[str, float]) -> str:
    """All results of one in-dist set: for each model a table of each metric, groups apart, costs and skips."""
    parts = [HEAD, f"# In-dist: {in_dist}\n", LEGEND]
    notes = Notes()
    tried = [row for row in rows if row["status"] != "skipped"]
    for model in distinct(sorted(row["model"] for row in tried)):
        own = [row for row in tried if row["model"] == model]
        skips = [row for row in rows if row["status"] == "skipped" and row["model"] == model]
        parts += _model_section(model, own, skips, costs, notes)
    return "\n".join(parts) + notes.text()


def _model_section(model: str, rows: list[Row], skips: list[Row], costs: dict[str, float], notes: Notes) -> list[str]:
    pairs = sorted({(row["in_dist"], row["ood"]) for row in rows})
    first = {pair: next(row for row in rows if (row["in_dist"], row["ood"]) == pair) for pair in pairs}
    likelihood = first[pairs[0]]["likelihood"]
    bound = "" if likelihood == "exact" else f" (a bound: {likelihood})"
    parts = [f"## {model}\n", f"log p(x): {'exact' if not bound else 'not exact'}{bound}; seed {rows[0]['seed']}.\n"]
    lines = []
    for (in_dist, ood), row in first.items():
        fit = [bits_cell(row[f"{kind}_bits_per_dim"]) for kind in ("id", "ood")]
        sizes = _sizes(rows, (in_dist, ood))
        lines.append([in_dist, ood + _shared(row, notes), *sizes, *fit])
    heads = ["in-dist set", "OOD set", "images", "OOD base rate", "in-dist bits/dim", "OOD bits/dim"]
    parts.append(table(heads, lines))
    links = _figure_links(rows)
    parts += [f"Figures: {links}.\n"] if links else []
    for metric, title in METRIC_TITLES.items():
        having = [row for row in rows if row["status"] == "failed" or metric in row]
        if having:
            parts.append(f"### {title}\n")
            parts.append(_metric_table(having, skips, pairs, metric, notes))
    parts.append("### Cost\n")
    lines = [
        [name, *scorer_takes([r for r in rows if r["scorer"] == name], costs)]
        for name in distinct(sorted(r["scorer"] for r in rows))
    ]
    parts.append(table(["scorer", *TAKES], lines))
    return parts


def _sizes(rows: list[Row], pair: tuple[str, str]) -> list[str]:
    single = [r for r in rows if (r["in_dist"], r["ood"]) == pair and r["status"] == "ok" and r["group_size"] == 1]
    return [f"{single[0]['n_in']:,} / {single[0]['n_ood']:,}", f"{single[0]['base_rate']:.3f}"] if single else ["", ""]


def _shared(row: Row, notes: Notes) -> str:
    if not row["shared_images"]:
        return ""
    return notes.mark(f"{row['shared_images']} images of {row['in_dist']} occur, pixel by pixel, in {row['ood']} too")


def _figure_links(rows: list[Row]) -> str:
    return ", ".join(f"[{one.kind}]({one.stem}.png)" for one in gallery(rows, []))


def _metric_table(rows: list[Row], skips: list[Row], pairs: list[tuple[str, str]], metric: str, notes: Notes) -> str:
    found = {(row["scorer"], row["group_size"], row["in_dist"], row["ood"]): row for row in rows}
    why = {row["scorer"]: row["reason"] for row in skips} if metric == "auroc" else {}  # once is enough
    kinds = {(row["baseline"], row["scorer"], row["group_size"]) for row in rows} | {
        (False, name, 1) for name in why if name
    }
    lines = _constant_score(rows, pairs, metric)
    for baseline, scorer, size in sorted(kinds):
        name = f"*{scorer}* (model-free)" if baseline else scorer
        cells = []
        for in_dist, ood in pairs:
            row = found.get((scorer, size, in_dist, ood))
            best = None if baseline or size > 1 or row is None else best_baseline(rows, trial_of(row))
            cells.append(
                metric_cell(row, metric, notes, best) if row else notes.mark(why[scorer]) if scorer in why else ""
            )
        lines.append([name, "single" if size == 1 else f"groups of {size}", *cells])
    return table(["scorer", "judged", *(ood for _, ood in pairs)], lines)


def _constant_score(rows: list[Row], pairs: list[tuple[str, str]], metric: str) -> list[list[str]]:
    """The line of an AUPR table that says what a constant score would get: the base rate of the positive class."""
    if not metric.startswith("aupr"):
        return []
    cells = []
    for pair in pairs:
        rate = next((r["base_rate"] for r in rows if (r["in_dist"], r["ood"]) == pair and r["status"] == "ok"), None)
        cells.append("" if rate is None else f"{rate if metric == 'aupr_ood' else 1 - rate:.3f}")
    return [["*a constant score* (base rate)", "single", *cells]]
