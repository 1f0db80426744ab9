"""Figures of a run, from cached columns and stored rows: each as SVG and as PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from oodbench.analysis.tasks import StudyTask, columns_of
from oodbench.contract import bits_per_dim
from oodbench.data.catalog import is_synthetic, may_be_shown
from oodbench.metrics import area_under_roc
from oodbench.metrics.comparison import critical_difference
from oodbench.metrics.ranking import counts
from oodbench.passes.shards import ImageRef, open_images
from oodbench.paths import write_whole
from oodbench.registry import scorers
from oodbench.report.comparison import common, ranked
from oodbench.report.gallery import FORMATS, INK, Illustration, trained_name, watched
from oodbench.store import Row
from oodbench.trials.rows import TrialTask, model_log_prob, trial_scores
from oodbench.zoo.describe import describe

COLOURS = sns.color_palette("colorblind")
STYLES = ("-", "--", "-.", ":", (0, (1, 1)), (0, (5, 1)))
"""Lines differ in dash as well as in colour, for print and for the colour-blind."""
SETTINGS: Any = {
    "figure.dpi": 130,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "oodbench",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
PANEL = (3.4, 2.5)
"""Inches of one panel."""
SHOWN = 300
"""Images of each set in a scatter plot."""


@dataclass(frozen=True)
class Material:
    """What a figure is drawn from: the tasks and the analysis rows of one model, or of all."""

    trials: Sequence[TrialTask]
    studies: Sequence[StudyTask]
    rows: Sequence[Row]
    contests: Sequence[Row]

    def of_model(self, name: str) -> Material:
        """What belongs to one model."""
        return Material(
            [t for t in self.trials if describe(t.trial.model).name == name],
            [t for t in self.studies if describe(t.model).name == name],
            [row for row in self.rows if row["model"] == name],
            [row for row in self.contests if row["model"] == name],
        )

    def likelihoods(self, *roles: str) -> list[StudyTask]:
        """One task for each image set with one of these roles, in-dist first."""
        found = [t for t in self.studies if t.kind == "likelihood" and t.role in roles]
        return sorted(found, key=lambda t: roles.index(t.role))

    def pairs(self) -> dict[tuple[ImageRef, ImageRef], list[TrialTask]]:
        """The single-image trials of each pair of sets."""
        found: dict[tuple[ImageRef, ImageRef], list[TrialTask]] = {}
        for task in self.trials:
            if task.trial.group_size == 1:
                found.setdefault((task.trial.test, task.trial.ood), []).append(task)
        return found


def draw_figures(folder: Path, illustrations: Iterable[Illustration], material: Material) -> None:
    """Draw figures into a results folder, as SVG and as PNG."""
    with sns.axes_style("ticks"), mpl.rc_context(SETTINGS):
        for illustration in illustrations:
            figure = DRAWN[illustration.kind](material, illustration.of)
            for kind in FORMATS:
                _save(folder / f"{illustration.stem}.{kind}", figure, kind)
            plt.close(figure)


def _save(path: Path, figure: Figure, kind: str) -> None:
    nothing: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    options: Any = {"format": kind, "bbox_inches": "tight", "metadata": nothing, "transparent": kind == "svg"}
    write_whole(path, lambda file: figure.savefig(file, **options))


def _panels(n: int, size: tuple[float, float] = PANEL, across: int = 3) -> tuple[Figure, list[Axes]]:
    columns = min(n, across)
    rows = -(-n // columns)
    shape = (size[0] * columns, size[1] * rows)
    figure, axes = plt.subplots(rows, columns, figsize=shape, squeeze=False, layout="constrained")
    for unused in axes.flat[n:]:
        unused.set_axis_off()
    return figure, list(axes.flat[:n])


def _name(ref: ImageRef) -> str:
    found = open_images(ref)
    return found.name if not found.name.startswith("samples-of") else "samples"


def _bits_label(ref: ImageRef, log_prob: np.ndarray) -> str:
    """The set and its median bits/dim; a mean may be that of one image."""
    median = np.median(bits_per_dim(log_prob, ref.shape))
    return f"{_name(ref)}, {median:{'.2f' if median < 1000 else '.2g'}} bits/dim"


def _span(columns: Sequence[np.ndarray]) -> tuple[float, float]:
    """The range of all but half a per cent at each column's ends, and of what is no more than eight interquartile ranges from
    its quartiles: a flow may give a noise image −10²⁰ nats."""
    ends = np.array([_ends(column) for column in columns])
    margin = 0.05 * (ends.max() - ends.min()) or 1.0
    return float(ends.min() - margin), float(ends.max() + margin)


def _ends(column: np.ndarray) -> tuple[float, float]:
    low, first, third, high = np.quantile(column, [0.005, 0.25, 0.75, 0.995])
    far = 8 * (third - first)
    return max(low, first - far), min(high, third + far)


def _histograms(axes: Axes, columns: dict[str, np.ndarray], unit: str) -> None:
    span = _span(list(columns.values()))
    for (label, column), colour, style in zip(columns.items(), COLOURS, STYLES):
        within = column[(column >= span[0]) & (column <= span[1])]
        options: Any = {"color": colour, "histtype": "stepfilled", "bins": 60, "range": span, "density": True}
        axes.hist(within, **options, alpha=0.25)
        axes.hist(within, **{**options, "histtype": "step"}, linestyle=style, linewidth=1.3, label=label)
    axes.set(xlabel=unit, yticks=[], xlim=span)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.spines["left"].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.32), handlelength=1.6)


def likelihoods(material: Material, name: str) -> Figure:
    """Histograms of log p(x) over the in-dist and each OOD test set, as in the paper's Figures 2 and 3."""
    own = material.of_model(name)
    figure, panels = _panels(len(own.pairs()))
    for axes, ((test, ood), tasks) in zip(panels, own.pairs().items()):
        columns = {}
        for ref in (test, ood):
            log_prob = model_log_prob(tasks[0], ref)
            columns[_bits_label(ref, log_prob)] = log_prob
        _histograms(axes, columns, "log p(x) / nats")
    return figure


