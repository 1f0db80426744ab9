"""Which figures a results folder has, where they lie, and their captions: a pure function of its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from oodbench.report.comparison import can_be_ranked
from oodbench.report.tables import bare_name, distinct, slug
from oodbench.store import Row

FORMATS = ("svg", "png")
INK = "#4d4d4d"
"""The colour of text and axes; a page that embeds an SVG replaces it by its own."""
BEYOND = "The axes leave out half a per cent at each set's ends, and what lies far outside its quartiles."


@dataclass(frozen=True)
class Illustration:
    """One figure: what it shows, of which model (or in-dist set), and its caption."""

    kind: str
    of: str
    caption: str

    @property
    def label(self) -> str:
        """What stands in the figure's place where it cannot be shown."""
        return f"{self.kind} of {self.of}" if self.of else self.kind

    @property
    def stem(self) -> str:
        """Path of its files without their suffix, relative to the results folder."""
        return f"figures/{slug(self.of)}-{self.kind}" if self.of else f"figures/{self.kind}"


def gallery(rows: Iterable[Row], studies: Iterable[Row], contests: Iterable[Row] = ()) -> list[Illustration]:
    """All figures that rows, analysis rows and contests give."""
    sound = [row for row in rows if row["status"] == "ok"]
    told = [row for row in studies if row["status"] == "ok"]
    found = []
    for model in distinct(sorted(row["model"] for row in sound)):
        own = [row for row in sound if row["model"] == model]
        found += _of_trials(model, own)
        found += _of_studies(model, own[0], [row for row in told if row["model"] == model])
    with_log = distinct(trained_name(row) for row in told if row["kind"] == "training" and watched(row))
    if with_log:
        caption = (
            "AUROC of raw likelihood (500 images of `ref` and of each OOD set's test split) and bits/dim on `ref` "
            f"at each validation during training, of {', '.join(with_log)}; one training each, one curve for each member of an "
            "ensemble; seeds are in the cards."
        )
        found.append(Illustration("training", "", caption))
    together = list(contests)
    if can_be_ranked(together):
        caption = (
            f"Mean rank of the AUROC over {len(together)} models and pairs of sets, best on the left; bars join scorers whose "
            "ranks differ by less than the critical difference (Nemenyi, 5 %)."
        )
        found.append(Illustration("ranks", "", caption))
    for in_dist in distinct(sorted(row["in_dist"] for row in told if row["kind"] == "likelihood")):
        sets = ", ".join([in_dist, *_others(told, in_dist)])
        caption = f"Mean and variance of each pixel over the images of a set, in units of the full scale: {sets}."
        found.append(Illustration("data", in_dist.split("/")[0], caption))
    return found


def watched(row: Row) -> list[str]:
    """Names of the AUROCs that a training's log holds, ``auroc_<set>``."""
    return distinct(name for line in row["log"] for name in line if name.startswith("auroc_"))


def trained_name(row: Row) -> str:
    """What a training is called in a figure: its model's name; the members of an ensemble go by one."""
    return f"ensemble of {bare_name(row['in_dist'])}" if row["role"] == "member" else str(row["model"])


def _others(studies: Iterable[Row], in_dist: str) -> list[str]:
    return distinct(
        row["images"] for row in studies if row["in_dist"] == in_dist and row["role"] == "ood" and not row["synthetic"]
    )


def _of_trials(model: str, rows: list[Row]) -> list[Illustration]:
    sizes = {row["in_dist"]: row["n_in"] for row in rows if row["group_size"] == 1}
    sizes |= {row["ood"]: row["n_ood"] for row in rows if row["group_size"] == 1}
    named = ", ".join(f"{name} (n = {n:,})" for name, n in sizes.items())
    end = f"{model}, seed {rows[0]['seed']}: {named}."
    return [
        Illustration("likelihoods", model, f"Histograms of log p(x), with median bits/dim. {end} {BEYOND}"),
        Illustration("roc", model, f"ROC curves of all scorers, single images; dashed: model-free baselines. {end}"),
    ]


def _of_studies(model: str, row: Row, studies: list[Row]) -> list[Illustration]:
    found = []
    where = f"{model} on {row['in_dist']}, seed {row['seed']}"
    likelihoods = [s for s in studies if s["kind"] == "likelihood"]
    if any("log_det" in s for s in likelihoods):
        caption = f"The two terms of log p(x) of all test images: log p(z), and log|det ∂z/∂x| in pixel levels. {where}. {BEYOND}"
        found.append(Illustration("decomposition", model, caption))
    grayed = [s for s in studies if s["kind"] == "graying"]
    if grayed:
        caption = (
            f"Mean bits/dim of the first {max(s['n'] for s in grayed)} test images of each set, contracted towards "
            f"mid-grey: 100 % is the image, 0 % is a grey square. Bars: standard errors. {where}."
        )
        found.append(Illustration("graying", model, caption))
    drawn = [s for s in likelihoods if s["role"] == "samples"]
    if drawn:
        caption = (
            f"{drawn[0]['n']} images drawn from {model} beside the first test images of the sets whose terms permit showing "
            f"them, with the median bits/dim of all; seed {row['seed']}."
        )
        found.append(Illustration("samples", model, caption))
        if "latent_norm" in drawn[0]:
            caption = (
                f"log p(x) against ‖z‖, standardised by the prior, of {drawn[0]['n']} samples of the model and up to 300 test "
                f"images of each set; the line is √D. {where}. {BEYOND}"
            )
            found.append(Illustration("latents", model, caption))
    return found


def missing_figures(folder: Path, illustrations: Iterable[Illustration]) -> list[Illustration]:
    """The figures of which a file is not on disk."""
    return [i for i in illustrations if any(not (folder / f"{i.stem}.{kind}").exists() for kind in FORMATS)]
