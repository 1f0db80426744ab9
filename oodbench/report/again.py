"""The command that makes one cell of a leaderboard again, from an empty folder."""

from __future__ import annotations

import re
from functools import cache

from oodbench.report.tables import set_name
from oodbench.store import Row
from oodbench.suite import Suite, load_suite, named, suite_names

DRAWN = re.compile(r"\[(\d+) drawn\]")


def command_of(row: Row) -> str:
    """What to type, in any folder, for the cell of one row: a run of the suite for this model, OOD set and scorer alone.

    A model or pair that no shipped suite of the row's name has is run without a suite.
    """
    suite = _shipped(row["suite"])
    if suite is None or row["model"] not in _models(suite):
        return f"{_without_suite(row)}{_settings(row, None)}"
    only = [row["model"], row.get("ood_name") or set_name(row["ood"]), row["scorer"]]
    named_ones = " ".join(f"--only {_quoted(name)}" for name in only)
    return f"oodbench run --suite {suite.name} {named_ones}{_settings(row, suite)}"


def shown_command(row: Row) -> str:
    """The command of a cell as code on one line."""
    command = " ".join(command_of(row).split())
    return f"`` {command} ``" if "`" in command else f"`{command}`"


def _without_suite(row: Row) -> str:
    sets = [set_name(row[side]) for side in ("in_dist", "ood")]
    shown = [row["model"], *sets, row["scorer"]]
    model, in_dist, ood, scorer = map(_quoted, shown)
    return f"oodbench run --model {model} --in-dist {in_dist} --ood {ood} --scorer {scorer}"


def _settings(row: Row, suite: Suite | None) -> str:
    """Limit and seed, where they are not the suite's own."""
    drawn = {int(n) for side in ("in_dist", "ood") for n in DRAWN.findall(row[side])}
    limit, seed = (suite.limit, suite.seed) if suite else (None, 0)
    shown = [f" --limit {n}" for n in sorted(drawn) if n != limit]
    return "".join(shown[:1]) + f" --seed {row['seed']}" * (row["seed"] != seed)


def _quoted(name: str) -> str:
    """A name as one word of a shell."""
    return name if re.fullmatch(r"[\w@%+=:,./-]+", name) else "'" + name.replace("'", "'\\''") + "'"


@cache
def _shipped(name: str) -> Suite | None:
    return load_suite(name) if name in suite_names() else None


def _models(suite: Suite) -> set[str]:
    return {shown or reference for shown, reference in map(named, suite.models)}
