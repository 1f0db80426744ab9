"""Published numbers beside ours, with a verdict by a stated rule."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from oodbench.paths import PACKAGE
from oodbench.report.story import Section
from oodbench.report.tables import HEAD, table
from oodbench.store import Row

TOLERANCE = {"auroc": 0.05, "flagged_ood": 0.05, "id_bits_per_dim": 0.1, "ood_bits_per_dim": 0.1}
RULE = """\
**Agrees**: a published value within our 95 % interval widened by 0.05 of AUROC or rate (0.1 bits/dim) and by twice the published
standard deviation; a published inequality that all of our interval obeys. **Differs**: any other; *same side* where both lie
on one side of chance. **Not comparable**: for the reason given. **n**: our in-dist and OOD images, or groups of them. Values read
as `remembered` are hints and not checked against a source. Ours stays ours where it disagrees.
"""
HEADS = [
    "paper",
    "where",
    "model",
    "pair",
    "scorer",
    "metric",
    "published",
    "read",
    "ours",
    "n",
    "verdict",
    "known differences",
]
VERDICT = HEADS.index("verdict")


class Claim(BaseModel):
    """One published number; ``claims.yaml`` says what each field means."""

    model_config = ConfigDict(extra="forbid")

    paper: str
    where: str
    model: str
    ours: str
    in_dist: str
    ood: str
    scorer: str
    metric: str
    read: str
    value: float | None = None
    spread: float = 0.0
    below: float | None = None
    above: float | None = None
    group_size: int = 1
    differs_by: str = ""
    not_comparable: str = ""

    @property
    def published(self) -> str:
        """The number with its spread, or the inequality."""
        if self.value is None:
            return f"< {self.below}" if self.below is not None else f"> {self.above}"
        return f"{self.value:g}" + f" ({self.spread:g})" * bool(self.spread)


@cache
def claims() -> list[Claim]:
    """All published numbers that we know."""
    entries = yaml.safe_load((PACKAGE / "report" / "claims.yaml").read_text("utf-8"))
    return TypeAdapter(list[Claim]).validate_python(entries)


def reproduction(rows: Iterable[Row]) -> Section | None:
    """The table of published numbers on models and scorers that the rows have; None where there are none."""
    tried = list(rows)
    models, scorers = {row.get("model") for row in tried}, {row.get("scorer") for row in tried}
    known = [claim for claim in claims() if claim.ours in models and claim.scorer in scorers]
    lines = [_line(claim, _ours(claim, tried)) for claim in known]
    if not lines:
        return None
    counted = [
        f"{sum(line[VERDICT].startswith(word) for line in lines)} {word}"
        for word in ("agrees", "differs", "not comparable")
    ]
    text = [RULE.strip().replace("\n", " ").replace("*", ""), f"Verdicts: {', '.join(counted)}."]
    return Section("Published, and measured again", text, [(HEADS, lines)])


def reproduction_page(section: Section) -> str:
    """The table as a markdown page."""
    heads, lines = section.tables[0]
    return "\n".join(
        [HEAD, "# Published numbers, measured again\n", RULE, f"{section.text[-1]}\n", table(heads, lines)]
    )


def _ours(claim: Claim, rows: list[Row]) -> Row | None:
    wanted = (claim.ours, claim.in_dist, claim.ood, claim.scorer, claim.group_size)

    def identity(row: Row) -> tuple[Any, ...]:
        names = [str(row[key]).split("/")[0] for key in ("in_dist", "ood")]
        return (row["model"], *names, row["scorer"], row["group_size"])

    return next((row for row in rows if row["status"] == "ok" and identity(row) == wanted), None)


def _line(claim: Claim, row: Row | None) -> list[str]:
    value = row.get(claim.metric) if row else None
    ends = [row.get(f"{claim.metric}_{end}") if row else None for end in ("low", "high")]
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends[0] is not None else ""
    ours = "–" if value is None else f"{value:.3f}{interval}"
    pair = f"{claim.in_dist} → {claim.ood}" + f", groups of {claim.group_size}" * (claim.group_size > 1)
    shown = [
        claim.paper,
        claim.where,
        f"{claim.model} / {claim.ours}",
        pair,
        claim.scorer,
        claim.metric,
        claim.published,
        claim.read,
    ]
    n = f"{row['n_in']:,} / {row['n_ood']:,}" if row else "–"
    return [*shown, ours, n, verdict(claim, value, *ends), claim.differs_by]


def verdict(claim: Claim, value: float | None, low: float | None = None, high: float | None = None) -> str:
    """``agrees``, ``differs`` or ``not comparable`` by the rule that the page states."""
    if claim.not_comparable:
        return f"not comparable: {claim.not_comparable}"
    if value is None:
        return "not comparable: this pair has no row here"
    low, high = (value if end is None else end for end in (low, high))
    if claim.value is None:
        obeys = high < claim.below if claim.below is not None else low > (claim.above or 0)
        return "agrees" if obeys else "differs"
    allowed = TOLERANCE[claim.metric] + 2 * claim.spread
    if low - allowed <= claim.value <= high + allowed:
        return "agrees"
    same = claim.metric == "auroc" and (claim.value - 0.5) * (value - 0.5) > 0
    return "differs (same side)" if same else "differs"
