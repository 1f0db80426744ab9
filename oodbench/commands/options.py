"""Options that several commands share, and what they do with them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from oodbench.commands import completion
from oodbench.errors import OodbenchError
from oodbench.foreign import printable

Paths = tuple[Path, ...]
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)


def last_results() -> Path:
    """The newest run below this folder; else a clone's published leaderboard, else the README's first run."""
    found = [*Path("runs").glob("*/rows.jsonl")]
    if found:
        return max(found, key=lambda path: path.stat().st_mtime).parent
    published = Path("leaderboards/paper")
    return published if published.is_dir() else Path("runs/paper")


def plugin_option(command: Any) -> Any:
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        type=FILE,
        help="File that registers scorers, statistics or models.",
    )(command)


def suite_options(command: Any) -> Any:
    """What ``plan`` and ``run`` share."""
    options = (
        click.option(
            "--suite",
            "-s",
            help="Name of a suite, or path to its YAML.  [default: paper]",
            shell_complete=completion.suites,
        ),
        click.option("--limit", type=click.IntRange(1), help="Draw N images of each set."),
        click.option(
            "--only",
            multiple=True,
            help="Restrict to a model, scorer or image set; repeat for more.",
            shell_complete=completion.restricting,
        ),
        click.option(
            "--seed", type=click.IntRange(0, 2**32 - 1), help="In place of the suite's seed."
        ),
        plugin_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def load_plugins(plugins: Iterable[Path]) -> None:
    """Load the named plugins and the installed ones; says which of the latter fail to load."""
    from oodbench.registry import broken_plugins, load_plugin, scorers

    for path in plugins:
        load_plugin(path)
    len(scorers)  # loads the installed plugins too
    for name, why in broken_plugins.items():
        echo(f"The installed plugin {name!r} is left out, since it fails to load: {why}", err=True)


def check_device(device: str) -> None:
    """Raise :class:`OodbenchError` for a device that is not here, or that cannot sum in float64."""
    if device == "cpu":
        return
    import torch

    kind = device.split(":")[0]
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(kind):
        here = ", ".join(["cpu", *(name for name, there in available.items() if there)])
        raise OodbenchError(f"the device {device!r} is not available here; available: {here}")
    try:
        torch.zeros(1, device=device).sum(dtype=torch.float64)
    except TypeError as error:
        raise OodbenchError(
            f"the device {device!r} has no float64, in which log-probabilities are summed; use --device cpu"
        ) from error


def echo(text: str, err: bool = False) -> None:
    """A line on the terminal, in which text of files moves no cursor and hides no letter."""
    click.echo(printable(text), err=err)


def print_table(heads: list[str], lines: list[list[str]], width: int = 160) -> None:
    """A table on the terminal; ``width`` letters where there is none."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(box=box.SIMPLE, pad_edge=False)
    for number, head in enumerate(heads):
        shown.add_column(escape(printable(head)), overflow="fold", no_wrap=not number)
    for line in lines:
        shown.add_row(*(escape(printable(cell)) for cell in line))
    Console(width=None if sys.stdout.isatty() else width).print(shown)
