"""The command line. Nothing heavy is imported until a command needs it: `--help` answers at once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from oodbench import __version__
from oodbench.commands import completion
from oodbench.commands.columns import columns
from oodbench.commands.edge import Commands
from oodbench.commands.export import cite, export
from oodbench.commands.judge import judge
from oodbench.commands.new import new
from oodbench.commands.options import (
    FILE,
    FOLDER,
    Paths,
    echo,
    last_results,
    load_plugins,
    plugin_option,
    print_table,
    suite_options,
)
from oodbench.commands.run import run
from oodbench.commands.verify import verify as verify_rows
from oodbench.commands.verify import withdraw
from oodbench.errors import OodbenchError


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Out-of-distribution detection with deep generative models, measured.

    \b
    Where to start:
      oodbench run --suite quick                 a leaderboard in about half a minute
      oodbench run --model glow-cifar10 --in-dist cifar10 --ood MY_PICTURES
      oodbench compare typicality likelihood     two scorers of the last run, tested

    `oodbench doctor` says what is here and what is missing, `oodbench list models` (data, scorers, suites) what can be named.
    """


main.add_command(run)
main.add_command(judge)
main.add_command(new)
main.add_command(verify_rows)
main.add_command(withdraw)
main.add_command(export)
main.add_command(cite)
main.add_command(columns)


@main.command()
@suite_options
@click.option("--out", type=FOLDER, help="Folder whose rows count as done [default: runs/<suite>].")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps.")
@click.option("--all", "whole", is_flag=True, help="List each pass, trial and skip.")
def plan(
    suite: str | None,
    limit: int | None,
    only: tuple[str, ...],
    seed: int | None,
    plugins: Paths,
    out: Path | None,
    device: str,
    whole: bool,
) -> None:
    """Print what a run would do: what is cached, what is left, and every skip with its reason."""
    from oodbench.plan import make_plan
    from oodbench.runner import adapted
    from oodbench.screen import plan_page
    from oodbench.suite import load_suite
    from oodbench.trials.results import ResultsFolder
    from oodbench.work import work_left

    load_plugins(plugins)
    chosen = adapted(load_suite(suite or "paper"), limit, seed, plugins)
    made = make_plan(chosen, only, device)
    results = ResultsFolder(out or Path("runs") / chosen.name)
    for line in plan_page(made, work_left(made, results), whole):
        echo(line)


@main.command()
@click.option("--remove", is_flag=True, help="Remove what this version cannot read.")
def cache(remove: bool) -> None:
    """Say what the cache holds, and what of it is of earlier versions, which no run reads any more."""
    from oodbench.cache import describe_cache, remove_unreadable

    for line in describe_cache():
        echo(line)
    if remove:
        echo(remove_unreadable())


@main.command()
@click.argument("folder", type=FOLDER)
@click.option("--out", type=FILE, help="The archive [default: scores.tar in FOLDER].")
def archive(folder: Path, out: Path | None) -> None:
    """Pack the per-image scores of a run into one file, which travels apart from its rows; FOLDER keeps its hash."""
    from oodbench.trials.scores import archive_scores

    path = out or folder / "scores.tar"
    echo(f"{path}: sha256 {archive_scores(folder, path)}")


def _default_results() -> Path:
    """The published leaderboard in a clone, elsewhere the folder of the README's first run."""
    published = Path("leaderboards/paper")
    return published if published.is_dir() else Path("runs/paper")


@main.command()
@click.argument("folder", type=FOLDER, default=_default_results)
@click.option(
    "--check", is_flag=True, help="Change nothing; fail where a page differs from its rows."
)
@click.option(
    "--from-scores",
    is_flag=True,
    help="With --check: compute each row's point metrics again from its scores.",
)
def report(folder: Path, check: bool, from_scores: bool) -> None:
    """Rebuild the leaderboard pages in FOLDER from its rows [default: leaderboards/paper where it is, else runs/paper].

    Of a folder that holds results folders, as leaderboards does, all their pages and one over all of them.
    """
    from oodbench.report.collection import check_pages, results_folders, write_pages
    from oodbench.trials.recount import score_faults

    if not check:
        for path in write_pages(folder):
            echo(str(path))
        return
    faults = check_pages(folder)
    if from_scores:
        faults += [fault for one in results_folders(folder) for fault in score_faults(one)]
    if faults:
        raise OodbenchError("\n".join(faults))
    echo(f"{folder}: every page is what its rows give")


