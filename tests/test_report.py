"""Leaderboards are a pure function of the stored rows."""

from __future__ import annotations

import json
import os
import random as shuffling
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oodbench.data.identifiers import without_counts
from oodbench.errors import StoreError
from oodbench.metrics import METRICS
from oodbench.report import check_report, foreign_files, write_report
from oodbench.report.leaderboard import write_overview
from oodbench.report.page import prose
from oodbench.report.tables import (
    Notes,
    file_names,
    metric_cell,
    scorer_takes,
    short_name,
    slug,
    without_view,
)
from oodbench.report.tables import text as literal
from oodbench.store import write_rows


@pytest.mark.parametrize("name", ["cifar10", "v1.0@home [x]", "flowers/train", "a[2]", "ü b@c,d"])
@pytest.mark.parametrize("tail", ["/test", "/all[20 drawn]", "[60/20/20]/ref[first 30]"])
@pytest.mark.parametrize("view", ["", "@square,pad32"])
def test_odd_names_are_shown_whole(name, tail, view):
    assert short_name(name + tail + view) == name
    assert without_view(name + tail + view) == name + tail
    assert without_counts(f"{name}/test[first 30]{view}") == f"{name}/test{view}"
    assert without_counts(f"{name}[12 shared]") == name


def row(scorer="likelihood", auroc=0.1, **changes):
    estimates = {f"{name}{end}": auroc for name in METRICS for end in ("", "_low", "_high")}
    given = (
        {
            "schema": 3,
            "suite": "t",
            "status": "ok",
            "model": "glow",
            "likelihood": "exact",
            "in_dist": "a/test",
            "in_dist_name": "a",
            "ood": "b/test",
            "scorer": scorer,
            "baseline": False,
            "tunes_on": "none",
            "group_size": 1,
            "seed": 0,
            "n_in": 100,
            "n_ood": 300,
            "base_rate": 0.75,
            "in_dist_bits_per_dim": 3.0,
            "ood_bits_per_dim": 2.0,
            "shared_images": 0,
            "synthetic": False,
            "passes": ["density of glow"],
            "provenance": {"density of glow": {"torch": "2", "device": "cpu", "machine": "x"}},
        }
        | estimates
        | changes
    )
    cost = {
        name: {"ms_per_image": 2.5, "cpu_ms_per_image": 2.0, "device": "cpu"}
        for name in given["passes"]
    }
    return {
        "key": f"{given['model']} {given['ood']} {scorer} {given['group_size']}",
        "cost": cost,
    } | given


BASELINE = {"baseline": True, "passes": ["moments"]}


def skip(scorer="ratio", **changes):
    return {
        "schema": 3,
        "suite": "t",
        "status": "skipped",
        "reason": "no background",
        "in_dist_name": "a",
        "in_dist": "a",
        "ood": "b",
        "model": "glow",
        "scorer": scorer,
        "key": "s",
    } | changes


def pages(folder, rows, **files):
    write_rows(folder / "rows.jsonl", rows)
    for name, lines in files.items():
        write_rows(folder / f"{name}.jsonl", lines)
    return {path.name: path.read_text() for path in write_report(folder)}


def test_pages_do_not_depend_on_the_order_of_rows(tmp_path):
    rows = [
        row(scorer, value, ood=ood)
        for scorer, value in (("x", 0.9), ("y", 0.7))
        for ood in ("b/test", "c/test")
    ]
    first = pages(tmp_path / "one", rows)
    shuffling.Random(0).shuffle(rows)
    assert pages(tmp_path / "two", rows) == first
    assert "Do not edit" in first["README.md"]


def test_check_fails_when_a_page_differs(tmp_path):
    pages(tmp_path, [row()])
    assert check_report(tmp_path) == []
    (tmp_path / "a.md").write_text((tmp_path / "a.md").read_text().replace(".100", ".900"))
    (tmp_path / "README.md").unlink()
    faults = "\n".join(check_report(tmp_path))
    assert "a.md differs from what its rows give" in faults
    assert "README.md is missing" in faults


