"""A run's results for other programs and for papers, and what the terminal says of them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.cells import cell_len

import oodbench as ob
from oodbench.citing import FAMILIES, cite
from oodbench.cli import main
from oodbench.data.images import load_images
from oodbench.errors import OodbenchError
from oodbench.exporting import as_csv, escaped, export, latex
from oodbench.report.results import read_results
from oodbench.store import SEALS, read_rows, write_rows
from oodbench.zoo.families import FAMILIES as KNOWN

PAPER = Path(__file__).parents[1] / "leaderboards" / "paper"


def typed(*arguments, code=0):
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, done.output + done.stderr
    return done.output + done.stderr


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "quick"
    ob.run("quick", folder, limit=20, workers=1, quiet=True)
    return folder


def test_the_long_form_has_each_field_of_each_row():
    rows = [row for row in read_rows(PAPER / "rows.jsonl") if row["status"] != "skipped"]
    frame = ob.results(PAPER)
    assert len(frame) == len(rows)
    by_key = frame.set_index("key")
    row = rows[7]
    line = by_key.loc[row["key"]]
    assert line["auroc"] == row["auroc"]
    assert line["inputs.images.ood"] == row["inputs"]["images"]["ood"]
    assert not set(SEALS) & set(frame.columns)


def test_the_wide_form_keeps_groups_apart_and_leaves_missing_ones_blank(tmp_path):
    rows = read_rows(PAPER / "rows.jsonl")
    failed = next(row for row in rows if row["status"] == "ok" and row["group_size"] == 1)
    failed |= {"status": "failed", "reason": "for a test"}
    del failed["auroc"]
    write_rows(tmp_path / "rows.jsonl", rows)
    frame = ob.results(tmp_path, "wide")
    assert "group_size" in frame.index.names
    names = ("model", "in_dist", "ood", "group_size")
    lines = {tuple(row[name] for name in names) for row in rows if row["status"] != "skipped"}
    assert len(frame) == len(lines)
    place = tuple(failed[name] for name in frame.index.names)
    assert np.isnan(frame.loc[place, failed["scorer"]])
    single = ob.results(tmp_path, "wide", "fpr95_ood", group_size=1)
    assert set(single.index.get_level_values("group_size")) == {1}
    with pytest.raises(OodbenchError, match="auroc"):
        ob.results(tmp_path, "wide", "aurok")
    with pytest.raises(OodbenchError, match="group size 7"):
        ob.results(tmp_path, group_size=7)


def test_csv_holds_every_row_and_no_formula(tmp_path):
    read = list(csv.DictReader(io.StringIO(export(PAPER, "csv").decode())))
    rows = read_results(PAPER).tried
    assert [float(line["auroc"]) for line in read] == [row["auroc"] for row in rows]
    frame = pd.DataFrame({"model": ["=1+1", "+x", "-x", "@x", "glow"], "auroc": [-0.5, 1, 2, 3, 4]})
    cells = as_csv(frame).decode().splitlines()[1:]
    assert cells == ["'=1+1,-0.5", "'+x,1.0", "'-x,2.0", "'@x,3.0", "glow,4.0"]


def test_json_holds_the_same_numbers():
    found = {one["key"]: one["auroc"] for one in json.loads(export(PAPER, "json", group_size=1))}
    rows = [row for row in read_results(PAPER).tried if row["group_size"] == 1]
    assert found.keys() == {row["key"] for row in rows}
    for row in rows:
        assert found[row["key"]] == pytest.approx(row["auroc"], abs=1e-14)


def test_latex_has_the_best_and_its_ties_in_bold():
    found = read_results(PAPER)
    text = latex(found)
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(found.subjects())
    for row in found.comparisons[:6]:
        names = [
            one for one in row["scorers"] if one not in (*row["baselines"], *row.get("tuned", ()))
        ]
        best = max(names, key=lambda name: row["auroc"][row["scorers"].index(name)])
        value = row["auroc"][row["scorers"].index(best)]
        table = next(one for one in text.split(r"\begin{table}") if f"with {row['model']}" in one)
        line = next(one for one in table.splitlines() if one.startswith(f"{best} &"))
        assert rf"\textbf{{{value:.3f}}}" in line
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert not re.search(r"(?<!\\)[_%#]", line)
    assert escaped("a_b & 5 %") == r"a\_b \& 5 \%"


def test_parquet_is_read_back_or_says_what_is_needed(tmp_path):
    if find_spec("pyarrow") is None:
        with pytest.raises(OodbenchError, match="pip install"):
            export(PAPER, "parquet")
        return
    frame = pd.read_parquet(io.BytesIO(export(PAPER, "parquet")))
    assert len(frame) == len(read_results(PAPER).tried)


def test_per_image_scores_name_their_images(run_folder):
    frame = pd.read_csv(io.StringIO(export(run_folder, "csv", of_scores=True).decode()))
    single = frame[(frame["group_size"] == 1) & (frame["scorer"] == "likelihood")]
    one = single.iloc[3]
    pixels = load_images(one["set"]).images[one["image"]]
    assert one["image_sha256"] == hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()
    grouped = frame[frame["group_size"] > 1]
    assert grouped["image_sha256"].isna().all()


def test_a_bibliography_names_every_work_once():
    bibliography, protocol = cite(PAPER)
    keys = re.findall(r"@\w+\{([^,]+),", bibliography)
    assert len(keys) == len(set(keys))
    for number in ("1807.03039", "1701.05517", "1708.07747", "1906.02994", "1909.11480"):
        assert bibliography.count(f"eprint = {{{number}}}") == 1
    assert bibliography.count("{") == bibliography.count("}")
    assert "author = {Xiao and Rasul and Vollgraf}" in bibliography
    rows = read_results(PAPER).tried
    assert f"{len({row['model'] for row in rows})} deep generative models" in protocol
    assert "Groups of 2, 5, 10, 25 images" in protocol


def test_every_family_has_its_reference():
    assert set(FAMILIES) == set(KNOWN)


def test_commands_write_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "rows.tex" in typed("export", str(PAPER), "--format", "latex")
    assert r"\toprule" in (tmp_path / "rows.tex").read_text()
    assert "entries" in typed("cite", str(PAPER), "--out", "used.bib")
    assert "@software{oodbench" in (tmp_path / "used.bib").read_text()
    assert "no table of a paper" in typed(
        "export", str(PAPER), "--format", "latex", "--scores", code=1
    )


def test_compare_ends_in_a_verdict(tmp_path, monkeypatch):
    printed = typed("compare", "typicality", "likelihood", "--results", str(PAPER))
    last = printed.strip().splitlines()[-1]
    counts = dict(re.findall(r"(better|worse|undecided) on (\d+)", last))
    assert sum(map(int, counts.values())) == int(re.search(r"of (\d+) pairs", last)[1])
    shown = [line.split() for line in printed.splitlines() if "→" in line]
    assert len(shown) == int(re.search(r"of (\d+) pairs", last)[1])
    asked = ("compare", "typicality", "likelihood", "--results", str(PAPER))
    assert "of 1 pair." in typed(*asked, "--model", "glow-cifar10", "--pair", "cifar10:svhn")
    assert "IN_DIST:OOD" in typed(*asked, "--pair", "cifar10", code=1)
    assert "there are" in typed(*asked, "--model", "nobody", code=1)


def test_the_last_run_is_the_default(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder.parents[1])
    run_folder.parent.rename(run_folder.parents[1] / "runs")
    printed = typed("compare", "typicality", "likelihood")
    (run_folder.parents[1] / "runs").rename(run_folder.parent)
    assert printed.strip().splitlines()[-1].startswith("runs/quick: ")


@pytest.mark.parametrize("what", ["models", "data", "scorers", "statistics", "suites"])
def test_lists_fit_eighty_columns(what):
    assert max(map(cell_len, typed("list", what).splitlines())) <= 80
    objects = [json.loads(line) for line in typed("list", what, "--json").splitlines()]
    name = next(iter(objects[0]))
    assert objects[0][name] in typed("list", what, "--wide")


def test_help_says_where_to_start():
    printed = typed("--help")
    assert printed.count("  oodbench run --") == 2
    assert "oodbench compare" in printed
    for line in re.findall(
        r"^ +(oodbench run --suite \w+|oodbench compare \S+ \S+)", printed, re.M
    ):
        assert line.split()[1] in main.commands


def test_a_shell_completes_names(tmp_path):
    def completed(*words):
        asked = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        environment = {**os.environ, **asked, "_OODBENCH_COMPLETE": "bash_complete"}
        code = "from oodbench.cli import main; main(prog_name='oodbench')"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        return {line.partition(",")[2] for line in done.stdout.splitlines()}

    names = completed("oodbench", "show", "glow-svh")
    assert "glow-svhn" in names
    assert all(name.startswith("glow-svh") for name in names)
    assert "paper" in completed("oodbench", "run", "--suite", "pap")
    assert "typicality" in completed("oodbench", "compare", "typi")


def test_doctor_names_versions_data_and_what_is_missing(home):
    printed = typed("doctor")
    assert f"oodbench {ob.__version__}" in printed
    assert "cores: " in printed
    assert re.search(r"torch \d+\.\d+", printed)
    assert "`oodbench data fetch" in printed
    assert str(home) in printed
