"""The docs' code, recipes and commands work; docs/rows.md names what is stored."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import oodbench as ob
from oodbench.analysis.rows import TERMS
from oodbench.analysis.tasks import RULES
from oodbench.paths import PACKAGE
from oodbench.registry import KINDS, load_plugin, registered_by, scorers
from oodbench.runner import Options, run_suite
from oodbench.store import SCHEMA, read_rows
from oodbench.suite import Suite, load_suite
from oodbench.testing import check
from oodbench.trials.scores import archive_scores
from oodbench.zoo.cards import Card
from oodbench.zoo.families import FAMILIES
from oodbench.zoo.load import build

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page, language):
    return [code for found, code in BLOCK.findall(page.read_text("utf-8")) if found == language]


RECIPE = "# oodbench/"
"""First words of a block that is a file of the package: see the recipes below."""
CASES = [
    (page, number, code)
    for page in PAGES
    for number, code in enumerate(blocks(page, "python"))
    if not code.startswith(RECIPE)
]


@pytest.mark.parametrize(
    ("page", "number", "code"), CASES, ids=[f"{page.name}-{number}" for page, number, _ in CASES]
)
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
    forget_plugin(path)


def forget_plugin(path):
    for kind in KINDS:
        kind.drop(path.resolve())


def test_the_readme_shows_the_published_leaderboard():
    shown = (REPOSITORY / "README.md").read_text("utf-8")
    shown = shown.split("## What it shows")[1].split("## How it works")[0]
    published = (REPOSITORY / "leaderboards" / "paper" / "README.md").read_text("utf-8")
    lines = [
        line
        for line in shown.splitlines()
        if re.match(r"\| (scorer |\S+ ?(\(model-free\))?<br>)", line)
    ]
    assert len(lines) > 5
    assert [line for line in lines if line not in published] == []
    for figure in re.findall(r"\]\((leaderboards/\S+\.svg)\)", shown):
        assert (REPOSITORY / figure).exists()


# --- docstrings

MODULES = [
    "running",
    "types",
    "metrics.ranking",
    "data.catalog",
    "data.identifiers",
    "data.images",
    "data.views",
    "data.corruptions",
    "zoo.load",
    "registry",
    "evaluation",
    "detector",
    "foreign",
]


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
        "import oodbench as ob\n\n"
        "@ob.register_scorer('twice')\n"
        "def twice(log_prob):\n"
        "    return log_prob\n"
    )
    assert load_plugin(path) == load_plugin(path)
    assert registered_by(path) == (["twice"], [])
    forget_plugin(path)


# --- cards and suites in the docs


def yaml_blocks(of):
    return [code for page in PAGES for code in blocks(page, "yaml") if of in code]


def test_cards_in_the_docs_can_be_built(tmp_path):
    import yaml

    cards = [code for code in yaml_blocks("family:") if not code.startswith(RECIPE)]
    assert cards
    for code in cards:
        card = Card(**yaml.safe_load(code), folder=tmp_path)
        assert tuple(build(card).shape) == card.shape


def test_suites_in_the_docs_can_be_read(tmp_path):
    suites = yaml_blocks("scorers:")
    assert suites
    for number, code in enumerate(suites):
        path = tmp_path / f"suite{number}.yaml"
        path.write_text(code)
        assert isinstance(load_suite(str(path)), Suite)


def test_families_in_the_docs_are_all_there_are():
    page = (REPOSITORY / "docs" / "model.md").read_text("utf-8")
    sentence = page.split("The families are ")[1].split("; their parameters")[0]
    named = set(re.findall(r"`([^` :]+)`", sentence)) - {"log_prob"}
    assert named == set(FAMILIES)


# --- docs/extending.md

FOLLOWED = """
import sys
from pathlib import Path

import torch

import oodbench as ob
from oodbench.passes.threads import Threads
from oodbench.report import check_report
from oodbench.runner import Options, run_suite
from oodbench.store import read_rows
from oodbench.suite import Suite
from oodbench.zoo.cards import load_card
from oodbench.zoo.load import build

out = Path(sys.argv[1])
assert ob.scorer("pixel-maximum").baseline
model = build(load_card("independent-fashionmnist"))
assert model.log_prob(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).item() < -4000
assert model.sample(2).shape == (2, 1, 28, 28)
assert ob.load_images("stripes").identifier == "stripes/test"


