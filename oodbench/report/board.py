"""``leaderboard.html``: every trial of a suite in one self-contained page that sorts, filters and shows what a cell is made of.

The page holds its rows as JSON: a list a trial, texts by their place in one table of texts, so that thousands of trials stay
small. Its script and its style stand beside this file and are written into the page; nothing is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from oodbench.report.again import command_of
from oodbench.report.comparison import lead
from oodbench.report.made import shipped
from oodbench.report.order import pair_key
from oodbench.report.results import Results
from oodbench.report.tables import HEAD, seen_sentence, trial_of
from oodbench.store import STANDINGS, Row, is_bar, standing
from oodbench.trials.curves import DECIMALS

BOARD = "leaderboard.html"
FIELDS = (
    "id", "model", "family", "in_dist", "ood", "scorer", "standing", "likelihood", "tunes", "group", "seed", "auroc", "low",
    "high", "bar", "bar_scorer", "ms", "device", "passes", "marks", "metrics", "roc", "inside", "provenance", "command", "note",
)  # fmt: skip
"""Of a trial in the page, in this order."""
TEXTS = (
    "model", "family", "in_dist", "ood", "scorer", "standing", "likelihood", "tunes", "bar_scorer", "device", "provenance",
    "command", "note",
)  # fmt: skip
"""Fields that are places in the table of texts."""
METRICS = {
    "auroc": "AUROC",
    "aupr_ood": "AUPR, OOD positive",
    "aupr_in": "AUPR, in-dist positive",
    "fpr95_ood": "FPR@95, OOD positive",
    "fpr80_ood": "FPR@80, OOD positive",
    "fpr95_in": "FPR@95, in-dist positive",
    "fpr80_in": "FPR@80, in-dist positive",
    "flagged_ood": "OOD flagged at 1 % of in-dist",
    "flagged_in": "in-dist flagged by the same test",
}
CHANCE, BELOW_BAR, SEEN, BEST, AS_GOOD, SYNTHETIC = (1 << place for place in range(6))
"""Marks of a trial, summed."""
RATES = (1 - np.cos(np.linspace(0, np.pi, 49))) / 2
"""Shares of in-dist images flagged at which the page draws a ROC curve: closer at both ends, where curves are steep."""
PARTS = 20
"""Bars of the histogram: OOD images by the twentieth of in-dist images among which they lie."""


def board_page(results: Results) -> str:
    """The page, a pure function of the stored rows and curves."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    here = Path(__file__).parent
    script, style = (
        Markup(here.joinpath(f"board.{kind}").read_text("utf-8")) for kind in ("js", "css")
    )
    data = Markup(_as_script(board_data(results)))
    return environment.get_template("board.html.j2").render(
        head=Markup(HEAD), suite=results.suite, data=data, script=script, style=style
    )


def _as_script(data: Any) -> str:
    """JSON that may stand inside a script element, whatever names and reasons hold."""
    shown = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return shown.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def board_data(results: Results) -> dict[str, Any]:
    """What the page holds: names of fields, texts, and a list for each trial, the paper's pairs first."""
    trials: dict[tuple[str, str, str, int], list[Row]] = {}
    for row in sorted(results.tried, key=_place):
        trials.setdefault(trial_of(row), []).append(row)
    ahead = _ahead(results)
    curves = {row["key"]: row for row in results.curves if row["kind"] == "roc"}
    texts: dict[str, int] = {}
    lines = []
    for rows in trials.values():
        for row in rows:
            told = _told(row, rows, ahead, curves.get(row["key"]))
            told |= {name: texts.setdefault(told[name], len(texts)) for name in TEXTS}
            lines.append([told[name] for name in FIELDS])
    return {
        "suite": results.suite,
        "fields": FIELDS,
        "texts": list(texts),
        "metrics": list(METRICS.values()),
        "standings": STANDINGS,
        "rates": RATES.round(DECIMALS).tolist(),
        "rows": lines,
    }


def _place(row: Row) -> tuple[Any, ...]:
    """Pairs in the order of pages; within one the single images first, the best first."""
    kinds = row["synthetic"], *pair_key(row), row["seed"], row["group_size"]
    return *kinds, STANDINGS.index(standing(row)), -row.get("auroc", -1.0), row["scorer"]


def _ahead(results: Results) -> dict[tuple[str, str, str, int], tuple[str, list[str]]]:
    """Trial → the best scorer with a model and those that the paired test does not tell from it."""
    found = {trial_of({"seed": 0, **row}): lead(row) for row in results.comparisons}
    return {trial: (one.best, one.as_good) for trial, one in found.items() if one}


