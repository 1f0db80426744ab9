"""Figures of a run: likelihood histograms and ROC curves, from cached columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from oodbench.evaluate import TrialTask, model_log_prob, trial_scores
from oodbench.metrics import area_under_roc
from oodbench.metrics.ranking import counts
from oodbench.models.base import bits_per_dim
from oodbench.models.describe import describe
from oodbench.paths import write_whole
from oodbench.registry import scorers
from oodbench.report.tables import figure_files
from oodbench.shards import ImageRef, open_images

COLOURS = sns.color_palette("colorblind")
SETTINGS: Any = {"figure.dpi": 130, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10}


def draw_figures(folder: Path, tasks: Iterable[TrialTask]) -> None:
    """Draw into a results folder the two figures of each model and OOD set among the tasks, whose rows are sound."""
    pairs: dict[tuple[str, ImageRef, ImageRef], list[TrialTask]] = {}
    for task in tasks:
        pairs.setdefault((task.trial.model, task.trial.test, task.trial.ood), []).append(task)
    with sns.axes_style("whitegrid"), mpl.rc_context(SETTINGS):
        for (model, _, ood), own in pairs.items():
            files = figure_files(describe(model).name, open_images(ood).identifier)
            _save(folder / files["likelihoods"], likelihood_histogram(own[0]))
            _save(folder / files["ROC"], roc_curves(own))


def _save(path: Path, figure: Figure) -> None:
    write_whole(path, lambda file: figure.savefig(file, format="png", bbox_inches="tight", metadata={"Software": None}))
    plt.close(figure)


def likelihood_histogram(task: TrialTask) -> Figure:
    """Histograms of log p(x) over the in-dist and the OOD test images, as in the paper's Figure 2.

    The axis spans all but half a per cent at each set's ends, since a flow may give one noise image −10⁸ nats; how many
    images lie beyond it stands in the legend.
    """
    refs = (task.trial.test, task.trial.ood)
    columns = [model_log_prob(task, ref) for ref in refs]
    ends = np.array([np.quantile(column, [0.005, 0.995]) for column in columns])
    margin = 0.05 * (ends.max() - ends.min())
    low, high = ends.min() - margin, ends.max() + margin
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    for ref, log_prob, colour in zip(refs, columns, COLOURS):
        images, within = open_images(ref), log_prob[(log_prob >= low) & (log_prob <= high)]
        beyond = len(log_prob) - len(within)
        label = f"{images.identifier} (n = {len(images):,}), {bits_per_dim(log_prob, images.shape).mean():.2f} bits/dim"
        label += f", {beyond} beyond the axis" * bool(beyond)
        options = {"color": colour, "label": label, "stat": "density", "element": "step", "alpha": 0.35}
        sns.histplot(within, ax=axes, bins=80, binrange=(low, high), **options)
    axes.set(xlabel="log p(x) / nats", ylabel="density", xlim=(low, high))
    axes.set_title(f"{describe(task.trial.model).name}, seed {task.seed}", loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    return figure


def roc_curves(tasks: list[TrialTask]) -> Figure:
    """ROC curves of all scorers on one pair: solid with a model, dashed without, single images only."""
    figure, axes = plt.subplots(figsize=(4.6, 4.6))
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    singles = sorted((task for task in tasks if task.trial.group_size == 1), key=lambda task: task.trial.scorer)
    for task, colour in zip(singles, COLOURS * len(singles)):
        scorer = scorers[task.trial.scorer]
        scores_in, scores_ood = trial_scores(task)
        curve = counts(scores_in, scores_ood)
        label = f"{scorer.name} ({area_under_roc(scores_in, scores_ood):.3f})"
        rates = [np.concatenate([[0], count / count[-1]]) for count in (curve.flagged, curve.caught)]
        axes.plot(*rates, color=colour, label=label, linestyle="--" if scorer.baseline else "-")
    test, ood = (open_images(ref).identifier for ref in (tasks[0].trial.test, tasks[0].trial.ood))
    axes.set(xlabel="in-dist images flagged", ylabel="OOD images caught", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(f"{describe(tasks[0].trial.model).name}\n{test} against {ood}", loc="left", fontsize=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False, fontsize=9)
    return figure