def roc_curves(material: Material, name: str) -> Figure:
    """ROC curves of all scorers on each pair: solid with a model, dashed without, single images only."""
    own = material.of_model(name)
    figure, panels = _panels(len(own.pairs()), (4.8, 3.1), across=2)
    for axes, ((_, ood), tasks) in zip(panels, own.pairs().items()):
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        for number, task in enumerate(sorted(tasks, key=lambda task: task.trial.scorer)):
            _roc(axes, task, number)
        axes.set(xlabel="in-dist images flagged", ylabel=f"{_name(ood)} images caught", xlim=(0, 1), ylim=(0, 1))
        axes.set_aspect("equal", anchor="W")
        axes.legend(frameon=False, fontsize=6, loc="upper left", bbox_to_anchor=(1, 1), handlelength=1.4)
    return figure


def _roc(axes: Axes, task: TrialTask, number: int) -> None:
    scorer = scorers[task.trial.scorer]
    scores_in, scores_ood = trial_scores(task)
    curve = counts(scores_in, scores_ood)
    label = f"{scorer.name} ({area_under_roc(scores_in, scores_ood):.3f})"
    points = np.unique(np.linspace(0, len(curve.flagged) - 1, 200).astype(int))  # more would only swell the SVG
    rates = [np.concatenate([[0], count[points] / count[-1]]) for count in (curve.flagged, curve.caught)]
    style = "--" if scorer.baseline else ("-", "-.", ":", (0, (5, 1)))[number // len(COLOURS) % 4]
    axes.plot(*rates, color=COLOURS[number % len(COLOURS)], label=label, linestyle=style, linewidth=1.2)


def decomposition(material: Material, name: str) -> Figure:
    """Histograms of log p(z) and of log|det| over the in-dist and the OOD test sets, as in the paper's Figure 4."""
    tasks = [t for t in material.of_model(name).likelihoods("test", "ood") if not _is_synthetic(t)]
    figure, panels = _panels(2, (4.2, 2.7))
    for axes, (column, unit) in zip(panels, (("log_prob_z", "log p(z) / nats"), ("log_det", "log|det ∂z/∂x| / nats"))):
        _histograms(axes, {_name(t.images): columns_of(t, t.images)[column] for t in tasks}, unit)
    return figure


def _is_synthetic(task: StudyTask) -> bool:
    return is_synthetic(_name(task.images))


def graying(material: Material, name: str) -> Figure:
    """Mean bits/dim of each set against the factor of contraction, as in the paper's Figure 6."""
    figure, (axes,) = _panels(1, (5.0, 3.2))
    rows = [row for row in material.of_model(name).rows if row["kind"] == "graying" and row["status"] == "ok"]
    for row, colour, style in zip(sorted(rows, key=lambda row: row["role"] != "test"), COLOURS, STYLES):
        percent, mean, error = np.array([point[:3] for point in row["curve"] if len(point) > 1]).T
        options: Any = {"color": colour, "linestyle": style, "marker": "o", "markersize": 3, "linewidth": 1.3}
        axes.errorbar(percent, mean, error, label=row["images"].split("@")[0], **options)
        if row["role"] == "test":
            axes.axhline(mean[-1], color=colour, linewidth=0.8, alpha=0.6)
    axes.set(xlabel="distance from mid-grey kept / %", ylabel="bits/dim (lower: likelier)")
    axes.legend(frameon=False)
    return figure


def _tiled(images: np.ndarray, across: int = 8) -> np.ndarray:
    """Images ``(N, C, H, W)`` as one picture ``(H', W', 3)``."""
    images = np.repeat(images, 3, 1) if images.shape[1] == 1 else images
    n, channels, height, width = images.shape
    rows = -(-n // across)
    padded = np.full((rows * across, channels, height, width), 255, np.uint8)
    padded[:n] = images
    tiles = padded.reshape(rows, across, channels, height, width).transpose(0, 3, 1, 4, 2)
    return tiles.reshape(rows * height, across * width, channels)


def samples(material: Material, name: str) -> Figure:
    """Images drawn from the model beside in-dist and OOD images."""
    real = [t for t in material.of_model(name).likelihoods("samples", "test", "ood") if not _is_synthetic(t)]
    tasks = [t for t in real if may_be_shown(_name(t.images))]
    figure, panels = _panels(len(tasks), (2.4, 1.1 + 0.15 * max(t.settings.samples for t in tasks) / 8), across=5)
    for axes, task in zip(panels, tasks):
        axes.imshow(_tiled(np.asarray(open_images(task.images).images[: task.settings.samples])))
        axes.set_axis_off()
        axes.set_title(_bits_label(task.images, columns_of(task, task.images)["log_prob"]))
    return figure


def latents(material: Material, name: str) -> Figure:
    """log p(x) against the norm of the standardised latents."""
    figure, (axes,) = _panels(1, (5.2, 3.6))
    tasks = material.of_model(name).likelihoods("test", "ood", "samples")
    found = {t: columns_of(t, t.images) for t in tasks if not _is_synthetic(t)}
    shown = {t: (columns["log_prob"][:SHOWN], columns["latent_norm"][:SHOWN]) for t, columns in found.items()}
    for (task, (log_prob, norm)), colour, marker in zip(shown.items(), COLOURS, "os^Dv"):
        look: Any = {"s": 14, "color": colour, "marker": marker, "alpha": 0.6, "linewidths": 0}
        if task.role == "samples":
            look |= {"s": 40, "color": "black", "marker": "X", "alpha": 1}
        axes.scatter(norm, log_prob, label=_name(task.images), rasterized=True, **look)
    axes.axvline(np.sqrt(np.prod(tasks[0].images.shape)), color=INK, linewidth=0.8)
    axes.set(xlabel="‖z‖", ylabel="log p(x) / nats")
    axes.set(xlim=_span([norm for _, norm in shown.values()]), ylim=_span([value for value, _ in shown.values()]))
    axes.legend(frameon=False)
    return figure


def training(material: Material, _: str) -> Figure:
    """AUROC of raw likelihood, and bits/dim, against the training step; the members of an ensemble look alike."""
    told = [row for row in material.rows if row["kind"] == "training" and row["status"] == "ok"]
    rows = {row["model"]: row for row in told if watched(row)}  # one a model, whatever its in-dist views
    figure, panels = _panels(2, (4.6, 3.6))
    for row in rows.values():
        name = trained_name(row)
        _curve(panels[1], name, row["log"], "ref_bits_per_dim")
        for watch in watched(row):
            _curve(panels[0], f"{name} → {watch.removeprefix('auroc_')}", row["log"], watch)
    panels[0].axhline(0.5, color=INK, linewidth=0.8)
    panels[0].set(xlabel="training step", ylabel="AUROC of −log p(x)", ylim=(0, 1), xscale="log")
    panels[1].set(xlabel="training step", ylabel="bits/dim on ref", xscale="log")
    for axes in panels:
        axes.legend(frameon=False, fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def _curve(axes: Axes, label: str, log: list[dict[str, float]], name: str) -> None:
    """One quantity of a training log; curves with one label share its colour, its dash and its line in the legend."""
    labels = axes.get_legend_handles_labels()[1]
    number = labels.index(label) if label in labels else len(labels)
    look: Any = {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)], "linewidth": 1.2}
    steps, values = [line["step"] + 1 for line in log], [line.get(name, np.nan) for line in log]
    axes.plot(steps, values, label="_" * (label in labels) + label, marker="o", markersize=2.5, **look)


def data(material: Material, in_dist: str) -> Figure:
    """Histograms of each pixel's mean and variance over a set, as in the paper's Figure 5."""
    tasks = [t for t in material.studies if t.kind == "likelihood" and _name(t.test) == in_dist]
    refs = dict.fromkeys(t.images for role in ("test", "ood") for t in tasks if t.role == role and not _is_synthetic(t))
    figure, panels = _panels(2, (4.2, 2.7))
    scaled = {_name(ref): open_images(ref).images / np.float32(255) for ref in refs}
    _histograms(panels[0], {name: images.mean(0).ravel() for name, images in scaled.items()}, "mean of a pixel")
    _histograms(panels[1], {name: images.var(0).ravel() for name, images in scaled.items()}, "variance of a pixel")
    return figure


def ranks(material: Material, _: str) -> Figure:
    """A critical-difference diagram: mean ranks on a line, bars joining scorers that are not distinguished (Demšar 2006)."""
    names, aurocs = common(material.contests)
    found = ranked(names, aurocs)
    gap = critical_difference(len(names), len(aurocs))
    figure, (axes,) = _panels(1, (6.5, 0.9 + 0.2 * len(found)))
    for line, (name, rank, _auroc) in enumerate(found):
        axes.plot([rank, rank, 0.6], [0, -line - 1, -line - 1], color=INK, linewidth=0.8)
        axes.plot(rank, 0, "o", color=COLOURS[0], markersize=4)
        axes.text(0.55, -line - 1, f"{name} ({rank:.2f})", ha="right", va="center", fontsize=8)
    for place, (low, high) in enumerate(undistinguished([rank for _, rank, _ in found], gap)):
        axes.plot([low, high], [0.6 + 0.5 * place] * 2, color=COLOURS[3], linewidth=3, solid_capstyle="butt")
    axes.set(xlim=(0.5, len(found) + 0.5), yticks=[], xlabel=f"mean rank; critical difference {gap:.2f}")
    axes.spines["left"].set_visible(False)
    return figure


def undistinguished(ranks: Sequence[float], gap: float) -> list[tuple[float, float]]:
    """The widest spans of ranks that differ by less than ``gap``, as (lowest, highest)."""
    spans = dict.fromkeys((low, max(high for high in ranks if high - low < gap)) for low in ranks)
    return [(low, high) for low, high in spans if high > low and not any(a < low and high <= b for a, b in spans)]


DRAWN: dict[str, Callable[[Material, str], Figure]] = {
    "likelihoods": likelihoods,
    "roc": roc_curves,
    "decomposition": decomposition,
    "graying": graying,
    "samples": samples,
    "latents": latents,
    "training": training,
    "data": data,
    "ranks": ranks,
}
