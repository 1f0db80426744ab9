"""``oodbench verify`` and ``oodbench withdraw``: whether published rows hold, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path

import click

from oodbench.commands.options import FOLDER, Paths, check_device, load_plugins, plugin_option
from oodbench.errors import OodbenchError


@click.command()
@click.argument("folder", type=FOLDER)
@click.argument("rows", nargs=-1, metavar="[ROW]...")
@click.option("--sample", type=click.IntRange(1), help="Check N rows, the same ones each time.")
@click.option(
    "--from-scores", is_flag=True, help="Metrics alone, from stored scores: no data, no weights."
)
@click.option(
    "--suite", help="In place of the suite that the rows name: a name, or path to its YAML."
)
@click.option("--limit", type=click.IntRange(1), help="The --limit of the run that made them.")
@plugin_option
@click.option("--workers", type=click.IntRange(1), help="Processes [default: one a core].")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, mps.")
def verify(
    folder: Path,
    rows: tuple[str, ...],
    sample: int | None,
    from_scores: bool,
    suite: str | None,
    limit: int | None,
    plugins: Paths,
    workers: int | None,
    device: str,
) -> None:
    """Compute rows of FOLDER again from weights and images, and say which hold within the tolerance of docs/scale.md.

    ROW is the beginning of a row's key; all rows where none is given. No column that was measured before is read.
    """
    from oodbench.passes.executors import default_workers
    from oodbench.trials.recount import score_faults
    from oodbench.verification import chosen_rows, refuse_unheld
    from oodbench.verification import verify as verified

    if from_scores:
        faults = score_faults(folder)
        if faults:
            raise OodbenchError("\n".join(faults))
        click.echo(f"{folder}: every row's metrics are what its scores give")
        return
    check_device(device)
    load_plugins(plugins)
    chosen = chosen_rows(folder, rows, sample)
    verdicts = []
    for verdict in verified(
        chosen,
        suite=suite,
        limit=limit,
        plugins=plugins,
        workers=workers or default_workers(device),
        device=device,
    ):
        click.echo(str(verdict))
        verdicts.append(verdict)
    refuse_unheld(verdicts)


@click.command()
@click.argument("folder", type=FOLDER)
@click.argument("rows", nargs=-1, required=True, metavar="ROW...")
@click.option("--reason", required=True, help="Why they must not be used; it stays on the page.")
def withdraw(folder: Path, rows: tuple[str, ...], reason: str) -> None:
    """Withdraw rows of FOLDER: they are ranked nowhere, and pages show the reason in place of the number."""
    from oodbench.report import write_report
    from oodbench.trials.results import ResultsFolder

    if not reason.strip():
        raise click.UsageError("--reason must say why")
    for row in ResultsFolder(folder).withdraw(rows, " ".join(reason.split())):
        click.echo(f"withdrawn: {row['scorer']} with {row['model']} on {row['ood']}")
    write_report(folder)
