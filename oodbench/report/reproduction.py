"""Published numbers beside ours, with a verdict by a stated rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from oodbench.paths import PACKAGE
from oodbench.report.links import Links, is_generated, page_head
from oodbench.report.made import size_words
from oodbench.report.older import older_sentence
from oodbench.report.results import Results, read_results
from oodbench.report.section import Section
from oodbench.report.tables import bare_table, folded, short, short_name, text
from oodbench.store import Row, is_ranked
from oodbench.yaml_files import read_own
from oodbench.zoo.cards import load_card

ALLOWED = {
    "auroc": 0.05,
    "flagged_ood": 0.05,
    "in_dist_bits_per_dim": 0.1,
    "ood_bits_per_dim": 0.1,
}
RULE = """\
**Agrees**: a published value within 0.05 of AUROC or rate (0.1 bits/dim) and twice the published standard
deviation of ours; a published inequality that all of our 95 % interval obeys. **Differs**: any other; *same
side* where both lie on one side of chance. **None**: not comparable, for the reason among the differences. **n**: our in-dist and
OOD images, or groups of them. A claim is judged once, on the rows of most images, of all suites
where several stand beside one another. Values read as `remembered`
are hints that were not checked against a source: they stand last and are not judged. Where published values of one cell lie
further apart than the rule allows, their range stands in a table of its own. Models here are small: what
each is stands among the known differences. Ours stays ours where it disagrees.
"""
REMEMBERED = "remembered"
KINDS = (
    "AUROCs and rates of methods",
    "AUROCs of likelihood",
    "bits/dim",
    "inequalities",
    REMEMBERED,
)
"""Kinds of claims, in the order in which they weigh."""
HEADS = ["claim", "theirs", "ours", "verdict"]
NOTES = ["claim", "paper", "where", "model", "read", "n", "known differences"]
WORDS = ("agrees", "differs (same side)", "differs", "not comparable")
METRICS = {
    "auroc": "AUROC",
    "flagged_ood": "rate flagged",
    "in_dist_bits_per_dim": "bits/dim in-dist",
    "ood_bits_per_dim": "bits/dim of OOD",
}
"""What a claim's metric is called where there is little room."""


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
    def kind(self) -> str:
        """Which of :data:`KINDS` it is."""
        if self.read == REMEMBERED:
            return REMEMBERED
        if self.value is None:
            return "inequalities"
        if self.metric.endswith("bits_per_dim"):
            return "bits/dim"
        return KINDS[1] if self.scorer == "likelihood" else KINDS[0]

    @property
    def published(self) -> str:
        """The number with its spread, or the inequality."""
        if self.value is None:
            return f"< {self.below}" if self.below is not None else f"> {self.above}"
        return f"{self.value:g}" + f" ({self.spread:g})" * bool(self.spread)


@cache
def claims() -> list[Claim]:
    """All published numbers that we know."""
    entries = read_own(PACKAGE / "report" / "claims.yaml")
    return TypeAdapter(list[Claim]).validate_python(entries)


def reproduction(results: Results) -> Section | None:
    """The table of published numbers on models and scorers that the rows have; None where there are none."""
    models = {row["model"] for row in results.rows}
    scorers = {row["scorer"] for row in results.rows}
    known = [claim for claim in claims() if claim.ours in models and claim.scorer in scorers]
    beside = _beside(results)
    known = [claim for claim in known if not _is_judged_beside(claim, results, beside)]
    if not known:
        return None
    judged = [_Judged(claim, _fullest(claim, results)) for claim in known]
    judged.sort(key=lambda one: KINDS.index(one.claim.kind))
    disputed = _disputed(known, results)
    words = [_summary(judged), RULE.strip().replace("\n", " ").replace("*", "")]
    tables = [
        (HEADS, [one.line(number) for number, one in enumerate(judged, 1)]),
        _tally(judged),
        *([disputed] if disputed[1] else []),
        (NOTES, [one.notes(number) for number, one in enumerate(judged, 1)]),
    ]
    return Section("Published, and measured again", words, tables)


