"""Imports go one way, and light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from oodbench.paths import PACKAGE

LAYERS = [
    {
        "errors",
        "types",
        "paths",
        "contract",
        "progress",
        "yaml_files",
        "names",
        "scaling",
        "foreign",
        "signals",
    },
    {"syntax", "digests", "origins", "anatomy", "plugin_files"},
    {"suite", "registry", "store"},
    {"models", "data", "scorers", "metrics"},
    {"statistics", "zoo"},
    {"passes"},
    {"detector"},
    {"resolver"},
    {"plan", "adjusting"},
    {"trials"},
    {"analysis"},
    {"report"},
    {"testing", "model_tests", "listing", "work"},
    {"screen", "summary", "running", "cache"},
    {"compose"},
    {"manifest"},
    {"runner", "judging"},
    {"skeletons", "evaluation", "frames", "doctor", "verification"},
    {"exporting", "citing", "published"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
"""Each layer imports from its own and from those before it."""
HEAVY = ("torch", "torchvision", "pytorch_lightning", "matplotlib", "seaborn", "sklearn")


def imports(path):
    """Names of oodbench's own modules that a file imports, with its deferred imports."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("oodbench."):
                yield name.split(".")[1]


def layer_of(name):
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(path):
        assert layer_of(name) <= layer_of(own), f"{own} imports {name}"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "scorers").glob("*.py")) + sorted((PACKAGE / "metrics").glob("*.py"))
)
def test_scorers_and_metrics_cannot_see_models_or_pixels(path):
    assert set(imports(path)) <= {"scorers", "metrics", "registry", "errors", "types"}
    assert "torch" not in path.read_text("utf-8")


def loaded_after(code):
    program = f"import sys\n{code}\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()


COMMANDS = [
    ["--help"], ["run", "--help"], ["plan", "--help"], ["list", "models"], ["list", "data"], ["list", "scorers"],
    ["list", "statistics"], ["list", "suites"], ["show", "paper"], ["plan", "--suite", "quick"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_light_commands_load_nothing_heavy(arguments):
    code = (
        "import contextlib, io\nfrom oodbench.cli import main\nwith contextlib.redirect_stdout(io.StringIO()):\n"
        f"    main({arguments!r}, standalone_mode=False)"
    )
    assert loaded_after(code) == []


def test_reports_load_nothing_heavy():
    assert loaded_after("import oodbench.report, oodbench.runner") == []


def test_importing_oodbench_is_quick():
    program = "import time; began = time.perf_counter(); import oodbench; print(time.perf_counter() - began)"
    times = [
        float(
            subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
        )
        for _ in range(3)
    ]
    assert min(times) < 0.3
