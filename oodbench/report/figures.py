"""Figures, drawn from stored rows alone, as SVG.

The one file that imports matplotlib. It makes figures without pyplot and in a style of its own, so that a
notebook's backend, open figures and settings stay as they are and change nothing here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from oodbench.data.corruptions import STRENGTHS
from oodbench.metrics.comparison import critical_difference
from oodbench.paths import write_if_changed
from oodbench.report.comparison import LIKELIHOOD, common, ranked, undistinguished
from oodbench.report.grids import read_grid
from oodbench.report.illustrations import INK, INK_STYLE, Illustration
from oodbench.report.sections.training import trained_name, watched
from oodbench.report.tables import short, short_names, without_view
from oodbench.store import Row

COLOURS = sns.color_palette("colorblind")
STYLES = ("-", "--", "-.", ":", (0, (1, 1)), (0, (5, 1)))
"""Lines differ in dash as well as in colour, for print and for the colour-blind."""
SETTINGS: Any = {
    "figure.dpi": 130,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 8.25,
    "axes.titlesize": 8.25,
    "legend.fontsize": 8.25,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "oodbench",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
}
WIDTH = 5.1
"""Inches of a figure: 490 pixels, so that letters have 10 to 11 pixels on a wide screen and 8 on a phone."""
PANEL = (WIDTH / 2, 2.5)
"""Inches of one of two panels side by side."""
BEYOND_WIDTHS = 3
"""How many widths of the in-dist set's own range an axis goes on beside it, however far other sets lie."""
UNITS = {
    "log_prob": "log p(x) / nats",
    "log_prob_z": "log p(z) / nats",
    "latent_term": "−½‖z‖² / nats",
    "prior_volume": "prior's −Σ log σ / nats",
    "log_det": "log|det ∂z/∂x| / nats",
    "mean": "mean of a pixel",
    "variance": "variance of a pixel",
}
"""What stands below a histogram of each column or quantity."""
ROLES = ("samples", "test", "ood")
CURVES = 5
"""Scorers with a model whose curves are drawn, beside likelihood and the best baseline."""
MARKS = {
    "bar": ("|", "0.55", 60),
    "likelihood": ("v", COLOURS[3], 26),
    "leader": ("o", COLOURS[0], 22),
}
"""Marker, colour and size of what the headline figure sets side by side."""
FEW = 64
"""Samples up to which each has a large mark."""
BY_ROLE = {"samples": "samples", "train": "training images"}


def draw(folder: Path, illustrations: Iterable[Illustration]) -> None:
    """Draw figures into a results folder.

    Raises
    ------
    StoreError : an image grid that is missing or is not the one that its row names
    """
    with style.context(["default", dict(sns.axes_style("ticks")), SETTINGS]):
        for illustration in illustrations:
            figure = DRAWN[illustration.kind](illustration.drawn_from, folder)
            write_if_changed(folder / illustration.file, _svg(figure).encode())


def _svg(figure: Figure) -> str:
    """The drawing without date and version, on no ground, its ink that of the screen."""
    buffer = io.BytesIO()
    unsigned: Any = {"Date": None, "Creator": None}
    figure.savefig(buffer, format="svg", metadata=unsigned, transparent=True)
    drawing, end, _ = buffer.getvalue().decode().replace(INK, "currentColor").rpartition("</svg>")
    return f"{drawing}{INK_STYLE}{end}\n"