def _summary(judged: Sequence[_Judged]) -> str:
    """How many claims agree and differ, in a sentence."""
    found = Counter(one.word for one in judged if one.claim.kind != REMEMBERED)
    agrees, same, differs, unlike = (found[word] for word in WORDS)
    return (
        f"Of {agrees + same + differs} published numbers and inequalities that can be judged, {agrees} agree with ours, {same} "
        f"differ on the same side of chance and {differs} differ; {unlike} are not comparable."
    )


DISPUTED = [
    "sources disagree on",
    "scorer",
    "published range",
    "ours",
    "ours is",
    "sources",
]


def _disputed(known: list[Claim], results: Results) -> tuple[list[str], list[list[str]]]:
    """The cells for which published values lie further apart than a claim may from ours, each with their range."""
    cells: dict[tuple[Any, ...], list[Claim]] = {}
    for claim in known:
        if claim.value is not None and claim.read != REMEMBERED and not claim.not_comparable:
            cells.setdefault((*_wanted(claim), claim.metric), []).append(claim)
    return DISPUTED, [_range(own, results) for own in cells.values() if _spread(own)]


def _spread(own: list[Claim]) -> bool:
    values = [claim.value or 0.0 for claim in own]
    return max(values) - min(values) > ALLOWED[own[0].metric]


def _range(own: list[Claim], results: Results) -> list[str]:
    """One cell on which sources disagree: the range, ours, and whether it lies within."""
    claim, row = own[0], _fullest(own[0], results)
    ordered = sorted(own, key=lambda one: one.value or 0.0)
    low, high = (one.value or 0.0 for one in (ordered[0], ordered[-1]))
    value = row.get(claim.metric) if row else None
    place = "–" if value is None else ("below", "within", "above")[(value >= low) + (value > high)]
    said = "; ".join(f"{one.paper}, {one.model}: {one.published}" for one in ordered)
    metric = f", {claim.metric}" * (claim.metric != "auroc")
    cell = f"{claim.ours}, {claim.in_dist} → {claim.ood}{_groups(claim)}"
    shown = "–" if value is None else f"{value:.3f}"
    return [cell, f"{claim.scorer}{metric}", f"{low:g} – {high:g}", shown, place, said]


def _tally(judged: Sequence[_Judged]) -> tuple[list[str], list[list[str]]]:
    """Verdicts by kind of claim; what is remembered counts nowhere."""
    found = [(one.claim.kind, one.word) for one in judged]
    kinds = [kind for kind in KINDS if kind != REMEMBERED and kind in dict(found)]
    counts = [[kind, *(str(found.count((kind, word))) for word in WORDS)] for kind in kinds]
    return ["published", *WORDS], counts


def reproduction_page(results: Results, section: Section, links: Links) -> str:
    """What was published beside ours with the verdict; the rule and where each number was read below."""
    parts = page_head("Published numbers, measured again", links, "reproduction.md")
    shown, tally, *disputed, notes = (bare_table(*one) for one in section.tables)
    parts += [f"**{section.text[0]}**\n", shown, "## By kind\n", tally, RULE]
    parts += [folded("Cells on which sources disagree", one) for one in disputed]
    parts += [
        folded("Where each number was read, on how many images, and known differences", notes)
    ]
    return "\n".join([*parts, *older_sentence(results.tried)])


def _fullest(claim: Claim, results: Results) -> Row | None:
    """The sound row of most images of the claim's model, sets, scorer and group size, of the smallest seed."""
    own = [row for row in results.tried if _identity(row) == _wanted(claim)]
    sound = [row for row in own if row["status"] == "ok" and is_ranked(row)]
    ordered = sorted(sound, key=lambda row: (row["seed"], row["in_dist"], row["ood"]))
    return max(ordered, key=lambda row: min(row["n_in"], row["n_ood"]), default=None)


def _beside(results: Results) -> list[Results]:
    """The other folders of a collection of suites, in which a claim is judged once; none where the folder stands alone."""
    folder = results.folder
    if not is_generated(folder.parent / "README.md"):
        return []
    rows = sorted(path for path in folder.parent.glob("*/rows.jsonl") if path.parent != folder)
    return [read_results(path.parent) for path in rows]


