"""``oodbench run``: a suite, or one that the command itself names."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oodbench.commands import completion
from oodbench.commands.columns import judge_on
from oodbench.commands.options import (
    FILE,
    FOLDER,
    Paths,
    check_device,
    echo,
    load_plugins,
    print_table,
    suite_options,
)
from oodbench.errors import OodbenchError

if TYPE_CHECKING:
    from oodbench.plan import Plan
    from oodbench.running import Show
    from oodbench.suite import Entry, Suite
    from oodbench.work import Part


class PartOf(click.ParamType):  # type: ignore[type-arg]
    """``I/N``: the I-th of N parts, from 1."""

    name = "I/N"

    def convert(self, value: Any, param: Any, ctx: Any) -> Part:
        from oodbench.work import Part

        number, _, of = str(value).partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            self.fail(f"{value!r} must be I/N, the I-th of N parts, for instance 1/8", param, ctx)
        return Part(int(number), int(of))


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
        click.option(
            "--model",
            help="Name, card's folder, checkpoint, or file.py[:Name].",
            shell_complete=completion.models,
        ),
        click.option(
            "--in-dist", help="Images that the model was trained on: name or path, [SHOWN=]PATH."
        ),
        click.option("--ood", multiple=True, help="Images to tell from them; repeat for more."),
        click.option(
            "--scorer",
            "scorers",
            multiple=True,
            help="Scorer; repeat for more.",
            shell_complete=completion.scorers,
        ),
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
@click.option(
    "--executor",
    default="",
    metavar="ray[://ADDRESS]",
    help="Measure on a Ray cluster in place of this machine's processes.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Let a GPU use kernels that give the same bits each time, without TF32.",
)
@click.option(
    "--shard",
    "part",
    type=PartOf(),
    help="Measure the I-th of N parts into the cache, no rows; a run without --shard judges.",
)
@click.option(
    "--columns",
    type=FILE,
    help="Judge scorers on this file of `oodbench columns`; no model, image or torch is needed.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="End what takes longer for 500 images, or for a row: it has FAILED.",
)
@click.option("--quiet", is_flag=True, help="Say nothing but failures.")
@click.option("--json", "as_json", is_flag=True, help="Say all in JSON, an object a line.")
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
    executor: str,
    deterministic: bool,
    part: Part | None,
    columns: Path | None,
    timeout: float | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a suite, or one model on images of yours: measure what is missing, evaluate, write rows, leaderboard and figures.

    \b
    oodbench run --suite paper
    oodbench run --model glow-fashionmnist --in-dist fashionmnist --ood ~/pictures/shoes
    oodbench run --model mymodel.py:Flow --in-dist flowers --ood weeds --ood cats.npy
    oodbench run --train glow --in-dist flowers --ood weeds

    Never uses the network. Can be interrupted and goes on where it stopped.
    """
    if columns is not None:
        if suite or model or family or in_dist or ood:
            raise click.UsageError(
                "--columns brings its pairs: leave out the suite, model and sets"
            )
        judge_on(columns, out or Path("runs") / columns.stem, plugins, scorers, only)
        return
    from oodbench.passes.executors import default_workers
    from oodbench.passes.shards import DETERMINISTIC
    from oodbench.runner import Options, adapted, measure_part, run_suite
    from oodbench.running import write_event
    from oodbench.suite import load_suite

    own = Own(model, family, in_dist, ood, scorers)
    if own:
        own.check(suite)
    if executor not in ("", "ray") and not executor.startswith("ray://"):
        raise click.UsageError(f"--executor {executor!r} must be ray or ray://ADDRESS")
    if not executor:  # the nodes of a cluster have devices of their own
        check_device(device)
    if deterministic:
        os.environ[DETERMINISTIC] = "1"
    load_plugins(plugins)
    processes = default_workers(device) if workers is None else workers
    show: Show = "json" if as_json else "quiet" if quiet else "progress"
    options = Options(processes, device, plugins, show, timeout, executor)
    if part:
        if own:
            raise click.UsageError(
                "--shard measures a part of a suite; write one and name it with --suite"
            )
        chosen = adapted(load_suite(suite or "paper"), limit, seed, plugins)
        made = measure_part(chosen, options, part, out, only)
        if show == "progress":
            echo(f"part {part} of {chosen.name} is measured, {made} shards of it just now")
        return
    if own:
        chosen, folder = _own_suite(own, out, plugins, device, {"limit": limit, "seed": seed})
        plans: list[Plan] = []
        begin = partial(_begin, folder, plans, show)
        rows = run_suite(chosen, options, folder, only, begin)
    else:
        chosen = adapted(load_suite(suite or "paper"), limit, seed, plugins)
        folder = out or Path("runs") / chosen.name
        rows = run_suite(chosen, options, folder, only)
    pages = {"leaderboard": "README.md", "rows": "rows.jsonl", "figures": "figures"}
    places = {what: folder / page for what, page in pages.items()}
    if show == "progress":
        page = places["leaderboard"]
        _print_leaderboard(rows, page) if own else print_summary(rows, chosen, page)
        echo("   ".join(f"{what}: {place}" for what, place in places.items()))
    elif show == "json":
        write_event("end", **{what: str(place) for what, place in places.items()})
    if own and not plans[0].trials:  # rows of an earlier run may stand in the folder
        raise OodbenchError("nothing could be judged, for the reasons above")
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
        told = f"No --ood: {' and '.join(GENERATED)} images are told from --in-dist."
        echo(told, err=True)
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
    from oodbench.zoo.cards import fit_words, load_card

    card = load_card(str(folder))
    if card.weights.exists():
        echo(f"{card.name} was trained before: {folder}", err=True)
        return
    from oodbench.zoo.train import train

    steps = card.recipe and card.recipe.steps
    echo(f"Training {card.name} ({steps} steps), into {folder}", err=True)
    accelerator = "gpu" if device.startswith("cuda") else device
    record = train(card, folder, accelerator, command=" ".join(["oodbench", *sys.argv[1:]]))
    fit = f"{fit_words(record)} on {record['ref']['set']}"
    echo(f"{card.name}: {fit}", err=True)