def _panels(
    n: int, size: tuple[float, float] = PANEL, across: int = 2
) -> tuple[Figure, list[Axes]]:
    columns = min(n, across)
    rows = -(-n // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for unused in axes.flat[n:]:
        unused.set_axis_off()
    return figure, list(axes.flat[:n])


def _looks() -> Iterator[tuple[Any, Any]]:
    """Colour and dash of a figure's sets, one after another; thirty differ."""
    return zip(cycle(COLOURS), cycle(STYLES))


def _plain(name: str) -> str:
    """A name as matplotlib shows it letter by letter: it reads $ as mathematics, and hides labels that
    begin with _."""
    shown = " ".join(name.split()).replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _set_names(sets: Iterable[Row]) -> dict[str, str]:
    """What each image set is called in one figure; training images, and those drawn from a model, go by their role."""
    known = list(sets)
    named = short_names(one["set"] for one in known if one.get("role") not in BY_ROLE)
    named |= {one["set"]: BY_ROLE[one["role"]] for one in known if one.get("role") in BY_ROLE}
    return {identifier: _plain(name) for identifier, name in named.items()}


def _bits_label(name: str, median: float | None) -> str:
    """The set and its median bits/dim; a mean may be that of one image."""
    if median is None:
        return f"{name}, bits/dim not finite"
    return f"{name}, {median:{'.2f' if median < 1000 else '.2g'}} bits/dim"


def _histograms(axes: Axes, row: Row, labels: dict[str, str], unit: str) -> None:
    axes.set(xlabel=unit, yticks=[])
    axes.spines["left"].set_visible(False)
    if row["span"] is None:
        axes.text(0.5, 0.5, "no finite value", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[])
        return
    highest = 0.0
    for number, (one, (colour, dash)) in enumerate(zip(row["sets"], _looks())):
        heights, edges = _density(one["counts"], row["span"])
        highest = max(highest, float(heights.max()))
        look: Any = {"color": colour, "baseline": 0, "zorder": 9 - number}  # in-dist on top
        if one.get("role") != "train":  # beside the test images that it ought to lie on
            axes.stairs(heights, edges, fill=True, alpha=0.25, **look)
        label = labels[one["set"]]
        axes.stairs(heights, edges, label=label, linestyle=dash, linewidth=1.3, **look)
    axes.set(xlim=row["span"], ylim=(0, 1.05 * highest or 1))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    legend: Any = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.3), "handlelength": 1.4}
    axes.legend(frameon=False, borderaxespad=0, **legend)


