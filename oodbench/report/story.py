"""The report: the paper's story in the order of its slides, told with the numbers of a results folder.

A story is a list of sections; :mod:`oodbench.report.page` shows it as HTML and as markdown. It is a pure function of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from oodbench.report.gallery import Illustration, gallery, watched
from oodbench.report.tables import auroc_text, bare_name, distinct
from oodbench.store import Row

OUTLIERS = 0.05
"""Share of a mean above which its standard error says that a few images make it."""
Table = tuple[list[str], list[list[str]]]


@dataclass
class Section:
    """A heading, what is to be seen, and what shows it."""

    title: str
    text: list[str]
    tables: list[Table] = field(default_factory=list)
    figures: list[Illustration] = field(default_factory=list)


@dataclass(frozen=True)
class Told:
    """What the sections are told from."""

    rows: list[Row]
    studies: list[Row]
    skips: list[Row]

    @cached_property
    def illustrations(self) -> list[Illustration]:
        return gallery(self.rows, self.studies)

    def figures(self, *kinds: str) -> list[Illustration]:
        """The figures of these kinds, kind by kind."""
        return [one for kind in kinds for one in self.illustrations if one.kind == kind]

    def of_kind(self, kind: str) -> list[Row]:
        return [row for row in self.studies if row["kind"] == kind]

    def likelihood(self, model: str, images: str) -> Row | None:
        """The likelihood row of one image set under a model."""
        own = (row for row in self.of_kind("likelihood") if (row["model"], row["images"]) == (model, images))
        return next(own, None)

    def pairs(self) -> list[tuple[Row, Row]]:
        """The likelihood rows of the in-dist test set and of each OOD set, model by model."""
        found = []
        for ood in self.of_kind("likelihood"):
            test = self.likelihood(ood["model"], ood["in_dist"])
            if ood["role"] == "ood" and test is not None:
                found.append((test, ood))
        return sorted(
            found, key=lambda pair: (pair[1]["in_dist"], pair[1]["model"], pair[1]["synthetic"], pair[1]["images"])
        )

    def auroc(self, ood: Row, scorer: str = "likelihood") -> Row | None:
        """The row of one scorer on single images of the pair that an OOD set's likelihood row belongs to."""
        wanted = (ood["model"], ood["in_dist"], ood["images"], scorer, 1)
        return next((r for r in self.rows if _identity(r) == wanted and r["status"] == "ok"), None)


def _identity(row: Row) -> tuple[str, str, str, str, int]:
    return row["model"], row["in_dist"], row["ood"], row["scorer"], row["group_size"]


def story(rows: Iterable[Row], studies: Iterable[Row]) -> list[Section]:
    """All sections that the rows can tell; none without analysis rows, and none that would be empty."""
    every, studied = list(rows), list(studies)
    sound = sorted((row for row in studied if row["status"] == "ok"), key=lambda row: (row["in_dist"], row["model"]))
    if not sound:
        return []
    tried = [row for row in every if row["status"] != "skipped"]
    told = Told(tried, sound, [row for row in every if row["status"] == "skipped"])
    sections = [make(told) for make in SECTIONS]
    sections[0].text += [
        f"FAILED: {row['kind']} of {row['model']} on {row['images']}: {row['reason']}"
        for row in studied
        if row["status"] == "failed"
    ]
    return [section for section in sections if section.figures or any(lines for _, lines in section.tables)]


def bits(row: Row | None) -> str:
    """Mean bits/dim with its standard error; where outliers rule the mean, the median instead."""
    value = row and row.get("bits_per_dim")
    if not value:
        return "not finite" if row else "–"
    mean, error, median = value
    return f"{mean:.3f} ± {error:.3f}" if error < OUTLIERS * mean else f"median {median:.4g}, mean {mean:.2g}"


def marked(row: Row | None) -> str:
    """The AUROC of a row as a cell; a dash where there is no row."""
    return "–" if row is None else auroc_text(row)


