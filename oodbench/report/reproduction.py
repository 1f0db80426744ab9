"""Published numbers beside ours, with a verdict by a stated rule."""

from __future__ import annotations

from functools import cache

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from oodbench.paths import PACKAGE
from oodbench.report.older import older_sentence
from oodbench.report.results import Results, cells
from oodbench.report.section import Section
from oodbench.report.tables import HEAD, pair_text, short_name, table
from oodbench.store import Row, is_ranked

ALLOWED = {
    "auroc": 0.05,
    "flagged_ood": 0.05,
    "in_dist_bits_per_dim": 0.1,
    "ood_bits_per_dim": 0.1,
}
RULE = """\
**Agrees**: a published value within our 95 % interval widened by 0.05 of AUROC or rate (0.1
bits/dim) and by twice the published standard deviation; a published inequality that all of our interval
obeys. **Differs**: any other; *same side* where both lie on one side of chance. **Not comparable**: for
the reason given. **n**: our in-dist and OOD images, or groups of them. Values read as `remembered` are
hints and not checked against a source. Ours stays ours where it disagrees.
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


def reproduction(results: Results) -> Section | None:
    """The table of published numbers on models and scorers that the rows have; None where there are none."""
    models = {row["model"] for row in results.rows}
    scorers = {row["scorer"] for row in results.rows}
    known = [claim for claim in claims() if claim.ours in models and claim.scorer in scorers]
    lines = [line for claim in known for line in _lines(claim, results)]
    if not lines:
        return None
    words = [RULE.strip().replace("\n", " ").replace("*", ""), _tally(lines)]
    return Section("Published, and measured again", words, [(HEADS, lines)])


def _tally(lines: list[list[str]]) -> str:
    verdicts = [line[VERDICT] for line in lines]
    words = ("agrees", "differs", "not comparable")
    counted = [f"{sum(one.startswith(word) for one in verdicts)} {word}" for word in words]
    return f"Verdicts: {', '.join(counted)}."


def reproduction_page(results: Results, section: Section) -> str:
    """The table as a markdown page."""
    title = "# Published numbers, measured again\n"
    head = [HEAD, title, *older_sentence(results.tried), RULE]
    return "\n".join([*head, f"{section.text[-1]}\n", table(*section.tables[0])])


def _lines(claim: Claim, results: Results) -> list[list[str]]:
    """A line for each row that a published number may be set beside; one without a number of ours where
    there is none."""
    found = _ours(claim, results)
    if len(found) < 2:
        return [_line(claim, found[0] if found else None, f"{claim.in_dist} → {claim.ood}")]
    return [_line(claim, row, pair_text(row) + results.seed_text(row["seed"])) for row in found]


def _ours(claim: Claim, results: Results) -> list[Row]:
    """The sound rows of the claim's model, sets, scorer and group size: of several limits, views or seeds."""
    wanted = (claim.ours, claim.in_dist, claim.ood, claim.scorer, claim.group_size)
    sound = [row for row in results.tried if row["status"] == "ok" and is_ranked(row)]
    found = cells([row for row in sound if _identity(row) == wanted], "in_dist", "ood", "seed")
    return [found[cell] for cell in sorted(found, key=str)]


def _identity(row: Row) -> tuple[str, str, str, str, int]:
    sets = (short_name(row["in_dist"]), short_name(row["ood"]))
    return (row["model"], *sets, row["scorer"], row["group_size"])


def _line(claim: Claim, row: Row | None, pair: str) -> list[str]:
    value = row.get(claim.metric) if row else None
    ends = [row.get(f"{claim.metric}_{end}") if row else None for end in ("low", "high")]
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends[0] is not None else ""
    ours = "–" if value is None else f"{value:.3f}{interval}"
    groups = f", groups of {claim.group_size}" * (claim.group_size > 1)
    theirs = [claim.paper, claim.where, f"{claim.model} / {claim.ours}", f"{pair}{groups}"]
    theirs += [claim.scorer, claim.metric, claim.published, claim.read]
    n = f"{row['n_in']:,} / {row['n_ood']:,}" if row else "–"
    return [*theirs, ours, n, verdict(claim, value, *ends), claim.differs_by]


def verdict(
    claim: Claim, value: float | None, low: float | None = None, high: float | None = None
) -> str:
    """``agrees``, ``differs`` or ``not comparable`` by the rule that the page states."""
    if claim.not_comparable:
        return f"not comparable: {claim.not_comparable}"
    if value is None:
        return "not comparable: this pair has no row here"
    low, high = (value if end is None else end for end in (low, high))
    if claim.value is None:
        obeys = high < claim.below if claim.below is not None else low > (claim.above or 0)
        return "agrees" if obeys else "differs"
    allowed = ALLOWED[claim.metric] + 2 * claim.spread
    if low - allowed <= claim.value <= high + allowed:
        return "agrees"
    same = claim.metric == "auroc" and (claim.value - 0.5) * (value - 0.5) > 0
    return "differs (same side)" if same else "differs"
