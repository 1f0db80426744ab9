"""Which rows belong in a mean over pairs."""

from __future__ import annotations

from oodbench.data.corruptions import rung
from oodbench.store import Row


def is_counted(row: Row) -> bool:
    """Whether a row judges single, real images: no groups, no noise or constants, no rung of a ladder of corruptions."""
    return row["group_size"] == 1 and not row["synthetic"] and rung(row["ood"]) is None