def likelihoods(told: Told) -> Section:
    """Bits/dim of training, test and OOD images, and the histograms."""
    lines = []
    for test, ood in told.pairs():
        train = next(
            (r for r in told.of_kind("likelihood") if r["model"] == test["model"] and r["role"] == "train"), None
        )
        found = told.auroc(ood)
        names = [ood["model"], ood["in_dist"], ood["images"]]
        lines.append([*names, bits(train), bits(test), bits(ood), marked(found)])
    missing = distinct(f"{row['in_dist']} → {row['ood']}: {row['reason']}" for row in told.skips if not row["scorer"])
    heads = ["model", "in-dist", "OOD", "train bits/dim", "test bits/dim", "OOD bits/dim", "AUROC of −log p"]
    text = [
        "Each model is trained on one set alone. Fewer bits a dimension mean a likelier image; ▼ marks pairs on which the OOD "
        "images are the likelier ones, so that raw likelihood ranks them as more in-dist than the in-dist ones. "
        "± is the standard error of the mean.",
        *(f"Not shown: {line}." for line in missing),
    ]
    return Section("Likelihoods: in-dist and OOD", text, [(heads, lines)], told.figures("likelihoods", "samples"))


def decomposition(told: Told) -> Section:
    """Which term of the change of variables makes the gap."""
    lines = []
    for test, ood in told.pairs():
        if not (test.get("log_det") and ood.get("log_det")) or ood["synthetic"]:
            continue
        gap, of_z, of_det = (ood[name][0] - test[name][0] for name in ("log_prob", "log_prob_z", "log_det"))
        error = math.hypot(ood["log_prob"][1], test["log_prob"][1])
        shares = [f"{value:+,.1f} ({round(value / gap, 2) + 0.0:+.0%})" for value in (of_z, of_det)]
        lines.append([ood["model"], ood["in_dist"], ood["images"], f"{gap:+,.1f} ± {error:,.1f}", *shares])
    text = [
        "log p(x) = log p(z) + log|det ∂z/∂x|. The table takes the difference of means, OOD minus in-dist, apart in nats; "
        "in brackets the share of the gap that each term explains. The shares add up to 100 %. A gap with an error as large as "
        "itself is that of a few images.",
    ]
    heads = ["model", "in-dist", "OOD", "gap of log p(x)", "of log p(z)", "of the log-determinant"]
    return Section("The change of variables, taken apart", text, [(heads, lines)], told.figures("decomposition"))


def constant_volume(told: Told) -> Section:
    """The phenomenon without the volume term."""
    of_cv = [pair for pair in told.pairs() if pair[0].get("log_det") and pair[0]["log_det"][1] == 0]
    lines = [
        [o["model"], o["in_dist"], o["images"], bits(t), bits(o), marked(told.auroc(o))]
        for t, o in of_cv
        if not o["synthetic"]
    ]
    text = [
        "In a flow whose couplings only shift, log|det| is one number for all images, so that it cannot favour any. "
        "What remains of the finding is log p(z) alone.",
    ]
    heads = ["model", "in-dist", "OOD", "test bits/dim", "OOD bits/dim", "AUROC of −log p"]
    models = distinct(line[0] for line in lines)
    figures = [one for one in told.figures("likelihoods") if one.of in models]
    return Section("Constant volume", text, [(heads, lines)], figures)


def _estimate(value: list[float]) -> str:
    return f"{value[0]:+,.1f}" + f" ± {value[1]:,.1f}" * (value[1] > 0)


def second_order(told: Told) -> Section:
    """Predicted against measured sign of each pair."""
    lines = []
    for row in told.of_kind("second-order"):
        if row["synthetic"]:
            continue
        predicted = row["first"][0] + row["second"][0]
        right = ("right" if predicted * row["measured"][0] > 0 else "wrong") + (
            " (within its error)" if abs(predicted) < 2 * row["second"][1] else ""
        )
        closed = "–" if row["closed_form"] is None else f"{row['closed_form']:+,.1f}"
        numbers = [_estimate(row[name]) for name in ("measured", "first", "second", "diagonal")]
        lines.append([row["model"], row["in_dist"], row["images"], *numbers, closed, right, _inside(row)])
    text = [
        "Around the in-dist mean, log p is replaced by its gradient and its Hessian: E_ood[log p] − E_in[log p] ≈ "
        "∇log p·(µ_ood − µ_in) + ½ Tr[∇²log p (S_ood − S_in)], in nats. `diagonal` uses per-pixel variances alone, as the "
        "paper does; the closed form needs only the 1×1 convolutions of a constant-volume Glow. `data alone` needs no model: "
        "where all channels of the OOD set have the smaller summed variance, it lies inside the in-dist set and is predicted "
        "to be likelier.",
        _tally(lines),
    ]
    heads = [
        "model",
        "in-dist",
        "OOD",
        "measured",
        "first order",
        "second order",
        "diagonal",
        "closed form",
        "sign",
        "data alone",
    ]
    return Section("Why: location, variance and curvature", text, [(heads, lines)], told.figures("data"))


