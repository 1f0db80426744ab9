"""What the paper says of its explanations, beside what the numbers say, with a verdict by a stated rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from oodbench.analysis.expected import Expected
from oodbench.report.made import sizes_sentence
from oodbench.report.section import Analysis, Pair, Section
from oodbench.report.sections.constant_volume import is_constant_volume
from oodbench.report.sections.decomposition import difference, volume_share
from oodbench.report.sections.second_order import variance_sums_of
from oodbench.report.tables import bare_name, short_name, text
from oodbench.store import Row

HEADLINES = (
    ("fashionmnist", "mnist"),
    ("cifar10", "svhn"),
    ("celeba", "svhn"),
    ("cinic10-imagenet", "svhn"),
    ("cinic10-imagenet", "cifar10"),
)
"""In-dist and OOD sets of the inversions that the paper reports; a part of a set counts as the set."""
VARIANCE_SUMS = {"cifar10": (61.9, 59.2, 68.1), "svhn": (49.6, 52.7, 53.6)}
"""Sums over pixels of the variances of images in [0, 1], by channel, as the paper is remembered to print them."""
TOLERANCE = 0.02
"""Share by which a variance sum may be off, beside two standard errors: sets are parts of the paper's."""
NOTICEABLY = 0.9
"""A gap is called smaller than another where it is less than this share of it."""
HEADS = ["statement", "read", "model", "pair or set", "ours", "verdict"]
RULE = (
    "What the paper says of its explanations, and what these rows say. Variance sums agree within "
    f"{TOLERANCE:.0%} and two standard errors; most of a gap is more than half of it; a gap is smaller where it is less "
    f"than {NOTICEABLY:.0%} of the other; AUROCs lie on a side of ½ with their whole interval. `secondary`: by a "
    "reader's note; `remembered`: not checked against a source, and counted nowhere."
)


class Statement(NamedTuple):
    """One statement of the paper beside our numbers."""

    said: str
    read: str
    model: str
    about: str
    ours: str
    agrees: bool

    @property
    def line(self) -> list[str]:
        verdict = "agrees" if self.agrees else "differs"
        return [self.said, self.read, self.model, self.about, self.ours, verdict]


def section(analysis: Analysis) -> Section:
    found = statements(analysis)
    lines = [one.line for one in found]
    models = sizes_sentence(row["model"] for row in analysis.results.tried)
    words = [RULE, f"{_tally(found)} {models}".strip()] if found else [RULE]
    return Section("What the paper says of its explanations", words, [(HEADS, lines)])


def statements(analysis: Analysis) -> list[Statement]:
    """Every statement that the rows can be set beside."""
    return [one for kind in KINDS for one in kind(analysis)]


def _tally(found: list[Statement]) -> str:
    checked = [one for one in found if one.read != "remembered"]
    agree = sum(one.agrees for one in checked)
    return f"Of {len(checked)} lines that are more than remembered, {agree} agree and {len(checked) - agree} differ."


def _variance_sums(analysis: Analysis) -> Iterator[Statement]:
    """The paper's data statistics: a check without any model."""
    for name, sums in sorted(variance_sums_of(analysis.results).items()):
        published = VARIANCE_SUMS.get(short_name(name))
        if published and "@" not in name and len(sums) == len(published):
            agrees = all(map(_is_near, sums, published))
            ours = ", ".join(f"{one.value:.1f}" for one in sums)
            said = f"variance sums {', '.join(map(str, published))}"
            yield Statement(said, "remembered", "none", text(name), ours, agrees)


def _is_near(ours: Expected, published: float) -> bool:
    return abs(ours.value - published) <= TOLERANCE * published + 2 * ours.error


def _volume(analysis: Analysis) -> Iterator[Statement]:
    """The higher density of the OOD images comes mostly from the volume."""
    for pair in _headline_pairs(analysis):
        share = volume_share(pair)
        if share is None or is_constant_volume(pair[0]):
            continue
        said = "most of the gap is volume"
        yield Statement(said, "secondary", *_names(analysis, pair), f"{share:.0%}", share > 0.5)


def _constant_volume(analysis: Analysis) -> Iterator[Statement]:
    """The inversion stays without volume."""
    for pair in _headline_pairs(analysis):
        row = analysis.auroc(pair[1])
        if row and is_constant_volume(pair[0]):
            said = "inverted with constant volume too"
            agrees = row["auroc_high"] < 0.5
            yield Statement(said, "primary", *_names(analysis, pair), _auroc(row), agrees)


