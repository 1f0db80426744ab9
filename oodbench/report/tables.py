"""Cells, footnotes and tables in markdown."""

from __future__ import annotations

import re

from tabulate import tabulate

from oodbench.store import Row


class Notes:
    """Footnotes of a page, numbered in order of use; the same text has one number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, text: str) -> str:
        """The mark that stands for a footnote."""
        return f"[^{self._numbers.setdefault(text, len(self._numbers) + 1)}]"

    def text(self) -> str:
        """All footnotes."""
        return "".join(f"\n[^{number}]: {text}" for text, number in self._numbers.items()) + "\n" * bool(self._numbers)


def table(heads: list[str], lines: list[list[str]]) -> str:
    """A pipe table; cells are text and stay as they are."""
    return tabulate(lines, heads, tablefmt="pipe", disable_numparse=True) + "\n"


def metric_cell(row: Row | None, metric: str, notes: Notes, best_baseline: float | None = None) -> str:
    """``value [low, high]`` with its marks; FAILED with a footnote; blank where there is no row."""
    if row is None:
        return ""
    if row["status"] == "failed":
        return f"FAILED{notes.mark(row['reason'])}"
    value, low, high = (row[f"{metric}{end}"] for end in ("", "_low", "_high"))
    cell = f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else " (too few for an interval)")
    if metric != "auroc":
        return cell
    worse = " ▼" if value < 0.5 else ""
    plain = " ‡" if best_baseline is not None and not row["baseline"] and value <= best_baseline else ""
    return cell + worse + plain


def slug(name: str) -> str:
    """A name as a file name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-")
