"""A results folder as tables of pandas: a line a trial, or a column a scorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from oodbench.errors import StoreError, did_you_mean
from oodbench.report.results import read_results
from oodbench.store import SEALS, Row

if TYPE_CHECKING:
    import pandas as pd

PAIR = ["model", "in_dist", "ood", "seed", "group_size"]
"""What a line of the wide form is of; groups are never in one line with single images."""


def results(
    folder: str | Path, form: Literal["long", "wide"] = "long", metric: str = "auroc", group_size: int | None = None
) -> pd.DataFrame:  # fmt: skip
    """The rows of a results folder as a DataFrame.

    Parameters
    ----------
    folder : results folder of a run
    form : ``long``, a line a trial with every field of its row, nested ones as ``inputs.images.ood``; or ``wide``, a line a
        model, pair, seed and group size, a column a scorer, with the values of one metric
    metric : of the wide form, such as ``auroc``, ``aupr_ood`` or ``auroc_low``
    group_size : trials of this size alone; 1 for single images

    Returns
    -------
    in the wide form NaN where a trial failed or was not made; never zero. Fields and units are those of docs/rows.md

    Raises
    ------
    StoreError : no rows, or a metric or a group size that none has
    """
    import pandas as pd

    rows = tried(Path(folder), group_size)
    if form == "wide":
        known = sorted({name for row in rows for name, value in row.items() if _is_number(value)})
        if metric not in known:
            raise StoreError(
                f"{folder}: no row has a number {metric!r}{did_you_mean(metric, known)}"
            )
        lines = [
            {**{name: row[name] for name in [*PAIR, "scorer"]}, metric: row.get(metric)}
            for row in rows
        ]
        made = pd.DataFrame(lines).astype({metric: "float64"})
        return made.pivot(index=PAIR, columns="scorer", values=metric)
    if form != "long":
        raise StoreError(f"the form {form!r} is unknown; write 'long' or 'wide'")
    return pd.json_normalize([_without_seals(row) for row in rows])


def tried(folder: Path, group_size: int | None = None) -> list[Row]:
    """The rows of trials that were made, of one group size where it is given."""
    rows = read_results(folder).tried
    own = [row for row in rows if group_size in (None, row["group_size"])]
    if not own:
        sizes = sorted({row["group_size"] for row in rows})
        raise StoreError(
            f"{folder} has no rows of group size {group_size}; it has {_listed(sizes)}"
        )
    return own


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values)) or "none"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _without_seals(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in SEALS}
