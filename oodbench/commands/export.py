"""``oodbench export`` and ``oodbench cite``: a run's results for other programs, and for a paper."""

from __future__ import annotations

from pathlib import Path

import click

from oodbench.commands.options import FILE, FOLDER, echo, last_results

KINDS = {"csv": ".csv", "parquet": ".parquet", "latex": ".tex", "json": ".json"}


@click.command()
@click.argument("folder", type=FOLDER, default=last_results)
@click.option("--format", "kind", type=click.Choice(list(KINDS)), default="csv", show_default=True)
@click.option("--scores", is_flag=True, help="Per-image scores with the images' hashes.")
@click.option(
    "--group-size", type=click.IntRange(1), help="Groups of this size alone; 1: single images."
)
@click.option("--out", type=FILE, help="The file [default: rows.csv and so on in this folder].")
def export(folder: Path, kind: str, scores: bool, group_size: int | None, out: Path | None) -> None:
    """Write the rows of FOLDER, or its per-image scores, for other programs [default: the last run].

    Fields are those of docs/rows.md, nested ones with dots. LaTeX gives a booktabs table a model, the best and its ties in bold.
    """
    from oodbench.exporting import export as as_bytes
    from oodbench.paths import write_whole

    content = as_bytes(folder, kind, group_size, scores)
    path = out or Path(("scores" if scores else "rows") + KINDS[kind])
    write_whole(path, lambda file: file.write(content))
    echo(f"{path}: {len(content):,} bytes, from {folder}")


@click.command()
@click.argument("folder", type=FOLDER, default=last_results)
@click.option("--out", type=FILE, help="File for the bibliography [default: it is printed].")
def cite(folder: Path, out: Path | None) -> None:
    """What to cite for the run in FOLDER: a .bib of all that it used, and a paragraph of protocol [default: the last run]."""
    from oodbench.citing import cite as cited
    from oodbench.paths import write_whole

    bibliography, protocol = cited(folder)
    if out is None:
        echo(bibliography)
    else:
        write_whole(out, lambda file: file.write(bibliography.encode()))
        echo(f"{out}: {bibliography.count('@')} entries\n")
    echo(protocol)