def _is_judged_beside(claim: Claim, results: Results, beside: Sequence[Results]) -> bool:
    """Whether another folder has more images for a claim, or as many and stands first."""
    own = _images(_fullest(claim, results))
    others = [(_images(_fullest(claim, one)), one.folder) for one in beside]
    return any(n > own or (n == own > 0 and folder < results.folder) for n, folder in others)


def _images(row: Row | None) -> int:
    return 0 if row is None else min(row["n_in"], row["n_ood"])


def _wanted(claim: Claim) -> tuple[str, str, str, str, int]:
    return claim.ours, claim.in_dist, claim.ood, claim.scorer, claim.group_size


def _groups(claim: Claim) -> str:
    return f", groups of {claim.group_size}" * (claim.group_size > 1)


def _identity(row: Row) -> tuple[str, str, str, str, int]:
    sets = (short_name(row["in_dist"]), short_name(row["ood"]))
    return (row["model"], *sets, row["scorer"], row["group_size"])


@dataclass(frozen=True)
class _Judged:
    """A claim with the row that it is judged on; None where there is none."""

    claim: Claim
    row: Row | None

    @property
    def value(self) -> float | None:
        return self.row.get(self.claim.metric) if self.row else None

    @property
    def ends(self) -> tuple[float | None, float | None]:
        low, high = (f"{self.claim.metric}_{end}" for end in ("low", "high"))
        return (self.row.get(low), self.row.get(high)) if self.row else (None, None)

    @property
    def word(self) -> str:
        """The verdict without its reason."""
        return verdict(self.claim, self.value, *self.ends).partition(":")[0]

    def line(self, number: int) -> list[str]:
        claim = self.claim
        cell = f"{self.pair()}{_groups(claim)}"
        what = f"{claim.scorer}, {METRICS[claim.metric]}: {cell}, {claim.model}"
        judged = self.word if self.word in WORDS[:3] else "none"
        return [f"{number}. {text(what)}", claim.published, self.ours(), judged]

    def pair(self) -> str:
        return f"{self.claim.in_dist} → {self.claim.ood}"

    def ours(self) -> str:
        (low, high), value = self.ends, self.value
        if value is None:
            return "–"
        width = "" if low is None or high is None else f" ±{short((high - low) / 2)}"
        return f"{short(value)}{width}"

    def notes(self, number: int) -> list[str]:
        claim, row = self.claim, self.row
        n = f"{row['n_in']:,} / {row['n_ood']:,}" if row else "–"
        why = verdict(claim, self.value, *self.ends).partition(": ")[2]
        known = "; ".join(filter(None, (why, claim.differs_by, _made(claim.ours))))
        model = f"{claim.model} / {claim.ours}"
        return [f"{number}.", claim.paper, claim.where, model, claim.read, n, known]


@cache
def _made(name: str) -> str:
    """How a model of the zoo was made, in words: its size and its training."""
    record = load_card(name).record()
    batch, fit = record["recipe"]["batch_size"], record["ref_bits_per_dim"]
    return f"here a {size_words(name)} of {batch}, {fit:.2f} bits/dim on ref"


def verdict(
    claim: Claim, value: float | None, low: float | None = None, high: float | None = None
) -> str:
    """``agrees``, ``differs``, ``not comparable`` or ``not judged`` by the rule that the page states."""
    if claim.not_comparable:
        return f"not comparable: {claim.not_comparable}"
    if claim.read == REMEMBERED:
        return "not judged: remembered"
    if value is None:
        return "not comparable: this pair has no row here"
    low, high = (value if end is None else end for end in (low, high))
    if claim.value is None:
        obeys = high < claim.below if claim.below is not None else low > (claim.above or 0)
        return "agrees" if obeys else "differs"
    if abs(claim.value - value) <= ALLOWED[claim.metric] + 2 * claim.spread:
        return "agrees"
    same = claim.metric == "auroc" and (claim.value - 0.5) * (value - 0.5) > 0
    return "differs (same side)" if same else "differs"