def _tally(lines: list[list[str]]) -> str:
    signs = sum(line[8].startswith("right") for line in lines)
    told = [line[9] for line in lines if line[9].endswith(("right", "wrong"))]
    return (
        f"The expansion has the sign right on {signs} of {len(lines)} pairs of a flow and an OOD set; the data alone predict a "
        f"sign on {len(told)}, rightly on {sum(one.endswith('right') for one in told)}."
    )


def _inside(row: Row) -> str:
    """Where the OOD set lies by its summed variances, and whether what follows is so."""
    of_in, of_ood = row["variance_sums"]
    smaller = [b < a for a, b in zip(of_in, of_ood, strict=True)]
    if any(smaller) and not all(smaller):
        return "neither"
    likelier = row["measured"][0] > 0
    return ("inside" if smaller[0] else "outside") + (": right" if likelier == smaller[0] else ": wrong")


def overtaking(row: Row) -> float | None:
    """The largest factor, in per cent, at which a contracted set is likelier than the in-dist set, between measured ones by
    linear interpolation; None where it never is."""
    limit = row["in_dist_bits_per_dim"][0]
    curve = [(point[0], point[1] - limit) for point in row["curve"] if len(point) > 1]
    if curve and curve[-1][1] < 0:
        return 100.0
    for (low, below), (high, above) in zip(curve[-2::-1], curve[:0:-1]):
        if below < 0 <= above:
            return low + (high - low) * below / (below - above)
    return None


def graying(told: Told) -> Section:
    """Likelihood against the factor of contraction."""
    lines = []
    for row in sorted(
        told.of_kind("graying"), key=lambda r: (r["in_dist"], r["model"], r["role"] != "test", r["images"])
    ):
        if not row["in_dist_bits_per_dim"]:
            continue
        factor = overtaking(row)
        known = [point for point in row["curve"] if len(point) > 1]
        best = min(known, key=lambda point: point[1])
        told_factor = "never" if factor is None else "as it is" if factor == 100 else f"{factor:.0f} %"
        lines.append(
            [row["model"], row["images"], f"{known[-1][1]:.3f}", told_factor, f"{best[0]} %", f"{best[1]:.3f}"]
        )
    text = [
        "Contracting an image towards mid-grey shrinks its variance and leaves what it shows. The paper finds that this raises "
        "the likelihood. The table gives the largest factor at which a contracted set becomes likelier than the in-dist set "
        "as it is: `as it is` for sets that are so without contraction.",
    ]
    heads = ["model", "set", "bits/dim", "overtakes in-dist at", "likeliest at", "bits/dim there"]
    return Section("Graying", text, [(heads, lines)], told.figures("graying"))


def synthetic(told: Told) -> Section:
    """Constant and noise images."""
    lines = [
        [o["model"], o["images"], bits(t), bits(o), marked(told.auroc(o))] for t, o in told.pairs() if o["synthetic"]
    ]
    text = ["Images of one colour, and of independent uniform pixels, which no model was trained on."]
    heads = ["model", "images", "test bits/dim", "their bits/dim", "AUROC of −log p"]
    return Section("Constant images and noise", text, [(heads, lines)])


