"""``oodbench judge``: numbers that were made elsewhere."""

from __future__ import annotations

import math
from pathlib import Path

import click

from oodbench.commands.options import FILE, FOLDER, echo, print_table
from oodbench.commands.run import print_failed, refuse_failed


def named_file(text: str) -> tuple[str, Path]:
    """``NAME=FILE`` as both; the file's name without its suffix where none is given."""
    name, separator, path = text.partition("=")
    if not separator or Path(text).exists():
        return Path(text).stem, Path(text).expanduser()
    return name, Path(path).expanduser()


def dimensions(shape: str | None) -> int | None:
    """Numbers an image, of ``C,H,W``."""
    if shape is None:
        return None
    parts = shape.lower().replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) for part in parts):
        raise click.UsageError(f"--shape {shape!r} must be C,H,W, for instance 3,32,32")
    return math.prod(map(int, parts))


@click.command()
@click.option("--in-dist", required=True, help="File of the in-dist test images, [NAME=]FILE.")
@click.option(
    "--ood", multiple=True, required=True, help="File of OOD images, [NAME=]FILE; repeat."
)
@click.option(
    "--ref", type=FILE, help="File of in-dist images apart from the test images, for fitting."
)
@click.option("--model", default="given", show_default=True, help="What the model is called.")
@click.option(
    "--likelihood", default="not stated", help="What log_prob is: exact, or the bound's name."
)
@click.option("--shape", help="C,H,W of the images, for bits/dim.")
@click.option(
    "--larger-ood", multiple=True, help="Column that is a finished score, larger = more OOD."
)
@click.option(
    "--smaller-ood", multiple=True, help="Column that is a finished score, smaller = more OOD."
)
@click.option(
    "--against", type=FOLDER, help="Results folder of a run to compare with, image by image."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Of the bootstrap.")
@click.option(
    "--out", type=FOLDER, help="Folder for rows and pages [default: runs/<model>-judged]."
)
def judge(
    in_dist: str,
    ood: tuple[str, ...],
    ref: Path | None,
    model: str,
    likelihood: str,
    shape: str | None,
    larger_ood: tuple[str, ...],
    smaller_ood: tuple[str, ...],
    against: Path | None,
    seed: int,
    out: Path | None,
) -> None:
    """Judge per-image numbers that were made elsewhere: rows with intervals, comparisons and pages.

    A file is .npz, .csv or .parquet, a column a number: log_prob in nats and other statistics by their names (`oodbench list
    statistics`), or finished scores, whose direction is said. A column image_sha256, the SHA-256 of each image's uint8 pixels
    (C, H, W), makes them comparable with a run.

    \b
    oodbench judge --in-dist cifar10.npz --ood svhn=svhn.npz --ref ref.npz
    oodbench judge --in-dist test.csv --ood svhn=svhn.csv --larger-ood energy --against runs/paper
    """
    from oodbench.compose import as_name
    from oodbench.judging import Given
    from oodbench.judging import judge as judge_files
    from oodbench.names import checked_name
    from oodbench.screen import leaderboard
    from oodbench.summary import LEGEND
    from oodbench.trials.given import About

    sides = [named_file(text) for text in (in_dist, *ood)]
    for name, _ in sides:
        checked_name("image set", name)
    folder = out or Path("runs") / f"{checked_name('model', model)}-judged"
    both = sorted(set(larger_ood) & set(smaller_ood))
    if both:
        raise click.UsageError(
            f"{both[0]} cannot point both ways; leave out --larger-ood or --smaller-ood"
        )
    given = Given(sides[0], sides[1:], ref, larger_ood, smaller_ood, against)
    about = About(as_name(folder.name), model, likelihood, dimensions(shape), seed)
    rows, found = judge_files(given, about, folder)
    for remark in dict.fromkeys(found.remarks):
        echo(f"Note: {remark}", err=True)
    echo(LEGEND)
    print_table(*leaderboard(rows))
    for line in found.against:
        echo(line)
    print_failed(rows)
    echo(f"Leaderboard: {folder / 'README.md'}   rows: {folder / 'rows.jsonl'}")
    refuse_failed(rows)