def test_pages_without_rows_are_found_and_removed(tmp_path):
    pages(tmp_path, [row()])
    (tmp_path / "old.md").write_text((tmp_path / "a.md").read_text())
    (tmp_path / "notes.md").write_text("by hand")
    assert "old.md has no rows any more" in check_report(tmp_path)[0]
    write_report(tmp_path)
    assert not (tmp_path / "old.md").exists()
    assert (tmp_path / "notes.md").exists()


def test_aupr_stands_beside_its_base_rate(tmp_path):
    page = pages(tmp_path, [row()])["a-details.md"]
    rates = [
        text.split("|")[2].strip()
        for text in page.splitlines()
        if text.startswith("| *a constant score*")
    ]
    assert rates == [".750", ".250"]


def line(page, start):
    return next(text for text in page.splitlines() if text.startswith(start))


def test_worse_than_chance_is_marked_and_never_folded(tmp_path):
    made = pages(tmp_path, [row(auroc=0.1), row("base", 0.2, **BASELINE)])
    assert ".100 ±.000 ▼ ‡" in line(made["a.md"], "| likelihood")
    assert ".200 ±.000 ▼ " in line(made["a.md"], "| *base* (model-free)")
    assert ".200 <sub>base</sub>" in line(made["README.md"], "| *best baseline*")


def test_incomplete_scorers_are_not_ranked(tmp_path):
    rows = [row("full", 0.6), row("full", 0.7, ood="c/test"), row("half", 0.99)]
    overview = pages(tmp_path, rows)["README.md"]
    assert "**Best over all: full**, mean AUROC .650" in overview
    names = [text.split("|")[1].strip() for text in overview.splitlines() if text.startswith("| ")]
    assert names.index("full") < names.index("half")


def test_models_are_ranked_apart(tmp_path):
    rows = [
        row("x", 0.9),
        row("x", 0.2, model="other", likelihood="ELBO"),
        row("y", 0.5, model="other", likelihood="ELBO"),
    ]
    overview = pages(tmp_path, rows)["README.md"]
    assert "| exact" in line(overview.split("Models and their fits")[1], "| glow")
    assert "a bound: ELBO" in line(overview.split("Models and their fits")[1], "| other")
    cells = {text.split("|")[1].strip(): text for text in overview.splitlines() if text[:1] == "|"}
    assert [one.strip() for one in cells["x"].split("|")[2:4]] == [".900 ±.000", ".200 ±.000 ▼"]
    assert [one.strip() for one in cells["y"].split("|")[2:4]] == ["", ".500 ±.000"]


def test_a_skipped_scorer_is_not_ranked_and_says_why(tmp_path):
    made = pages(tmp_path, [row("x", 0.9), skip(reason="glow has no background model")])
    for page in ("README.md", "a.md"):
        assert made[page].count("- **ratio**: glow: has no background model") == 1


def test_unlike_rows_are_never_ranked_together(tmp_path):
    rows = [row("x", 0.9), row("y", 0.7, ood="b/test[:50]")]
    overview = pages(tmp_path, rows)["README.md"]
    assert "Best over all" not in overview
    assert "| → b/test " in overview
    assert "| → b/test[:50]" in overview


def test_synthetic_sets_are_shown_but_not_averaged(tmp_path):
    made = pages(tmp_path, [row("x", 0.2), row("x", 1.0, ood="noise/test", synthetic=True)])
    assert "mean AUROC .200" in made["README.md"]
    assert "noise" not in line(made["README.md"], "| scorer")
    assert "noise/test" in made["a-details.md"]


def test_groups_stand_apart_from_single_images(tmp_path):
    made = pages(tmp_path, [row("x", 0.2), row("x", 1.0, group_size=10, n_in=10, n_ood=30)])
    assert "1.000" not in line(made["README.md"], "| x")
    assert "groups of 10" in made["a-details.md"]