def both_directions(told: Told) -> Section:
    """The asymmetry: A → B beside B → A."""
    found: dict[tuple[str, str], list[str]] = {}
    for test, ood in told.pairs():
        row = told.auroc(ood)
        if row is not None and not ood["synthetic"]:
            found.setdefault((bare_name(test["images"]), bare_name(ood["images"])), []).append(
                f"{row['auroc']:.3f} ({row['model']})"
            )
    both = [pair for pair in found if (pair[1], pair[0]) in found and pair[0] < pair[1]]
    lines = [[f"{a} → {b}", ", ".join(found[a, b]), f"{b} → {a}", ", ".join(found[b, a])] for a, b in both]
    text = [
        "AUROC of raw likelihood in both directions of a pair. A set that lies inside another is the likelier one under models "
        "of both, so that one direction fails and the other is easy. Parts of a set count as the set.",
    ]
    return Section("Both directions", text, [(["direction", "AUROC", "other direction", "AUROC"], lines)])


def training(told: Told) -> Section:
    """Whether stopping early helps."""
    lines = []
    for row in told.of_kind("training"):
        for name in watched(row):
            known = [line for line in row["log"] if name in line]
            best = max(known, key=lambda line: line[name])
            ends = [f"{line[name]:.3f} at {line['ref_bits_per_dim']:.3f}" for line in (known[0], best, known[-1])]
            lines.append([row["model"], name.removeprefix("auroc_"), *ends, f"{best['step'] + 1:.0f}"])
    text = [
        "AUROC of raw likelihood at bits/dim on `ref`, at the first, the best and the last validation of a training. "
        "The members of an ensemble are trainings of one small model that differ in their seed alone."
    ]
    heads = ["model", "OOD", "first", "best", "last", "step of the best"]
    return Section("While training", text, [(heads, lines)], told.figures("training"))


def ensembles(told: Told) -> Section:
    """Whether an ensemble helps."""
    lines = []
    for _, ood in told.pairs():
        found = [told.auroc(ood, scorer) for scorer in ("likelihood", "ensemble-likelihood", "waic")]
        if not ood["synthetic"] and any(found[1:]):
            lines.append([ood["model"], ood["in_dist"], ood["images"], *map(marked, found)])
    text = [
        "AUROC of the likelihood of the model itself, of the mixture of its ensemble's members, and of WAIC, which subtracts "
        "the members' variance from their mean.",
    ]
    heads = ["model", "in-dist", "OOD", "likelihood", "ensemble's likelihood", "WAIC"]
    return Section("Ensembles", text, [(heads, lines)])


def samples(told: Told) -> Section:
    """Why samples do not look like the likelier OOD images."""
    lines = []
    roles = ("samples", "test", "ood")
    rows = [r for r in told.of_kind("likelihood") if r["role"] in roles and not r["synthetic"]]
    sampled = {row["model"] for row in rows if row["role"] == "samples"}
    for row in sorted(rows, key=lambda r: (r["in_dist"], r["model"], roles.index(r["role"]), r["images"])):
        if row["model"] in sampled:
            norm, typical = row.get("latent_norm"), row.get("typicality")
            relative = f"{norm[0] / math.sqrt(row['dimensions']):.3f}" if norm else "–"
            far = f"{typical[2] / (row['dimensions'] * math.log(2)):.3f}" if typical else "–"
            lines.append([row["model"], row["images"], f"{row['n']:,}", bits(row), relative, far])
    text = [
        "If OOD images are likelier, why does a model not draw them? Draws come from where the probability is, not from where "
        "its density is largest: a standard Gaussian in D dimensions has its mode at 0 and its draws at ‖z‖ ≈ √D. The table "
        "says where samples, in-dist and OOD images lie: in bits/dim, in ‖z‖/√D with z standardised by the prior, and on "
        "typicality, the median distance of −log p from that of in-dist `ref` images, in bits/dim.",
    ]
    heads = ["model", "images", "n", "bits/dim", "‖z‖/√D", "typicality"]
    return Section("Why samples do not look like the OOD images", text, [(heads, lines)], told.figures("latents"))


SECTIONS: tuple[Callable[[Told], Section], ...] = (
    likelihoods,
    decomposition,
    constant_volume,
    second_order,
    graying,
    synthetic,
    both_directions,
    training,
    ensembles,
    samples,
)