@main.command()
@click.argument("scorer", shell_complete=completion.scorers)
@click.argument("other", shell_complete=completion.scorers)
@click.option(
    "--results",
    type=FOLDER,
    default=last_results,
    help="Folder of a run [default: the last run below runs/, else leaderboards/paper].",
)
@click.option("--model", "models", multiple=True, help="With this model; repeat for more.")
@click.option("--pair", "pairs", multiple=True, help="On IN_DIST:OOD, e.g. cifar10:svhn; repeat.")
def compare(
    scorer: str, other: str, results: Path, models: tuple[str, ...], pairs: tuple[str, ...]
) -> None:
    """Compare two scorers of a run on the same images: paired DeLong tests, corrected by Holm over the pairs, and a verdict."""
    from oodbench.report import read_comparisons
    from oodbench.report.comparison import compare as compare_scorers
    from oodbench.report.verdict import chosen, verdict

    known = read_comparisons(results)
    if not known:
        raise OodbenchError(
            f"{results} holds no comparisons; run a suite first: `oodbench run --out {results}`"
        )
    found = chosen(known, models, pairs)
    print_table(*compare_scorers(found, scorer, other))
    echo(f"{results}: {verdict(found, scorer, other)}")


@main.command()
def doctor() -> None:
    """What this machine has for oodbench, what it lacks, and how to get that."""
    from oodbench.doctor import examined

    for line in examined():
        click.echo(line)


@main.command("list")
@click.argument("what", type=click.Choice(["models", "data", "scorers", "statistics", "suites"]))
@click.option("--wide", is_flag=True, help="All that is known, on lines of any length.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, an object a line.")
@plugin_option
def list_(what: str, wide: bool, as_json: bool, plugins: Paths) -> None:
    """List what can be named, with what it is."""
    from oodbench import listing

    load_plugins(plugins)
    heads, lines = getattr(listing, what)()
    if as_json:
        for line in lines:
            click.echo(json.dumps(dict(zip(heads, line, strict=True)), ensure_ascii=False))
    elif wide:
        print_table(heads, lines)
    else:
        print_table(*listing.brief(what, heads, lines), width=80)


@main.command()
@click.argument("name", shell_complete=completion.every)
@plugin_option
def show(name: str, plugins: Paths) -> None:
    """All that is known of a model, image set, scorer, statistic or suite."""
    from oodbench import listing

    load_plugins(plugins)
    echo(listing.show(name))


@main.command()
@click.argument("target")
def check(target: str) -> None:
    """Run the contract tests on TARGET: a plugin file, a model's name, a card's folder, or a suite's .yaml."""
    if Path(target).suffix in (".yaml", ".yml") and Path(target).name != "card.yaml":
        _check_suite(target)
        return
    from oodbench.testing import check as run_checks
    from oodbench.testing import standing

    faults, checked = run_checks(target)
    for name in checked:
        own = [fault for fault in faults if fault.startswith(f"{name}: ")]
        passed = f"{name}: all contract tests passed{standing(name)}"
        echo("\n".join(own) if own else passed)
    if faults or not checked:
        raise OodbenchError(
            f"{len(faults)} contract tests failed"
            if faults
            else f"{target} registers no scorer and no model"
        )


def _check_suite(target: str) -> None:
    """Say that a suite's file can be run here, or what it lacks."""
    from oodbench.skeletons import suite_faults

    faults = list(suite_faults(target))
    if faults:
        raise OodbenchError("\n".join([*faults, f"{target} gives no row on this machine"]))
    echo(f"{target}: a suite that can be run here; `oodbench plan --suite {target}` says how")


@main.command()
@click.argument("model")
@click.argument("in_dist")
@click.argument("ood")
@click.option(
    "--limit", type=click.IntRange(2), default=500, show_default=True, help="Images of each set."
)
@click.option(
    "--probes",
    type=click.IntRange(2),
    default=64,
    show_default=True,
    help="Images and vectors for the traces.",
)
def explain(model: str, in_dist: str, ood: str, limit: int, probes: int) -> None:
    """Why is one of two image sets likelier under MODEL? Predict it from variances and curvature, and measure it.

    Of a flow, the second-order expansion and how far its assumptions hold; of every model, what the data alone predict,
    and what less variance does to its likelihood. IN_DIST and OOD are image sets such as cifar10 or svhn/test[:200].
    """
    from oodbench.analysis.explain import explain as explain_pair

    echo(explain_pair(model, in_dist, ood, limit, probes))