def test_failures_and_skips_keep_their_reasons(tmp_path):
    failed = row("y", status="failed", reason="y failed: boom")
    unmet = skip("", reason="no model", in_dist_name="z", in_dist="z", ood="a", model="")
    made = pages(tmp_path, [row("x", 0.9), failed, unmet])
    assert "FAILED[^1]" in made["a.md"]
    assert "[^1]: y failed: boom" in made["a.md"]
    assert "- z → a: no model" in made["README.md"]


def test_bounds_and_shared_images_are_marked(tmp_path):
    page = pages(tmp_path, [row("x", 0.9, likelihood="ELBO", shared_images=7)])["a-details.md"]
    assert "not exact (a bound: ELBO)" in page
    assert "7 images of a/test occur, pixel by pixel, in b/test too" in page


def taking(passes, wall, cpu=None, device="cpu"):
    cost = {"ms_per_image": wall, "cpu_ms_per_image": cpu, "device": device}
    return {"passes": passes, "tunes_on": "in-dist ref", "cost": dict.fromkeys(passes, cost)}


def test_what_a_scorer_takes_adds_up():
    rows = [taking(["png", "density of a"], 1.25, 1.0), taking(["png", "density of b"], 1.75, 1.5)]
    assert scorer_takes(rows) == ["1", "2.50–3.50 (CPU 2.00–3.00)", "in-dist ref"]
    assert scorer_takes([taking(["png"], 1.5)]) == ["0", "1.50", "in-dist ref"]
    apart = [taking(["a of b"], 4.0, 4.0), taking(["a of b"], 1.0, 0.5, "cuda")]
    assert scorer_takes(apart)[1] == "4.00 (CPU 4.00); 1.00 (CPU 0.50) (cuda)"
    assert scorer_takes([{"passes": ["a of b"], "tunes_on": "none"}]) == ["1", "–", "none"]


def test_cells_and_notes():
    notes = Notes()
    assert metric_cell(None, "auroc", notes) == ""
    assert metric_cell(row(auroc=0.5), "auroc", notes) == ".500 ±.000"
    assert "too few for an interval" in metric_cell(row(auroc_low=None), "auroc", notes)
    assert notes.mark("x") == notes.mark("x") == "[^1]"
    assert slug("cifar10/test[:2000]@grey") == "cifar10-test-2000-grey"


def test_an_interval_beside_its_own_value_says_so():
    notes = Notes()
    sides = row() | {"aupr_ood": 0.5, "aupr_ood_low": 0.51, "aupr_ood_high": 0.6}
    assert metric_cell(sides, "aupr_ood", notes) == ".500 ±.045[^1]"
    assert "leaves out its own value" in notes.text()
    assert metric_cell(sides | {"aupr_ood": 0.55}, "aupr_ood", Notes()) == ".550 ±.045"


def test_published_bits_and_the_model_s_size_stand_beside_its_own(tmp_path):
    known = row(model="pixelcnn-cifar10", in_dist_bits_per_dim=3.73)
    page = pages(tmp_path, [known, row(model="vae-cifar10"), row(model="mine")])["README.md"]
    lines = page.split("Models and their fits")[1].splitlines()
    assert "| 3.730 " in next(line for line in lines if line.startswith("| pixelcnn-cifar10"))
    own = next(line for line in lines if line.startswith("- pixelcnn-cifar10"))
    assert own.startswith(
        "- pixelcnn-cifar10: small model: 0.90 M parameters, 3,000 steps; published bits/dim: 2.92 for the authors' own, far "
        "larger PixelCNN++ (Salimans et al. 2017)"
    )
    assert sum("none known for this family" in line for line in lines) == 1
    assert sum("published" in line for line in lines) == 2  # nothing is said of a user's model


