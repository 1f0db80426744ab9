"""How far AUROCs of other seeds lie apart, beside the interval over images."""

from __future__ import annotations

from collections.abc import Iterable

from oodbench.report.results import Results
from oodbench.report.tables import auroc_text, pair_text, shown_scorer, table, text
from oodbench.store import Row, standing
from oodbench.trials.counted import is_counted

WORDS = """\
## Between seeds

A seed draws dequantisation noise, groups, thresholds and the bootstrap, and `ref` of the held-out pool where that holds more
(where it holds no more, `ref` is all of it by every seed: ◦); test and OOD images are the same ones. *apart*: the
largest AUROC less the smallest over the seeds. *interval*: the width of the 95 % interval over images, of the smallest seed.
Scorers that read nothing drawn have 0.
"""
Cell = tuple[str, str, str, str]


def seeds_section(results: Results) -> list[str]:
    """The table of AUROCs on single images by seed; nothing where a folder has one seed."""
    several = {cell: rows for cell, rows in _by_cell(results.tried).items() if len(rows) > 1}
    if not several:
        return []
    seeds = sorted({row["seed"] for rows in several.values() for row in rows})
    heads = ["model", "pair", "scorer", *(f"seed {seed}" for seed in seeds), "apart", "interval"]
    return [WORDS, table(heads, [_line(several[cell], seeds) for cell in sorted(several)])]


def _by_cell(rows: Iterable[Row]) -> dict[Cell, list[Row]]:
    """Sound rows of single real images by model, pair and scorer, in the order of their seeds."""
    found: dict[Cell, list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        if row["status"] == "ok" and is_counted(row):
            cell = row["model"], row["in_dist"], row["ood"], row["scorer"]
            found.setdefault(cell, []).append(row)
    return found


def _line(rows: list[Row], seeds: list[int]) -> list[str]:
    first, by_seed = rows[0], {row["seed"]: auroc_text(row) for row in rows}
    whole = " ◦" * (len({row.get("ref") for row in rows}) == 1 and first.get("ref") is not None)
    scorer = shown_scorer(first["scorer"], standing(first)) + whole
    names = [text(first["model"]), pair_text(first), scorer]
    aurocs = [row["auroc"] for row in rows]
    known = first["auroc_low"] is not None
    width = f"{first['auroc_high'] - first['auroc_low']:.3f}" if known else "–"
    shown = [by_seed.get(seed, "") for seed in seeds]
    return [*names, *shown, f"{max(aurocs) - min(aurocs):.3f}", width]