def _density(counts: Sequence[int], span: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Heights whose area is one, and the edges of the bins."""
    edges = np.linspace(span[0], span[1], len(counts) + 1)
    found = np.array(counts, float)
    return found / (max(found.sum(), 1) * (edges[1] - edges[0])), edges


def likelihoods(rows: Sequence[Row], _: Path) -> Figure:
    """Histograms of log p(x) over the in-dist and each OOD test set and over training images, as in the paper's Figures 2
    and 3, on one axis."""
    figure, panels = _panels(len(rows))
    limits = _common_limits(rows)
    figure.suptitle(_plain(f"{rows[0]['model']}: log p(x)"))
    for axes, row in zip(panels, rows):
        _likelihood_panel(axes, row, limits)
    return figure


def thumbnail(rows: Sequence[Row], _: Path) -> Figure:
    """The first pairs of two models, each on its own axis, since the units are of unlike numbers of pixels."""
    figure, panels = _panels(len(rows))
    for axes, row in zip(panels, rows):
        _likelihood_panel(axes, row, _common_limits([row]))
        axes.set_title(_plain(f"{row['model']}\n{_pair_title(row)}"))
    return figure


def _likelihood_panel(axes: Axes, row: Row, limits: tuple[float, float] | None) -> None:
    names = _set_names(row["sets"])
    labels = {one["set"]: _set_label(names, one, row, limits) for one in row["sets"]}
    _histograms(axes, row, labels, UNITS["log_prob"])
    axes.set_title(_plain(_pair_title(row)))
    if limits and row["span"] is not None:
        axes.set(xlim=limits)


def _pair_title(row: Row) -> str:
    """``→ svhn   AUROC .062``, of likelihood."""
    (name,) = short_names([row["ood"]]).values()
    known = "" if row["auroc"] is None else f"   AUROC {short(row['auroc'])}"
    return f"→ {name}{known}"


def _set_label(
    names: Mapping[str, str], one: Row, row: Row, limits: tuple[float, float] | None
) -> str:
    """The set with its median bits/dim, and where it lies if that is not on the axis."""
    label = _bits_label(names[one["set"]], one["bits_per_dim_median"])
    if limits is None or row["span"] is None or not sum(one["counts"]):
        return label
    low, high = _inner(one["counts"], row["span"])
    return f"{label} ←" if high < limits[0] else f"{label} →" if low > limits[1] else label


def _common_limits(rows: Sequence[Row]) -> tuple[float, float] | None:
    """One axis for all panels: what holds the sets of real images, but for those that lie too far from the in-dist set."""
    shown = [row for row in rows if row["span"] is not None and not row.get("synthetic")]
    shown = shown or [row for row in rows if row["span"] is not None]
    ends = [
        _inner(one["counts"], row["span"])
        for row in shown
        for one in row["sets"]
        if sum(one["counts"])
    ]
    own = [
        _inner(row["sets"][0]["counts"], row["span"])
        for row in shown
        if sum(row["sets"][0]["counts"])
    ]
    if not ends or not own:
        return None
    first, last = min(low for low, _ in own), max(high for _, high in own)
    beyond = BEYOND_WIDTHS * (last - first)
    low = max(min(low for low, _ in ends), first - beyond)
    high = min(max(high for _, high in ends), last + beyond)
    return low, high


def _inner(counts: Sequence[int], span: Sequence[float]) -> tuple[float, float]:
    """The ends of the bins that hold the inner 98 per cent of a histogram."""
    edges = np.linspace(span[0], span[1], len(counts) + 1)
    shares = np.cumsum(counts) / max(sum(counts), 1)
    first, last = (int(np.searchsorted(shares, share)) for share in (0.01, 0.99))
    return float(edges[first]), float(edges[min(last, len(counts) - 1) + 1])


def roc(rows: Sequence[Row], _: Path) -> Figure:
    """ROC curves on each pair of the scorers that are best over all of them, of likelihood, and of each pair's best
    baseline."""
    pairs: dict[str, list[Row]] = {}
    for row in rows:
        pairs.setdefault(row["ood"], []).append(row)
    names = short_names(pairs)
    looks = dict(zip(shown_curves(rows), _looks()))
    figure, panels = _panels(len(pairs), (WIDTH / 2, 3.7))
    figure.suptitle(_plain(f"{rows[0]['model']}: ROC"))
    for axes, (ood, own) in zip(panels, pairs.items()):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        for row in sorted(_panel_curves(own, looks), key=lambda row: -row["auroc"]):
            _curve_of(axes, row, looks.get(row["scorer"], (INK, (0, (1, 1.5)))))
        axes.set(xlabel="in-dist images flagged", ylabel="OOD images caught")
        axes.set(xlim=(0, 1), ylim=(0, 1), title=_plain(f"→ {names[ood]}"))
        legend: Any = {"loc": "upper left", "bbox_to_anchor": (-0.1, -0.24), "handlelength": 1.6}
        axes.legend(frameon=False, borderaxespad=0, **legend)
    return figure


def shown_curves(rows: Sequence[Row]) -> list[str]:
    """The five scorers with a model that have the best mean over the panels, and likelihood."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if not row["baseline"]:
            found.setdefault(row["scorer"], []).append(row["auroc"])
    best = sorted(found, key=lambda name: (-len(found[name]), -sum(found[name]), name))
    chosen = best[:CURVES]
    return chosen + [LIKELIHOOD] * (LIKELIHOOD in found and LIKELIHOOD not in chosen)


def _panel_curves(rows: Sequence[Row], looks: Mapping[str, Any]) -> list[Row]:
    """The curves of one pair that are drawn: those of the figure's scorers, and of the pair's best baseline."""
    baselines = [row for row in rows if row["baseline"]]
    bar = sorted(baselines, key=lambda row: -row["auroc"])[:1]
    return [row for row in rows if row["scorer"] in looks] + bar


def _curve_of(axes: Axes, row: Row, look: tuple[Any, Any]) -> None:
    label = f"{row['scorer']} {short(row['auroc'])}" + " (bar)" * row["baseline"]
    drawn: Any = {"color": look[0], "linestyle": look[1], "linewidth": 1.3}
    axes.plot(row["flagged"], row["caught"], label=_plain(label), **drawn)


def headline(rows: Sequence[Row], _: Path) -> Figure:
    """AUROC of likelihood, of the scorer that is best over all and of the best baseline: a line for each pair, a mark for each
    model."""
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    figure, (axes,) = _panels(1, (WIDTH, 0.9 + 0.21 * len(pairs)), across=1)
    for name, (marker, colour, size) in MARKS.items():
        own = [row for row in rows if row["what"] == name]
        places = [-pairs.index(row["pair"]) for row in own]
        look: Any = {"marker": marker, "color": colour, "s": size, "zorder": 3, "linewidths": 1.4}
        label = _plain(own[0]["label"]) if own else name
        axes.scatter([row["auroc"] for row in own], places, label=label, **look)
    axes.axvline(0.5, color="0.6", linewidth=0.8)
    axes.set(xlim=(-0.02, 1.02), xlabel="AUROC (left of ½: OOD images are taken for in-dist)")
    axes.set(yticks=[-place for place in range(len(pairs))], yticklabels=map(_plain, pairs))
    axes.grid(axis="y", linewidth=0.4, alpha=0.4)
    legend: Any = {
        "loc": "lower center",
        "bbox_to_anchor": (0.4, 1.0),
        "ncols": 3,
        "handletextpad": 0.1,
    }
    axes.legend(frameon=False, columnspacing=0.9, **legend)
    return figure


def _histograms_of(rows: Sequence[Row], field: str, order: Sequence[str]) -> Figure:
    """A panel for each quantity of the same sets."""
    found = {row[field]: row for row in rows}
    known = [quantity for quantity in order if quantity in found]
    figure, panels = _panels(len(known))
    names = _set_names(one for row in rows for one in row["sets"])
    for axes, quantity in zip(panels, known):
        _histograms(axes, found[quantity], names, UNITS[quantity])
    return figure


def decomposition(rows: Sequence[Row], _: Path) -> Figure:
    """Histograms of the terms of log p(x) over the in-dist and the OOD test sets, as in the paper's
    Figure 4; rows measured before log p(z) was taken apart have two."""
    order = ("latent_term", "prior_volume", "log_prob_z", "log_det")
    return _histograms_of(rows, "column", order)


def data(rows: Sequence[Row], _: Path) -> Figure:
    """Histograms of each pixel's mean and variance over a set, as in the paper's Figure 5."""
    return _histograms_of(rows, "quantity", ("mean", "variance"))


def graying(rows: Sequence[Row], _: Path) -> Figure:
    """Mean bits/dim of each set against the factor of contraction, towards mid-grey and towards its own mean; below,
    histograms of log p of the in-dist set contracted, as in the paper's Figure 6."""
    measured = [row for row in rows if row["kind"] == "graying"]
    shown = [row for row in rows if row["kind"] == "contracted"]
    ordered = sorted(measured, key=lambda row: (row["role"] != "test", row["images"]))
    centres = {"curve": "distance from mid-grey kept / %"}
    if any("own_mean_curve" in row for row in ordered):
        centres["own_mean_curve"] = "distance from the set's mean kept / %"
    figure, panels = _panels(len(centres) + 2 * len(shown), across=len(centres))
    for axes, (field, label) in zip(panels, centres.items()):
        _contraction_curves(axes, ordered, field)
        axes.set(xlabel=label, ylabel="bits/dim (lower: likelier)")
    panels[0].legend(frameon=False)
    for row in shown:
        for axes, kind in zip(panels[len(centres) :], ("contract", "shrink")):
            _contracted_histograms(axes, row, kind)
    return figure


def _contraction_curves(axes: Axes, rows: Sequence[Row], field: str) -> None:
    names = short_names((row["images"] for row in rows), without_view)
    for row, (colour, dash) in zip(rows, _looks()):
        known = [point[:3] for point in row.get(field, []) if len(point) > 1]
        percent, mean, error = np.array(known).reshape(-1, 3).T
        look: Any = {"color": colour, "linestyle": dash, "linewidth": 1.3}
        look |= {"marker": "o", "markersize": 3, "label": _plain(names[row["images"]])}
        axes.errorbar(percent, mean, error, **look)
        if row["role"] == "test" and len(mean):
            axes.axhline(mean[-1], color=colour, linewidth=0.8, alpha=0.6)


def _contracted_histograms(axes: Axes, row: Row, kind: str) -> None:
    """One kind of contraction beside the set as it is."""
    sets = [one for one in row["sets"] if one["contraction"].startswith(kind)]
    whole = [one for one in row["sets"] if not one["contraction"]]
    labels = {one["set"]: "as it is" for one in whole}
    centre = {"contract": "mid-grey", "shrink": "its mean"}[kind]
    for one in sets:
        percent = one["contraction"].removeprefix(kind)
        labels[one["set"]] = f"{percent} % towards {centre}"
    _histograms(axes, row | {"sets": [*whole, *sets]}, labels, UNITS["log_prob"])


def samples(rows: Sequence[Row], folder: Path) -> Figure:
    """Images drawn from the model beside in-dist and OOD images."""
    shown = sorted(rows, key=_by_role)
    names = _set_names(shown)
    height = 1.1 + 0.15 * max(row["n"] for row in shown) / 8
    figure, panels = _panels(len(shown), (WIDTH / 3, height), across=3)
    for axes, row in zip(panels, shown):
        axes.imshow(_picture(read_grid(folder, row)))
        axes.set_axis_off()
        axes.set_title(_bits_label(names[row["set"]], row["bits_per_dim_median"]))
    return figure


def coupling(rows: Sequence[Row], folder: Path) -> Figure:
    """One coupling and the latents of a flow: a line of panels for each set, titled with what they show and its range."""
    (row,) = rows
    picture, panels, sets = _picture(read_grid(folder, row)), row["panels"], row["sets"]
    names = _set_names(sets)
    figure, axes = _panels(len(panels) * len(sets), (1.3, 1.5), across=len(panels))
    lines = [np.hsplit(line, len(panels)) for line in np.vsplit(picture, len(sets))]
    for place, (axis, shown) in enumerate(zip(axes, (one for line in lines for one in line))):
        line, number = divmod(place, len(panels))
        axis.imshow(shown)
        axis.set(xticks=[], yticks=[])
        if line == 0:
            axis.set_title(_panel_title(panels[number]), fontsize=7)
        if number == 0:
            axis.set_ylabel(names[sets[line]["set"]], fontsize=8)
    return figure


def _panel_title(panel: Row) -> str:
    if panel["name"] == "kept":
        return "kept"
    return f"{panel['name']}\n{panel['low']:.2g} … {panel['high']:.2g}"


def _picture(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def _by_role(one: Row) -> tuple[int, str]:
    return ROLES.index(one["role"]), one["set"]


def latents(rows: Sequence[Row], _: Path) -> Figure:
    """log p(x) against the norm of the standardised latents."""
    figure, (axes,) = _panels(1, (WIDTH, 3.6))
    (row,) = rows
    sets = sorted(row["sets"], key=lambda one: (one["role"] == "samples", *_by_role(one)))
    names = _set_names(sets)
    for one, colour, marker in zip(sets, cycle(COLOURS), cycle("os^Dv")):
        look: Any = {"s": 14, "color": colour, "marker": marker, "alpha": 0.6, "linewidths": 0}
        if one["role"] == "samples":
            size = 40 if len(one["x"]) <= FEW else 16
            look |= {"s": size, "color": "black", "marker": "X", "alpha": 1}
        axes.scatter(one["x"], one["y"], label=names[one["set"]], rasterized=True, **look)
    axes.axvline(np.sqrt(row["dimensions"]), color=INK, linewidth=0.8)
    axes.set(xlabel="‖z‖", ylabel="log p(x) / nats")
    axes.set(xlim=_limits(sets, "x_ends"), ylim=_limits(sets, "y_ends"))
    axes.legend(frameon=False)
    return figure


def _limits(sets: Sequence[Row], ends: str) -> tuple[float, float]:
    """What holds the ends of all sets, with a margin."""
    known = [one[ends] for one in sets if one[ends] is not None]
    if not known:
        return 0.0, 1.0
    low, high = min(first for first, _ in known), max(last for _, last in known)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def training(rows: Sequence[Row], _: Path) -> Figure:
    """AUROC of raw likelihood, and bits/dim, against the training step; the members of an ensemble look
    alike."""
    figure, (aurocs, bits) = _panels(2, (WIDTH, 4.0), across=1)
    for row in rows:
        name = _plain(trained_name(row))
        _logged(bits, name, row["log"], "ref_bits_per_dim")
        for watch in watched(row):
            _logged(aurocs, f"{name} → {_plain(watch.removeprefix('auroc_'))}", row["log"], watch)
    aurocs.axhline(0.5, color=INK, linewidth=0.8)
    aurocs.set(xlabel="training step", ylabel="AUROC of −log p(x)", ylim=(0, 1), xscale="log")
    bits.set(xlabel="training step", ylabel="bits/dim on ref", xscale="log")
    for axes in (aurocs, bits):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        legend: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
        axes.legend(frameon=False, fontsize=7, **legend)
    return figure


def _logged(axes: Axes, label: str, log: list[dict[str, float]], name: str) -> None:
    """One quantity of a training log; curves with one label share its colour, its dash and its line in
    the legend."""
    labels = axes.get_legend_handles_labels()[1]
    number = labels.index(label) if label in labels else len(labels)
    look: Any = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}
    look |= {"linewidth": 1.2, "marker": "o", "markersize": 2.5}
    steps = [line["step"] + 1 for line in log]
    values = [line.get(name, np.nan) for line in log]
    axes.plot(steps, values, label="_" * (label in labels) + label, **look)


def ranks(rows: Sequence[Row], _: Path) -> Figure:
    """A critical-difference diagram: mean ranks on a line, bars joining scorers that are not
    distinguished (Demšar 2006)."""
    names, aurocs = common(rows)
    found = ranked(rows)
    gap = critical_difference(len(names), len(aurocs))
    figure, (axes,) = _panels(1, (WIDTH, 0.9 + 0.2 * len(found)))
    for line, (name, rank, _auroc) in enumerate(found):
        axes.plot([rank, rank, 0.6], [0, -line - 1, -line - 1], color=INK, linewidth=0.8)
        axes.plot(rank, 0, "o", color=COLOURS[0], markersize=4)
        label = f"{_plain(name)} ({rank:.2f})"
        axes.text(0.55, -line - 1, label, ha="right", va="center", fontsize=8)
    spans = undistinguished([rank for _, rank, _ in found], gap)
    for place, (low, high) in enumerate(spans):
        look: Any = {"color": COLOURS[3], "linewidth": 3, "solid_capstyle": "butt"}
        axes.plot([low, high], [0.6 + 0.5 * place] * 2, **look)
    xlabel = f"mean rank; critical difference {gap:.2f}"
    axes.set(xlim=(0.5, len(found) + 0.5), yticks=[], xlabel=xlabel)
    axes.spines["left"].set_visible(False)
    return figure


def corruptions(rows: Sequence[Row], _: Path) -> Figure:
    """AUROC of one scorer against the strength of a corruption: a panel for each model, a line for each kind."""
    by_panel: dict[str, list[Row]] = {}
    for row in rows:
        by_panel.setdefault(row["panel"], []).append(row)
    kinds = sorted({row["corruption"] for row in rows})
    looks = dict(zip(kinds, _looks()))
    figure, panels = _panels(len(by_panel))
    for axes, (panel, own) in zip(panels, by_panel.items()):
        axes.axhline(0.5, color="0.6", linewidth=1)
        for kind in kinds:
            _ladder(axes, [row for row in own if row["corruption"] == kind], looks[kind])
        axes.set(title=_plain(panel), xlabel="strength", ylabel="AUROC")
        axes.set(xticks=STRENGTHS, xlim=(0.8, 5.2), ylim=(-0.03, 1.03))
    lines: list[Any] = [
        Line2D([], [], color=colour, linestyle=dash) for colour, dash in looks.values()
    ]
    figure.legend(lines, kinds, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _ladder(axes: Axes, rows: Sequence[Row], look: tuple[Any, Any]) -> None:
    ordered = sorted(rows, key=lambda row: row["strength"])
    strengths, aurocs = ([row[name] for row in ordered] for name in ("strength", "auroc"))
    axes.plot(strengths, aurocs, color=look[0], linestyle=look[1], marker="o", markersize=3)


DRAWN: dict[str, Callable[[Sequence[Row], Path], Figure]] = {
    "likelihoods": likelihoods,
    "roc": roc,
    "headline": headline,
    "thumbnail": thumbnail,
    "decomposition": decomposition,
    "graying": graying,
    "samples": samples,
    "latents": latents,
    "coupling": coupling,
    "training": training,
    "data": data,
    "ranks": ranks,
    "corruptions": corruptions,
}