def test_a_folder_without_rows_is_named(tmp_path):
    with pytest.raises(StoreError, match="has no rows; run the suite first"):
        write_report(tmp_path)


# older schemas


def older(scorer="likelihood", auroc=0.1, **changes):
    given = row(scorer, auroc, schema=2, id_bits_per_dim=3.0, **changes)
    given["provenance"] = {"versions": {"torch": "2"}, "device": "cpu", "machine": "x"}
    return {
        name: value for name, value in given.items() if name not in ("cost", "in_dist_bits_per_dim")
    }


COSTS = [{"schema": 2, "pass": "density of glow", "ms_per_image": 2.5, "device": "cpu"}]


def test_every_page_says_how_many_of_its_rows_are_of_an_older_schema(tmp_path):
    rows = [
        older("x", 0.9),
        row("y", 0.7),
        row("y", 0.6, ood="c/test", in_dist="z/test", in_dist_name="z"),
    ]
    made = pages(tmp_path, rows, costs=COSTS)
    said = "rows are of schema 2, measured before a row held the hash of its own values"
    assert f"1 of 3 {said}" in made["README.md"]
    assert f"1 of 3 {said}" in made["matrix.md"]
    assert f"1 of 2 {said}" in made["a.md"]
    assert "schema" not in made["z.md"]
    assert "| 3.000 " in line(made["README.md"].split("Models and their fits")[1], "| glow")
    assert "| 2.50 " in line(made["a-details.md"].split("<summary>Cost")[1], "| x ")
    assert "Measured with torch 2 on cpu (x)." in made["README.md"]


def test_figures_of_older_rows_that_lie_there_are_kept_and_linked(tmp_path):
    (tmp_path / "figures").mkdir()
    drawing = tmp_path / "figures" / "glow-roc.svg"
    drawing.write_bytes(b"drawn once")
    assert "![roc of glow](figures/glow-roc.svg)" in pages(tmp_path, [older()])["a.md"]
    assert drawing.read_bytes() == b"drawn once"
    assert check_report(tmp_path) == []
    assert "roc" not in pages(tmp_path, [row()])["a.md"]


# two rows for one cell, and rows that stand beside


@pytest.mark.parametrize(
    ("name", "twice"),
    [
        ("rows", row()),
        (
            "analysis",
            {
                "kind": "training",
                "model": "glow",
                "in_dist": "a/test",
                "role": "test",
                "images": "a/test",
                "seed": 0,
                "schema": 3,
                "status": "ok",
                "log": [],
            },
        ),
        (
            "comparisons",
            {"model": "glow", "in_dist": "a/test", "ood": "b/test", "seed": 0, "schema": 3},
        ),
        (
            "curves",
            {
                "kind": "roc",
                "model": "glow",
                "in_dist": "a/test",
                "ood": "b/test",
                "scorer": "x",
                "seed": 0,
                "schema": 3,
            },
        ),
    ],
)
def test_two_rows_for_one_cell_raise_and_name_both(tmp_path, name, twice):
    files = {
        "rows": [row()],
        name: [twice | {"key": "first"}, twice | {"key": "second", "auroc": 0.7}],
    }
    with pytest.raises(
        StoreError, match=r"two rows are for one cell .*(first and second|second and first)"
    ):
        pages(tmp_path, files.pop("rows"), **files)
    assert not (tmp_path / "README.md").exists()


def test_rows_of_another_seed_or_limit_stand_beside_told_apart(tmp_path):
    small = {"in_dist": "a/test[:50]", "ood": "b/test[:50]"}
    rows = [
        row(auroc=0.1, key="1"),
        row(auroc=0.2, seed=1, key="2"),
        row(auroc=0.3, key="3", **small),
    ]
    made = pages(tmp_path, rows)
    heads = [
        "## glow on a/test, seed 0",
        "## glow on a/test, seed 1",
        "## glow on a/test[:50], seed 0",
    ]
    shown = made["a-details.md"]
    assert [text for text in shown.splitlines() if text.startswith("## glow")] == heads
    values = [
        line(text, "| likelihood").split("|")[2].strip() for text in shown.split("## glow")[1:]
    ]
    assert values == [".100 ±.000 ▼", ".200 ±.000 ▼", ".300 ±.000 ▼"]
    assert all(f"| {head[3:]} " in made["matrix.md"] for head in heads)


