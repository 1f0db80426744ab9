"""``oodbench columns`` and ``oodbench run --columns``: statistics that were measured once, for scorers that are yet to come."""

from __future__ import annotations

from pathlib import Path

import click

from oodbench.commands.options import FILE, Paths, load_plugins, print_table, suite_options


@click.command()
@suite_options
@click.option("--out", type=FILE, help="The file [default: <suite>-columns.tar].")
@click.option(
    "--device", default="cpu", show_default=True, help="That the columns were measured on."
)
def columns(
    suite: str | None, limit: int | None, only: tuple[str, ...], seed: int | None, plugins: Paths, out: Path | None, device: str
) -> None:  # fmt: skip
    """Pack the per-image statistics of a suite that was run here into one file, and print its hash.

    `oodbench run --columns FILE` judges scorers on it without torch, weights or images.
    """
    from oodbench.plan import make_plan
    from oodbench.published import pack
    from oodbench.runner import adapted
    from oodbench.suite import load_suite

    load_plugins(plugins)
    chosen = adapted(load_suite(suite or "paper"), limit, seed, plugins)
    path = out or Path(f"{chosen.name}-columns.tar")
    sha256 = pack(make_plan(chosen, only, device), path)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {sha256}")


def judge_on(
    path: Path, folder: Path, plugins: Paths, scorers: tuple[str, ...], only: tuple[str, ...]
) -> None:
    """What ``oodbench run --columns`` does."""
    from oodbench.published import judge_columns
    from oodbench.registry import scorers as known
    from oodbench.screen import leaderboard
    from oodbench.summary import legend

    load_plugins(plugins)
    named = [*scorers, *(name for name in only if name in known)]
    for name in named:
        known[name]  # an unknown one raises
    rows = judge_columns(path, folder, named, [name for name in only if name not in known])
    click.echo(legend(rows))
    print_table(*leaderboard(rows))
    click.echo(f"leaderboard: {folder / 'README.md'}   rows: {folder / 'rows.jsonl'}")
