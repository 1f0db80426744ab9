"""Every Python block of the docs runs, and so does every docstring's example."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

from oodbench.paths import PACKAGE
from oodbench.registry import load_plugin, models, registered_by, scorers
from oodbench.testing import check

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page, language):
    return [code for found, code in BLOCK.findall(page.read_text("utf-8")) if found == language]


CASES = [(page, number, code) for page in PAGES for number, code in enumerate(blocks(page, "python"))]


@pytest.mark.parametrize(("page", "number", "code"), CASES, ids=[f"{page.name}-{number}" for page, number, _ in CASES])
def test_python_blocks_run(page, number, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "@ob.register" not in code:
        exec(compile(code, f"{page.name} block {number}", "exec"), {"__name__": "docs"})
        return
    path = tmp_path / f"{page.stem}_{number}.py"
    path.write_text(code)
    faults, checked = check(str(path))
    assert checked
    assert faults == []
    for kind, names in zip((scorers, models), registered_by(path), strict=True):
        for name in names:
            del kind._entries[name]


def test_the_readme_shows_the_published_leaderboard():
    shown = (REPOSITORY / "README.md").read_text("utf-8").split("## What it shows")[1].split("## How it works")[0]
    published = (REPOSITORY / "leaderboards" / "paper" / "README.md").read_text("utf-8")
    lines = [line for line in shown.splitlines() if re.match(r"\| (rank|M?\d)", line)]
    assert len(lines) > 10
    assert [line for line in lines if line not in published] == []
    for figure in re.findall(r"\]\((leaderboards/\S+\.png)\)", shown):
        assert (REPOSITORY / figure).exists()


MODULES = ["types", "metrics.ranking", "data.views", "data.images", "models.load", "registry"]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    module = importlib.import_module(f"oodbench.{name}")
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    scorers._entries.pop("per-image-surprise", None)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_module_with_an_example_is_listed():
    with_examples = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if "    >>> " in path.read_text("utf-8") or "\n>>> " in path.read_text("utf-8")
    }
    assert with_examples == set(MODULES)


def test_loading_a_plugin_twice_is_loading_it_once(tmp_path):
    path = tmp_path / "twice.py"
    path.write_text(
        "import oodbench as ob\n\n@ob.register_scorer('twice')\ndef twice(log_prob):\n    return log_prob\n"
    )
    assert load_plugin(path) == load_plugin(path)
    del scorers._entries["twice"]