def _told(row: Row, rows: Sequence[Row], ahead: dict[Any, Any], curve: Row | None) -> Row:
    """One trial as the page holds it."""
    bar = _bar(row, rows)
    sound = row["status"] == "ok"
    return {
        "id": row["key"][:12],
        "model": row["model"],
        "family": _family(row["model"]),
        "in_dist": row["in_dist"],
        "ood": row["ood"],
        "scorer": row["scorer"],
        "standing": standing(row),
        "likelihood": row["likelihood"],
        "tunes": row["tunes_on"],
        "group": row["group_size"],
        "seed": row["seed"],
        **{end: _rounded(row.get(f"auroc{one}")) for end, one in ENDS.items()},
        "bar": _rounded(bar["auroc"]) if bar else None,
        "bar_scorer": bar["scorer"] if bar else "",
        **_cost(row),
        "passes": sum(" of " in name for name in row["passes"]),
        "marks": _marks(row, bar, ahead.get(trial_of(row))) if sound else 0,
        "metrics": [_metric(row, name) for name in METRICS] if sound else [],
        "roc": _roc(curve) if curve else [],
        "inside": _inside(curve) if curve else [],
        "provenance": _provenance(row),
        "command": command_of(row),
        "note": _note(row),
    }


ENDS = {"auroc": "", "low": "_low", "high": "_high"}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)


def _metric(row: Row, name: str) -> list[float | None]:
    """A metric with its interval; nothing of one that the row lacks."""
    if row.get(name) is None:
        return []
    return [_rounded(row.get(f"{name}{end}")) for end in ENDS.values()]


def _family(model: str) -> str:
    card = shipped(model)
    return card.family if card else "a model of one's own"


def _bar(row: Row, rows: Iterable[Row]) -> Row | None:
    """The best baseline on single images of the same trial that sees no more data than the row's scorer."""
    known = [
        one for one in rows if one["status"] == "ok" and one["group_size"] == 1 and is_bar(one, row)
    ]
    judged = row["group_size"] == 1
    return max(known, key=lambda one: float(one["auroc"]), default=None) if judged else None


def _cost(row: Row) -> Row:
    """Milliseconds an image of all passes, and the device; None where one of them is not known."""
    cost = row.get("cost") or {}
    if not row["passes"] or not set(row["passes"]) <= cost.keys():
        return {"ms": None, "device": ""}
    own = [cost[name] for name in row["passes"]]
    devices = " + ".join(sorted({one["device"] for one in own}))
    return {"ms": round(sum(one["ms_per_image"] for one in own), 3), "device": devices}


def _marks(row: Row, bar: Row | None, ahead: tuple[str, list[str]] | None) -> int:
    single = row["group_size"] == 1 and ahead is not None
    best, as_good = ahead if single and ahead else ("", [])
    held = {
        CHANCE: row["auroc"] < 0.5,
        BELOW_BAR: bar is not None and row["auroc"] <= bar["auroc"],
        SEEN: bool(row.get("seen")),
        BEST: row["scorer"] == best,
        AS_GOOD: row["scorer"] in as_good,
        SYNTHETIC: bool(row["synthetic"]),
    }
    return sum(mark for mark, is_held in held.items() if is_held)


def _roc(curve: Row) -> list[int]:
    """Shares of OOD images caught at :data:`RATES`, in thousandths."""
    caught = np.interp(RATES, curve["flagged"], curve["caught"])
    return [round(1000 * float(one)) for one in caught]


def _inside(curve: Row) -> list[int]:
    """OOD images, in thousandths of all, by the twentieth of in-dist images (from the least OOD) among which their score lies."""
    edges = np.linspace(0, 1, PARTS + 1)
    caught = np.interp(edges, curve["flagged"], curve["caught"])
    caught[0] = (
        0.0  # of in-dist images' own twentieth: those above all of them belong to the last one
    )
    return [round(1000 * float(one)) for one in np.diff(caught)[::-1]]


def _provenance(row: Row) -> str:
    """What the row was computed from and with, as the row says it."""
    told = {name: row[name] for name in ("inputs", "provenance") if row.get(name)}
    told |= {"schema": row["schema"], "training_seed": row.get("training_seed")}
    return json.dumps(told, sort_keys=True, ensure_ascii=False)


def _note(row: Row) -> str:
    if row["status"] == "failed":
        return f"FAILED: {row['reason']}"
    return seen_sentence(row) if row.get("seen") else ""
