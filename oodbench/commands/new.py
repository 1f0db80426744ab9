"""``oodbench new``: a beginning."""

from __future__ import annotations

from pathlib import Path

import click

from oodbench.commands.options import echo


@click.command()
@click.argument("kind", type=click.Choice(["scorer", "model", "suite"]))
@click.argument("name")
def new(kind: str, name: str) -> None:
    """Write a commented skeleton of a scorer, a model or a suite: NAME.py or NAME.yaml in this folder.

    It passes `oodbench check` as it is.
    """
    from oodbench.skeletons import write_skeleton

    path = write_skeleton(kind, name, Path())
    echo(f"{path}: edit it, then `oodbench check {path}`")