class Seven:
    here = False

    def perform(self):
        return 7


with Threads(2) as engine:
    tasks = [Seven(), Seven()]
    for task in tasks:
        engine.submit(task)
    assert sorted(result for _, result in engine.results()) == [7, 7]

suite = Suite(
    name="followed", title="The recipes", models=["glow-small-fashionmnist-1"],
    pairs=[{"in_dist": "fashionmnist", "ood": ["mnist", "stripes"]}],
    scorers=["likelihood", "pixel-maximum"], limit=10, bootstrap=0,
    analysis={"images": 2, "samples": 0, "probes": 2, "gray": (0,)},
)
run_suite(suite, Options(), out)
assert check_report(out) == []
rows = read_rows(out / "rows.jsonl")
assert all(0 <= row["fpr99_in"] <= 1 for row in rows)
assert "FPR@99, OOD positive" in (out / "fashionmnist-details.md").read_text()
assert "Shared images" in (out / "report.md").read_text()
assert "-fit.svg" in (out / "report.md").read_text()
assert "# Sizes" in (out / "sizes.md").read_text()
"""


def follow_recipes(folder):
    """Write the files and add the lines of docs/extending.md, as they stand there."""
    page = (REPOSITORY / "docs" / "extending.md").read_text("utf-8")
    for language, code in BLOCK.findall(page):
        head, _, body = code.partition("\n")
        path = folder / head.removeprefix("# ")
        if language == "diff":
            before = "".join(f"{line[1:]}\n" for line in body.splitlines() if line[:1] != "+")
            after = "".join(f"{line[1:]}\n" for line in body.splitlines() if line[:1] != "-")
            content = path.read_text("utf-8")
            assert content.count(before) == 1, f"{head}: {before}"
            path.write_text(content.replace(before, after))
        elif head.startswith(RECIPE):
            assert not path.exists()
            path.parent.mkdir(exist_ok=True)
            path.write_text(body)


def test_the_recipes_work_as_written(tmp_path):
    copy = tmp_path / "copy"
    for name in ("oodbench", "tests", "configs"):
        shutil.copytree(
            REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    follow_recipes(copy)
    data = tmp_path / "data"
    data.mkdir()
    stripes = np.tile(np.uint8([0, 255]), (10, 28, 14))
    stripes[np.arange(10), np.arange(10)] = 7  # no two alike
    np.savez(data / "stripes_test.npz", images=stripes)
    environment = os.environ | {"PYTHONPATH": str(copy), "OODBENCH_DATA": str(data)}
    script = [sys.executable, "-c", FOLLOWED, str(tmp_path / "out")]
    done = subprocess.run(
        script, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- commands


def test_commands_in_the_docs_exist():
    from oodbench.cli import main

    for page in [*PAGES, REPOSITORY / "CONTRIBUTING.md"]:
        for line in re.findall(
            r"`oodbench ([^`]+)`|^\$ oodbench (.+)$", page.read_text("utf-8"), re.M
        ):
            words = (line[0] or line[1]).replace("\\|", "|").split()
            command = main.commands.get(words[0])
            assert command is not None, f"{page.name}: oodbench {' '.join(words)}"
            options = {option for one in command.params for option in one.opts}
            for word in re.findall(r"(?<![\w-])--[\w-]+", " ".join(words)):
                assert word in options, f"{page.name}: oodbench {' '.join(words)}"


def test_every_command_is_in_the_readme():
    from oodbench.cli import main

    table = (REPOSITORY / "README.md").read_text("utf-8").split("## Commands")[1]
    assert [name for name in main.commands if f"oodbench {name}" not in table] == []


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([\w./-]+?)(?:#[\w-]+)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_named_in_the_docs_exist():
    pages = [*PAGES, REPOSITORY / "CONTRIBUTING.md"]
    pattern = re.compile(r"`((?:oodbench|tests|configs|docs|benchmarks)/[\w./-]+)`")
    for page in pages:
        for path in pattern.findall(page.read_text("utf-8")):
            assert (REPOSITORY / path).exists(), f"{page.name}: {path}"


# --- docs/rows.md

EVERY = "Fields of every row"
NAMED_BY_DATA = {
    "cost": "PASS", "correlation": "BASELINE", "inputs.models": "MODEL", "paired": "METRIC", "trained_on": "MODEL",
    "left_out_checked": "SET",
}  # fmt: skip
"""Objects whose fields are names, and the word that the page has for them."""


def documented():
    """Heading → fields named in the first columns of its tables; kinds as ``file/kind``."""
    found, heading, file = {}, "", ""
    for line in (REPOSITORY / "docs" / "rows.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            heading = file = line[3:]
        elif line.startswith("### "):
            heading = f"{file}/{line[4:]}"
        elif field := re.match(r"\| `([^`]+)` \|", line):
            found.setdefault(heading, []).append(field[1])
    assert all(len(set(names)) == len(names) for names in found.values())
    return {heading: set(names) for heading, names in found.items()}


def fields(value, path=""):
    """Names of all that a value holds, as the page writes them."""
    inside = value[0] if isinstance(value, list) and value else value
    if not isinstance(inside, dict) or not inside:
        return {path}
    if inside is not value:
        return set().union(*(fields(one, f"{path}[]") for one in value))
    own = set()
    for name, below in value.items():
        shown = NAMED_BY_DATA.get(path, re.sub("^auroc_.*", "auroc_SET", name) if path else name)
        own |= fields(below, f"{path}.{shown}" if path else shown)
    return own


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """What a small suite stores: ``file`` or ``file/kind`` → fields; and its folder."""
    folder = tmp_path_factory.mktemp("stored")
    suite = Suite(
        name="small", title="Each kind of row", models=["glow-fashionmnist"],
        pairs=[{"in_dist": "fashionmnist", "ood": ["mnist"]}],
        scorers=["likelihood", "typicality", "ensemble-likelihood", "likelihood-regret", "pixel-mean",
                 "pixel-mean-two-sided"],
        limit=12, bootstrap=5, analysis={"images": 4, "samples": 2, "probes": 2, "gray": (0, 50)},
    )  # fmt: skip
    run_suite(suite, Options(), folder)
    archive_scores(folder, folder / "scores.tar")
    return folder


def written(folder):
    found = {}
    for path in folder.glob("*.jsonl"):
        for row in read_rows(path):
            assert row["schema"] == SCHEMA
            heading = f"{path.name}/{row['kind']}" if "kind" in row else path.name
            found.setdefault(heading, set()).update(fields(row))
    return found


def parents(names):
    """The objects that dotted names lie in."""
    return {name.rsplit(".", n)[0] for name in names for n in range(1, 1 + name.count("."))}


def test_rows_md_names_every_stored_field(stored):
    page = documented()
    for heading, names in written(stored).items():
        known = page[EVERY] | page.get(heading.split("/")[0], set()) | page.get(heading, set())
        assert names - known - parents(known) == set(), heading


def test_rows_md_names_no_field_that_is_not_stored(stored):
    page, found = documented(), written(stored)
    of_kinds = {f"analysis.jsonl/{kind}" for kind in RULES} | {
        f"curves.jsonl/{kind}" for kind in RULES
    }
    assert {heading for heading in found if "/" in heading} - {"curves.jsonl/roc"} <= of_kinds
    assert {heading for heading in page if "/" in heading and "jsonl" in heading} == {
        heading for heading in found if "/" in heading
    }
    assert page[EVERY] - set().union(*found.values()) == set()
    for heading, names in page.items():
        if ".jsonl" not in heading:
            continue
        stored_there = set().union(
            *(
                own
                for other, own in found.items()
                if other == heading or other.startswith(f"{heading}/")
            )
        )
        # a VAE's terms, which the flow of this suite has not
        others = set(TERMS) if heading == "analysis.jsonl/likelihood" else set()
        assert names - stored_there - others - parents(stored_there) == set(), heading


def test_rows_md_names_the_record_of_an_archive(stored):
    assert documented()["scores/ and scores.json"] == set(
        json.loads((stored / "scores.json").read_text())
    )


# --- the public names


def test_public_names_are_shown_and_typed():
    assert set(ob.__all__) <= set(dir(ob))
    for name in ob.__all__:
        assert getattr(ob, name) is not None
    source = (PACKAGE / "__init__.py").read_text("utf-8")
    typed = source.split("if TYPE_CHECKING:")[1].split("\n\n")[0]
    lines = re.findall(r"from (\S+) import (\w+) as (\w+)", typed)
    assert {(name, module) for module, name, same in lines if name == same} == set(
        ob._PUBLIC.items()
    )
    assert (PACKAGE / "py.typed").exists()
