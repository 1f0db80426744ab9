"""Point metrics computed again from stored scores: what a row says must be what its scores give."""

from __future__ import annotations

import math
from pathlib import Path

from oodbench.errors import StoreError
from oodbench.foreign import parsing
from oodbench.metrics import detection_metrics
from oodbench.store import Row, read_rows
from oodbench.trials.scores import read_scores

CLOSE = 1e-12


def score_faults(folder: Path) -> list[str]:
    """Sentences on rows whose scores are missing or give other point metrics; none where all is in order."""
    rows = [row for row in read_rows(folder / "rows.jsonl") if row.get("scores")]
    if not rows:
        return [f"{folder} has no rows with scores; rows of schemas before 3 have none"]
    with parsing(folder / "rows.jsonl", StoreError, "rows", "run the suite again"):
        faults = [_fault(folder, row) for row in rows]
    return [fault for fault in faults if fault]


def _fault(folder: Path, row: Row) -> str | None:
    try:
        found = detection_metrics(*read_scores(folder, row), replicates=0)
    except StoreError as error:
        return str(error)
    wrong = [
        name for name, one in found.items() if not math.isclose(one.value, row[name], abs_tol=CLOSE)
    ]
    if not wrong:
        return None
    name = wrong[0]
    return (
        f"{row['scorer']} with {row['model']}, {row['in_dist']} → {row['ood']}: the row says {name} {row[name]}, its scores "
        f"give {found[name].value}; run the suite again"
    )