def test_the_spread_between_seeds_stands_beside_the_interval(tmp_path):
    rows = [
        row(auroc=0.10),
        row(auroc=0.13, seed=1),
        row(auroc=0.11, seed=2),
        row("typicality", 0.8),
    ]
    page = pages(tmp_path, rows)["README.md"]
    table = page.split("## Between seeds")[1].split("## ")[0]
    (cells,) = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in table.splitlines()
        if "likelihood" in line
    )
    assert [cell.split()[0] for cell in cells[3:6]] == ["0.100", "0.130", "0.110"]
    width = f"{rows[0]['auroc_high'] - rows[0]['auroc_low']:.3f}"
    assert cells[6:] == ["0.030", width]
    assert "typicality" not in table  # of one seed
    alone = pages(tmp_path / "alone", [row(auroc=0.1)])["README.md"]
    assert "Between seeds" not in alone


def test_one_seed_is_not_named(tmp_path):
    made = pages(tmp_path, [row()])
    assert "## glow\n" in made["a-details.md"]
    assert "seed 0" not in made["README.md"]


def test_two_parts_of_a_set_have_two_columns_in_the_matrix(tmp_path):
    rows = [row(auroc=value, ood=ood) for ood, value in (("svhn/test", 0.1), ("svhn10k/test", 0.9))]
    page = pages(tmp_path, rows)["matrix.md"]
    assert line(page, "| in-dist").replace(" ", "") == "|in-dist|model|svhn/test|svhn10k/test|"
    assert ".100 ▼" in line(page, "| a ")
    assert ".900" in line(page, "| a ")


# what a path or a plugin brought


HOSTILE = "a|b\n# `c` <script>[x](javascript:y) [^1]"


def in_order(made):
    """The front page, the matrix, and the pages of the in-dist set, whatever it is called; not ``leaderboard.html``, which is
    no markdown: names stand in its data."""
    fixed = {"README.md", "matrix.md", "leaderboard.html"}
    own = [made[name] for name in sorted(made.keys() - fixed, key=len)]
    return made["README.md"], made["matrix.md"], *own


DATA = re.compile(r'(?<=id="data">)(.*)(?=</script>\n)')
CODE = re.compile(r"``.*?``|`[^`]*`")
"""Commands, in which names stand as a shell reads them."""


def bars(line):
    return re.sub(r"\\\|", "", CODE.sub("", line)).count("|")


@pytest.mark.parametrize(
    "field", ["model", "scorer", "ood", "in_dist", "in_dist_name", "likelihood", "tunes_on"]
)
def test_a_name_is_shown_letter_by_letter_in_one_cell(tmp_path, field):
    plain, hostile = (row(**{"scorer": "x", field: name}, key="k") for name in ("plain", HOSTILE))
    boards, written = [], []
    for number, one in enumerate((plain, hostile)):
        made = pages(tmp_path / f"{number}", [one])
        boards.append(DATA.split(made["leaderboard.html"]))
        written.append(in_order(made))
    (before, _, after), (head, data, tail) = boards
    assert (head, tail) == (before, after)  # nothing outside of the data
    assert field == "in_dist_name" or HOSTILE in json.loads(data)["texts"]
    for page, other in zip(*written, strict=True):
        assert [bars(line) for line in other.splitlines()] == [
            bars(line) for line in page.splitlines()
        ]
        assert not re.search(r"(?<!\\)<(?!!--|/?(?:details|summary|sub|br)>)", CODE.sub("", other))
        assert not re.search(r"(?<!\\)\[x\]", CODE.sub("", other))