@main.command()
@click.argument("card")
@click.option("--out", type=FOLDER, help="Folder of the trained card [default: ./<card>].")
@click.option(
    "--device", default="auto", show_default=True, help="Lightning's accelerator: auto, cpu, gpu."
)
@click.option(
    "--devices",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share each batch, one a device.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads on a CPU.")
@click.option(
    "--logger",
    default="",
    help="Import path of a Lightning logger, e.g. pytorch_lightning.loggers.TensorBoardLogger.",
)
def train(
    card: str, out: Path | None, device: str, devices: int, threads: int | None, logger: str
) -> None:
    """Train the model of CARD by its recipe; CARD is a name in the zoo or a folder with a card.yaml.

    Writes the weights, their hash and a log. An interrupted training goes on when the command is run again.
    """
    from oodbench.zoo.cards import fit_words, load_card
    from oodbench.zoo.train import train as fit

    loaded = load_card(card)
    command = " ".join(["oodbench", *sys.argv[1:]])
    record = fit(loaded, out or Path(loaded.name), device, threads, command, logger, devices)
    echo(
        f"{loaded.name}: {fit_words(record)} on {record['ref']['set']} after {record['steps']} steps"
    )


@main.command("fetch")
@click.argument("cards", nargs=-1, required=True)
def fetch_cards(cards: tuple[str, ...]) -> None:
    """Download the weights of CARDS that are hosted elsewhere, and compare them with their recorded hash."""
    from oodbench.zoo.cards import load_card
    from oodbench.zoo.hub import fetch_weights

    for name in cards:
        path = fetch_weights(load_card(name))
        echo(f"{name}: {path.stat().st_size / 1e6:.1f} MB, as its card says, in {path}")


@main.command("import")
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option(
    "--out", type=FOLDER, required=True, help="Folder of the new card; its name is the model's."
)
@click.option(
    "--trained-on", required=True, help="Name of the image set that the model was trained on."
)
@click.option(
    "--view",
    default="",
    help="View by which images of another shape reach it, e.g. resize32-bilinear-aa.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="What the files do not hold, e.g. shape=[1,28,28].",
)
@click.option("--state", default="", help="The entry to read of files that hold several, e.g. ema.")
@click.option(
    "--overwrite", is_flag=True, help="Replace the card in --out, and all of its training."
)
def import_(
    files: Paths,
    out: Path,
    trained_on: str,
    view: str,
    options: tuple[str, ...],
    state: str,
    overwrite: bool,
) -> None:
    """Turn a checkpoint that others trained into a card; FILES are all files of one model.

    Knows Glow-PyTorch, pixel-cnn-pp, the Likelihood-Regret VAE, the VAE of PyTorch's examples, and a masked PixelCNN.
    """
    from oodbench.data.views import check_view
    from oodbench.zoo.importers import convert, write_card

    check_view(view)
    imported = convert(list(files), _named_values(options), state)
    record = {
        "command": " ".join(["oodbench", *sys.argv[1:]]),
        "imported": [file.name for file in files],
    }
    write_card(imported, out, out.name, trained_on, view, record, overwrite)
    for note in imported.notes:
        echo(note)
    echo(f"{out.name}: a {imported.family} with {imported.config}; log p is {imported.likelihood}.")
    echo(f"Use it by its path, {out}, in a suite or in load_model.")


def _named_values(options: Iterable[str]) -> dict[str, Any]:
    """The values of ``NAME=VALUE``, each name once, values as YAML has them."""
    from oodbench.yaml_files import load_value

    found: dict[str, Any] = {}
    for text in options:
        name, separator, value = text.partition("=")
        try:
            known = load_value(value)
        except Exception:  # whatever YAML stumbles over
            separator = ""
        if not separator:
            raise OodbenchError(
                f"--option {text!r} must be NAME=VALUE, for instance repeats=5 or shape=[1,28,28]"
            )
        if name in found:
            raise OodbenchError(f"--option {name} is given twice")
        found[name] = known
    return found


@main.group()
def data() -> None:
    """Image sets: what is here, and how to get the rest."""


@data.command("list")
def data_list() -> None:
    """For each set: what is here, how many, licence, citation, how to get the rest."""
    from oodbench import listing

    print_table(*listing.data())
    for sentence in listing.own_that_do_not_open():
        echo(f"not listed: {sentence}", err=True)


@data.command()
@click.argument("names", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Download image sets, resuming and verifying, into the cache."""
    from oodbench.data.catalog import data_card
    from oodbench.data.fetch import fetch as fetch_set
    from oodbench.progress import progress_bars

    cards = [data_card(name) for name in names]
    for card in cards:
        with progress_bars("bytes") as bars:
            for images in fetch_set(
                card, lambda name, size: bars.add(name, name, size), bars.advance
            ):
                echo(f"{images.identifier}: {len(images):,} images, sha256 {images.sha256[:12]}…")


@data.command("make")
@click.argument("name")
@click.option(
    "--out", type=FOLDER, help="Folder to write the arrays to [default: none is written]."
)
def make_set(name: str, out: Path | None) -> None:
    """Make a set of published rows again from its official files, and compare it with what was published."""
    from oodbench.data.catalog import data_card
    from oodbench.data.remake import make

    for line in make(data_card(name), out):
        echo(line)


@data.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the files that are here against their hashes, and decode every split anew."""
    from oodbench.data.catalog import catalog, data_card
    from oodbench.data.fetch import verify as verify_set

    faults = 0
    for card in [data_card(name) for name in names] or catalog().values():
        try:
            for finding in verify_set(card):
                echo(finding)
        except OodbenchError as error:
            faults += 1
            echo(f"{card.name}: {error}", err=True)
    if faults:
        raise OodbenchError(f"{faults} image sets are damaged")


if __name__ == "__main__":
    main()
