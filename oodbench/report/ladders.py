"""Ladders of corruptions: AUROC against strength, as tables and as one figure a scorer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from oodbench.data.corruptions import STRENGTHS, rung
from oodbench.report.illustrations import Illustration
from oodbench.report.results import Results
from oodbench.report.tables import chance_mark, distinct, table, text, without_view
from oodbench.store import Row

LADDERS = """\
AUROC against the same images, corrupted in strengths 1 to 5 ({seen}); ▼ worse than chance. No mean over pairs contains them.
"""
Rungs = Mapping[int, Row]
"""Strength → its row."""


def on_ladders(rows: Iterable[Row]) -> list[Row]:
    """The sound rows on single images whose OOD set is a corrupted one."""
    return [
        row
        for row in rows
        if row["status"] == "ok" and row["group_size"] == 1 and rung(row["ood"]) is not None
    ]


def by_kind(rows: Iterable[Row]) -> dict[str, dict[int, Row]]:
    """Kind of corruption → strength → row, of one scorer and one subject."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        kind, strength = rung(row["ood"]) or ("", 0)
        found.setdefault(kind, {})[strength] = row
    return dict(sorted(found.items()))


def ladder_table(rows: Iterable[Row]) -> str:
    """A line for each scorer of one subject, a column for each kind of corruption; empty where there are none."""
    found = on_ladders(rows)
    if not found:
        return ""
    kinds = list(by_kind(found))
    scorers = sorted({(row["baseline"], row["scorer"]) for row in found})
    lines = [_line(found, kinds, *one) for one in scorers]
    seen = ", ".join(map(text, distinct(without_view(row["ood"]) for row in found)))
    return f"\n{LADDERS.format(seen=seen)}\n{table(['scorer', *kinds], lines)}"


def _line(rows: list[Row], kinds: list[str], baseline: bool, scorer: str) -> list[str]:
    own = by_kind(row for row in rows if row["scorer"] == scorer)
    shown = f"*{text(scorer)}* (model-free)" if baseline else text(scorer)
    return [shown, *(_cell(own.get(kind, {})) for kind in kinds)]


def _cell(rungs: Rungs) -> str:
    """The AUROCs of the strengths, weakest first."""
    return " ".join(_auroc(rungs.get(strength)) for strength in STRENGTHS) if rungs else ""


def _auroc(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{row['auroc']:.2f}".replace("0.", ".") + chance_mark(row["auroc"]).strip()


def ladder_figures(results: Results) -> Iterator[Illustration]:
    """One figure a scorer: a panel for each subject, a line for each kind of corruption."""
    found = on_ladders(results.tried)
    for scorer in sorted({row["scorer"] for row in found}):
        own = [_drawn(results, row) for row in found if row["scorer"] == scorer]
        caption = (
            f"AUROC of {text(scorer)} against the strength of a corruption of the in-dist test images, a line for each kind; "
            "below one half the corrupted images are taken for more in-dist than the originals."
        )
        yield Illustration("corruptions", scorer, caption, own)


def ladder_section(illustrations: Iterable[Illustration]) -> list[str]:
    """The figures of ladders, one a scorer, each with its caption; nothing where there are none."""
    own = [one for one in illustrations if one.kind == "corruptions"]
    if not own:
        return []
    shown = [f"![{one.label}]({one.file})\n\n{one.caption}\n" for one in own]
    return ["## Ladders of corruptions\n", *shown]


def _drawn(results: Results, row: Row) -> Row:
    """What the figure draws of a row."""
    kind, strength = rung(row["ood"]) or ("", 0)
    return {
        "panel": results.label(row),
        "corruption": kind,
        "strength": strength,
        "auroc": row["auroc"],
    }