def test_reasons_keep_their_code_and_lose_their_markup(tmp_path):
    reason = "get it: `oodbench data fetch x`; ## no\n## heading | <b> [l](x) `"
    made = pages(tmp_path, [row(), row("y", status="failed", reason=reason), skip(reason=reason)])
    shown = r"get it: `oodbench data fetch x`; ## no ## heading \| \<b> \[l](x) \`"
    assert f"[^1]: {shown}\n" in made["a.md"]
    assert f"- **ratio**: glow: {shown}\n" in made["README.md"]
    assert literal("mnist/test[:500]") == "mnist/test[:500]"
    assert literal("[a](b)") == r"\[a](b)"


def test_html_shows_names_letter_by_letter():
    assert prose(literal("x <b>|`y` [l](z.md)")) == "x &lt;b&gt;|`y` [l](z.md)"
    assert prose("a `<b>` [l](z.md#a)") == 'a <code>&lt;b&gt;</code> <a href="z.md#a">l</a>'
    assert "<a" not in prose('[the log](javascript:alert(1)) [l](x" onclick="y)')


def test_names_never_share_a_file():
    names = file_names(["a b", "a-b", "A-B", "c", "readme", "…"], taken=["README"])
    assert len({own.lower() for own in names.values()}) == 6
    assert names["c"] == "c"
    assert names["readme"].startswith("readme-")


# files of others


def test_a_page_of_one_s_own_is_never_overwritten(tmp_path):
    mine = tmp_path / "README.md"
    mine.write_text("my own words")
    assert foreign_files(tmp_path) == [mine]
    with pytest.raises(StoreError, match=r"README\.md was not written by oodbench"):
        pages(tmp_path, [row()])
    assert mine.read_text() == "my own words"
    assert not (tmp_path / "a.md").exists()
    assert foreign_files(tmp_path) == [mine]
    mine.unlink()
    pages(tmp_path, [row()])
    assert foreign_files(tmp_path) == []


def test_which_files_are_foreign_before_there_are_rows(tmp_path):
    assert foreign_files(tmp_path / "none") == foreign_files(tmp_path) == []
    (tmp_path / ".hidden").touch()
    (tmp_path / "curves.jsonl").touch()
    assert foreign_files(tmp_path) == []
    (tmp_path / "thesis.tex").touch()
    assert foreign_files(tmp_path) == [tmp_path / "thesis.tex"]


def test_a_row_without_a_field_is_named(tmp_path):
    lacking = row(key="abc")
    del lacking["scorer"]
    with pytest.raises(StoreError, match=r"rows\.jsonl: the row abc lacks scorer"):
        pages(tmp_path, [lacking])


def test_pages_need_no_torch_and_nothing_but_the_folder(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [row()])
    program = (
        "import sys; from pathlib import Path; from oodbench.report import "
        f"write_report;write_report(Path({str(tmp_path)!r})); print([m for m in ('torch', 'matplotlib') "
        "if m in sys.modules])"
    )
    environment = {**os.environ, "OODBENCH_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["pages"]


def test_published_leaderboards_are_what_their_rows_give():
    published = [
        path.parent for path in (Path(__file__).parents[1] / "leaderboards").glob("*/rows.jsonl")
    ]
    assert published
    assert [fault for folder in published for fault in check_report(folder)] == []
    for folder in published:
        for text in (folder / "rows.jsonl").read_text().splitlines():
            assert json.loads(text)["suite"] == folder.name


def test_a_run_without_a_row_yet_has_no_front_page(tmp_path):
    write_overview(tmp_path)
    assert list(tmp_path.iterdir()) == []
    pages(tmp_path, [row("x", 0.9)])
    (tmp_path / "README.md").unlink()
    write_overview(tmp_path)
    assert "| x " in (tmp_path / "README.md").read_text("utf-8")