def _begin(folder: Path, plans: list[Plan], show: Show, plan: Plan) -> None:
    """Keep the plan, write the suite's file, and say what will be done to the images."""
    from oodbench.compose import write_suite
    from oodbench.screen import before

    plans.append(plan)
    path = folder.with_name(f"{folder.name}.yaml")
    write_suite(plan.suite, path)
    if show != "progress":
        return
    for line in before(plan):
        echo(line)
    echo(f"The same again: oodbench run --suite {path} --out {folder}")


def _print_leaderboard(rows: list[dict[str, Any]], page: Path) -> None:
    from oodbench.screen import leaderboard
    from oodbench.summary import legend

    heads, lines = leaderboard(rows)
    if lines:
        echo(legend(rows))
        print_table(heads, lines)
    print_failed(rows)
    _print_skips(rows, page)


def print_summary(rows: list[dict[str, Any]], suite: Suite, page: Path) -> None:
    """AUROC of single real images, pair by pair, with every failure and the skips in brief; the rest is in ``page``."""
    from oodbench.summary import OF_PAIRS, legend, pair_tables

    echo(legend(rows) + OF_PAIRS)
    for pair in pair_tables(rows, suite):
        echo(f"\n{pair.title}")
        print_table(pair.heads, pair.lines)
        echo(pair.lead)
    print_failed(rows)
    echo(f"Rows on groups and on noise, constant and corrupted images are in {page}.")
    _print_skips(rows, page)


def print_failed(rows: list[dict[str, Any]]) -> None:
    """The reason of each trial that FAILED."""
    for row in rows:
        if row["status"] == "failed":
            echo(f"FAILED: {row['scorer']} on {row['ood']}: {row['reason']}")


def _print_skips(rows: list[dict[str, Any]], page: Path) -> None:
    from oodbench.summary import skip_summary

    for line in skip_summary(rows, str(page)):
        echo(line)
