"""Bars count results in any order, and leave a readable log where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from oodbench import progress


@pytest.fixture
def log(monkeypatch):
    lines = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=lines, width=140, highlight=False))
    return lines


def test_a_log_has_a_line_a_bar_when_it_is_full_and_at_the_end(log):
    with progress.progress_bars("images") as bars:
        for name in ("one", "two", "[red]three"):
            bars.add(name, name, 20)
        bars.advance("two", 10)
        bars.advance("[red]three", 20)
        bars.advance("two", 10)
        told = [line.split(",")[0] for line in log.getvalue().splitlines()]
        assert told == ["[red]three: 20 of 20 images", "two: 20 of 20 images"]
        bars.advance("one", 5)
    assert log.getvalue().splitlines()[-1].startswith("one: 5 of 20 images, ")


def test_work_of_unknown_size_is_counted(log):
    with progress.progress_bars("bytes") as bars:
        bars.add("file", "file", 0)
        bars.advance("file", 7)
    assert log.getvalue().startswith("file: 7 bytes, ")


def test_no_work_says_nothing(log):
    with progress.progress_bars("images"):
        pass
    assert log.getvalue() == ""


def test_a_terminal_shows_bars(monkeypatch):
    screen = io.StringIO()
    terminal = Console(file=screen, width=140, force_terminal=True)
    monkeypatch.setattr(progress, "console", terminal)
    with progress.progress_bars("images") as bars:
        for name in ("one", "two"):
            bars.add(name, name, 20)
        bars.advance("two", 20)
        bars.advance("one", 20)
    assert screen.getvalue().count("20/20") >= 2