def _synthetic(analysis: Analysis) -> Iterator[Statement]:
    """Constant images are the likeliest of all, noise the least likely; by medians, since single noise images rule means."""
    models: dict[str, dict[str, float]] = {}
    for test, ood in analysis.pairs():
        own = models.setdefault(analysis.results.label(ood), {})
        for row in (test, ood):
            if row.get("bits_per_dim"):
                own[row["images"]] = row["bits_per_dim"][2]
    for label, medians in models.items():
        for kind, said, last in (
            ("constant", "constants are likeliest", False),
            ("noise", "noise is least likely", True),
        ):
            yield from _extreme(label, medians, kind, said, last)


def _extreme(
    label: str, medians: dict[str, float], kind: str, said: str, last: bool
) -> Iterator[Statement]:
    ordered = sorted(medians, key=medians.__getitem__, reverse=last)
    own = next((name for name in ordered if bare_name(name) == kind), None)
    if own is None or len(ordered) < 3:
        return
    rival = next(name for name in ordered if name != own)
    ours = f"{medians[own]:.2f} bits/dim; {text(bare_name(rival))} {medians[rival]:.2f}"
    yield Statement(said, "remembered", text(label), text(own), ours, ordered[0] == own)


def _pixelcnn(analysis: Analysis) -> Iterator[Statement]:
    """The effect is smaller for the PixelCNN than for the Glow of the same set."""
    gaps = {
        (ood["model"], ood["images"]): pair
        for pair in _headline_pairs(analysis)
        for ood in [pair[1]]
    }
    for (model, images), pair in gaps.items():
        glow = gaps.get((model.replace("pixelcnn-", "glow-"), images))
        if not model.startswith("pixelcnn-") or glow is None:
            continue
        own, other = (difference(one, "log_prob") for one in (pair, glow))
        aurocs = [row["auroc"] for row in (analysis.auroc(pair[1]), analysis.auroc(glow[1])) if row]
        shown = f" (AUROC {' and '.join(f'{one:.3f}' for one in aurocs)})" if aurocs else ""
        ours = f"{own:+,.0f} nats beside {other:+,.0f}{shown}"
        smaller = own < NOTICEABLY * other
        yield Statement(
            "a smaller gap than Glow's", "secondary", *_names(analysis, pair), ours, smaller
        )


def _asymmetry(analysis: Analysis) -> Iterator[Statement]:
    """One direction is inverted, the other is not."""
    found: dict[tuple[str, str], list[Row]] = {}
    for _, ood in analysis.pairs(synthetic=False):
        row = analysis.auroc(ood)
        if row is not None:
            direction = bare_name(ood["in_dist"]), bare_name(ood["images"])
            found.setdefault(direction, []).append(row)
    for one, other in HEADLINES:
        there, back = found.get((one, other), []), found.get((other, one), [])
        if there and back:
            agrees = max(row["auroc_high"] for row in there) < 0.5
            agrees &= min(row["auroc_low"] for row in back) > 0.5
            ours = f"there {_span(there)}, back {_span(back)}"
            pair = f"{text(one)} ↔ {text(other)}"
            yield Statement(
                "inverted in one direction alone", "secondary", "all", pair, ours, agrees
            )


def _span(rows: list[Row]) -> str:
    low, high = (choose(row["auroc"] for row in rows) for choose in (min, max))
    return f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"


def _ensembles(analysis: Analysis) -> Iterator[Statement]:
    """An ensemble of Glows is inverted too."""
    for pair in _headline_pairs(analysis):
        row = analysis.auroc(pair[1], "ensemble-likelihood")
        if row:
            agrees = row["auroc_high"] < 0.5
            yield Statement(
                "ensembles stay inverted", "secondary", *_names(analysis, pair), _auroc(row), agrees
            )


KINDS: tuple[Callable[[Analysis], Iterator[Statement]], ...] = (
    _constant_volume,
    _volume,
    _pixelcnn,
    _asymmetry,
    _ensembles,
    _variance_sums,
    _synthetic,
)


def _headline_pairs(analysis: Analysis) -> list[Pair]:
    """The pairs of the paper's inversions under every model, those with finite likelihoods."""
    pairs = analysis.pairs(synthetic=False)
    known = [pair for pair in pairs if all(row.get("log_prob") for row in pair)]
    return [pair for pair in known if is_headline(pair)]


def is_headline(pair: Pair) -> bool:
    """Whether a pair is one of the paper's inversions."""
    return _sets(pair[1]) in HEADLINES


def _sets(ood: Row) -> tuple[str, str]:
    return bare_name(ood["in_dist"]), bare_name(ood["images"])


def _names(analysis: Analysis, pair: Pair) -> tuple[str, str]:
    ood = pair[1]
    one, other = map(text, _sets(ood))
    return text(analysis.results.label(ood)), f"{one} → {other}"


def _auroc(row: Row) -> str:
    return f"AUROC {row['auroc']:.3f} [{row['auroc_low']:.3f}, {row['auroc_high']:.3f}]"
