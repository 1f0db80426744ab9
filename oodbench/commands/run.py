"""``oodbench run``: a suite, or one that the command itself names."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oodbench.commands.options import (
    FOLDER,
    Paths,
    check_device,
    load_plugins,
    print_table,
    suite_options,
)
from oodbench.errors import OodbenchError
from oodbench.store import is_ranked, standing

if TYPE_CHECKING:
    from oodbench.plan import Plan
    from oodbench.suite import Entry, Suite


@dataclass(frozen=True)
class Own:
    """What the command names in place of a suite."""

    model: str | None
    family: str | None
    in_dist: str | None
    ood: tuple[str, ...]
    scorers: tuple[str, ...]

    def __bool__(self) -> bool:
        return any((self.model, self.family, self.in_dist, self.ood, self.scorers))

    def check(self, suite: str | None) -> None:
        """:class:`click.UsageError` where the options do not make one suite."""
        if suite is not None:
            raise click.UsageError(
                "--suite names models, image sets and scorers itself: leave it out, or leave out "
                "--model, --train, --in-dist, --ood and --scorer"
            )
        if self.in_dist is None:
            raise click.UsageError(
                "--in-dist is missing: the images that the model was trained on, a name or a path"
            )
        if (self.model is None) == (self.family is None):
            raise click.UsageError(
                "give --model (a name, a card's folder, a checkpoint, file.py:Name) or --train glow, one of the two"
            )
        if self.model is not None and not self.ood:
            raise click.UsageError("--ood is missing: the images to tell from those of --in-dist")


def own_options(command: Any) -> Any:
    """A run without a suite's file."""
    options = (
        click.option("--model", help="Name, card's folder, checkpoint, or file.py[:Name]."),
        click.option(
            "--in-dist", help="Images that the model was trained on: name or path, [SHOWN=]PATH."
        ),
        click.option("--ood", multiple=True, help="Images to tell from them; repeat for more."),
        click.option("--scorer", "scorers", multiple=True, help="Scorer; repeat for more."),
        click.option(
            "--train",
            "family",
            type=click.Choice(["glow"]),
            help="Train a small model of --in-dist first, in minutes.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@own_options
@suite_options
@click.option(
    "--out", type=FOLDER, help="Folder for rows, leaderboard and figures [default: runs/<suite>]."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes [default: one a core; one on an accelerator].",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps.")
def run(
    model: str | None,
    in_dist: str | None,
    ood: tuple[str, ...],
    scorers: tuple[str, ...],
    family: str | None,
    suite: str | None,
    limit: int | None,
    only: tuple[str, ...],
    seed: int | None,
    plugins: Paths,
    out: Path | None,
    workers: int | None,
    device: str,
) -> None:
    """Run a suite, or one model on images of yours: measure what is missing, evaluate, write rows, leaderboard and figures.

    \b
    oodbench run --suite paper
    oodbench run --model glow-fashionmnist --in-dist fashionmnist --ood ~/pictures/shoes
    oodbench run --model mymodel.py:Flow --in-dist flowers --ood weeds --ood cats.npy
    oodbench run --train glow --in-dist flowers --ood weeds

    Never uses the network. Can be interrupted and goes on where it stopped.
    """
    from oodbench.passes.executors import default_workers
    from oodbench.runner import Options, adapted, run_suite
    from oodbench.suite import load_suite

    own = Own(model, family, in_dist, ood, scorers)
    if own:
        own.check(suite)
    check_device(device)
    load_plugins(plugins)
    options = Options(default_workers(device) if workers is None else workers, device, plugins)
    if own:
        chosen, folder = _own_suite(own, out, plugins, device, {"limit": limit, "seed": seed})
        rows = run_suite(chosen, options, folder, only, partial(_begin, folder))
        _print_leaderboard(rows)
        if all(row["status"] == "skipped" for row in rows):
            raise OodbenchError("nothing could be judged, for the reasons above")
    else:
        chosen = adapted(load_suite(suite or "paper"), limit, seed, plugins)
        folder = out or Path("runs") / chosen.name
        rows = run_suite(chosen, options, folder, only)
        print_summary(rows)
    pages = {"Leaderboard": "README.md", "rows": "rows.jsonl", "figures": "figures"}
    click.echo("   ".join(f"{what}: {folder / page}" for what, page in pages.items()))
    refuse_failed(rows)


def refuse_failed(rows: list[dict[str, Any]]) -> None:
    """:class:`OodbenchError` where trials FAILED, whose reasons were told."""
    failures = sum(row["status"] == "failed" for row in rows)
    if failures:
        raise OodbenchError(
            f"{failures} trials FAILED, for the reasons above; the other rows stand"
        )


def _own_suite(
    own: Own, out: Path | None, plugins: Paths, device: str, settings: dict[str, int | None]
) -> tuple[Suite, Path]:
    """The suite that the command names, its model made where it has to be, and the folder of its results."""
    from oodbench.compose import GENERATED, bare_reference, composed, default_name
    from oodbench.runner import adapted

    assert own.in_dist is not None
    of_model = own.model or f"{own.family}"
    folder = out or Path("runs") / default_name(of_model, own.in_dist)
    card = folder.with_name(f"{folder.name}-model")
    entry, files = _model(own, card, bare_reference(own.in_dist), device)
    if not own.ood:
        click.echo(f"No --ood: {' and '.join(GENERATED)} images are told from --in-dist.")
    made = composed(
        entry,
        own.in_dist,
        own.ood or GENERATED,
        own.scorers,
        name=folder.name,
        plugins=[*files, *(str(path.resolve()) for path in plugins)],
        **settings,
    )
    return adapted(made, None, None, ()), folder


def _model(own: Own, card: Path, trained_on: str, device: str) -> tuple[Entry, tuple[str, ...]]:
    """The suite's entry of the model; a checkpoint is imported, and one to be trained is trained, unless it was before."""
    from oodbench.compose import model_entry, small_card

    if own.model is not None:
        return model_entry(own.model, card, trained_on)
    assert own.in_dist is not None
    entry = small_card(own.in_dist, card)
    _train(card, device)
    return entry, ()


def _train(folder: Path, device: str) -> None:
    from oodbench.zoo.cards import load_card

    card = load_card(str(folder))
    if card.weights.exists():
        click.echo(f"{card.name} was trained before: {folder}")
        return
    from oodbench.zoo.train import train

    click.echo(f"Training {card.name} ({card.recipe and card.recipe.steps} steps), into {folder}")
    accelerator = "gpu" if device.startswith("cuda") else device
    record = train(card, folder, accelerator, command=" ".join(["oodbench", *sys.argv[1:]]))
    click.echo(f"{card.name}: {record['ref_bits_per_dim']} bits/dim on {record['ref']['set']}")


def _begin(folder: Path, plan: Plan) -> None:
    """Say what will be done to the images, and write the suite's file."""
    from oodbench.compose import write_suite
    from oodbench.screen import before

    for line in before(plan):
        click.echo(line)
    path = folder.with_name(f"{folder.name}.yaml")
    write_suite(plan.suite, path)
    click.echo(f"The same again: oodbench run --suite {path} --out {folder}")


def _print_leaderboard(rows: list[dict[str, Any]]) -> None:
    from oodbench.screen import leaderboard

    heads, lines = leaderboard(rows)
    if lines:
        click.echo(legend(rows))
        print_table(heads, lines)
    print_failed(rows)
    _print_skips(rows)


LEGEND = (
    "AUROC [95 % interval], larger score = more OOD; ▼ worse than chance; * model-free baseline"
)
TUNED = "; † tuned on validation OOD images, ranked apart"
SEEN = "; § a model that the scorer reads has seen the OOD set: ranked nowhere"


def legend(rows: list[dict[str, Any]]) -> str:
    """What the marks mean that may stand behind the numbers of these rows."""
    tried = [row for row in rows if row["status"] != "skipped"]
    tuned = TUNED * any(standing(row) == "tuned" for row in tried)
    return LEGEND + tuned + ("" if all(map(is_ranked, tried)) else SEEN)


def print_summary(rows: list[dict[str, Any]]) -> None:
    """AUROC of single real images, pair by pair, with every failure and skip; the rest is in the leaderboard."""
    from oodbench.report.tables import auroc_text
    from oodbench.screen import MARKS

    order = ("in_dist", "model", "ood", "baseline", "scorer", "group_size")
    tried = sorted(
        (r for r in rows if r["status"] != "skipped"), key=lambda r: [r[name] for name in order]
    )
    brief = [
        r for r in tried if r["status"] == "failed" or not (r["synthetic"] or r["group_size"] > 1)
    ]
    click.echo(legend(rows))
    pair = None
    for row in brief:
        if pair != (pair := (row["model"], row["in_dist"], row["ood"])):
            click.echo("\n{}: {} → {}".format(*pair))
        name = (
            row["scorer"]
            + f", groups of {row['group_size']}" * (row["group_size"] > 1)
            + MARKS[standing(row)]
        )
        found = f"FAILED: {row['reason']}" if row["status"] == "failed" else auroc_text(row)
        click.echo(f"  {name:32} {found}")
    if len(brief) < len(tried):
        click.echo(
            f"\nRows on groups and on noise and constant images ({len(tried) - len(brief)}) are in the leaderboard."
        )
    _print_skips(rows)


def print_failed(rows: list[dict[str, Any]]) -> None:
    """The reason of each trial that FAILED."""
    for row in rows:
        if row["status"] == "failed":
            click.echo(f"FAILED: {row['scorer']} on {row['ood']}: {row['reason']}")


def _print_skips(rows: list[dict[str, Any]]) -> None:
    from oodbench.report.tables import skip_lines

    skips = (
        (row["in_dist"], row["ood"], row["reason"]) for row in rows if row["status"] == "skipped"
    )
    for line in skip_lines(skips):
        click.echo(f"skipped: {line}")
