"""A new scorer is judged on published columns, without torch, weights or images."""

from __future__ import annotations

import subprocess
import sys
import tarfile

import pytest
from click.testing import CliRunner

import oodbench as ob
from oodbench.cli import main
from oodbench.errors import DataError
from oodbench.published import Published, judge_columns
from oodbench.store import read_rows

PLUGIN = """
import oodbench as ob

@ob.register_scorer("half-likelihood")
def half(log_prob):
    \"\"\"Half of −log p(x).\"\"\"
    return -log_prob / 2
"""
NO_TORCH = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "pytorch_lightning"):
            raise ImportError(f"{name} is asked for")

sys.meta_path.insert(0, Refusing())
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    only = ["likelihood", "typicality", "input-complexity-png", "code-length-png"]
    ob.run("quick", folder / "run", limit=24, only=only, workers=1, quiet=True)
    names = [part for name in only for part in ("--only", name)]
    command = ["columns", "--suite", "quick", "--limit", "24", *names, "--out"]
    hashes = []
    for name in ("one.tar", "two.tar"):
        done = CliRunner().invoke(main, [*command, str(folder / name)])
        assert done.exit_code == 0, done.output
        hashes.append(done.output.split()[-1])
    assert hashes[0] == hashes[1]
    return folder


def test_judged_again_the_rows_are_those_of_the_run(packed):
    rows = judge_columns(packed / "one.tar", packed / "again")
    names = ("model", "in_dist", "ood", "scorer", "group_size")
    sound = [row for row in read_rows(packed / "run/rows.jsonl") if row["status"] == "ok"]
    measured = {tuple(row[name] for name in names): row for row in sound}
    met = 0
    for row in rows:
        own = measured.get(tuple(row[name] for name in names))
        if own and own["tunes_on"] != "validation OOD":
            met += 1
            assert row["auroc"] == pytest.approx(own["auroc"], abs=1e-3)
            assert row["seen"] == own["seen"]
            assert row["trained_on"] == own["trained_on"]
            assert row["inputs"]["images"]["ood"] == own["inputs"]["images"]["ood"]
    assert met == sum(row["group_size"] == 1 for row in measured.values())


def test_no_torch_is_needed(packed, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    judged = ["--scorer", "half-likelihood", "--scorer", "likelihood"]
    files = ["--columns", str(packed / "one.tar"), "--plugin", "mine.py", "--out", "out"]
    arguments = ["run", *files, *judged]
    code = f"{NO_TORCH}\nfrom oodbench.cli import main\nmain({arguments!r}, standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = read_rows(tmp_path / "out/rows.jsonl")
    aurocs = {(row["model"], row["ood"], row["scorer"]): row["auroc"] for row in rows}
    assert len(aurocs) > 1
    for (model, ood, scorer), value in aurocs.items():
        if scorer == "half-likelihood":
            assert value == aurocs[model, ood, "likelihood"]
    assert (tmp_path / "out/README.md").exists()


def test_a_damaged_or_foreign_file_is_named(packed, tmp_path):
    content = bytearray((packed / "one.tar").read_bytes())
    with tarfile.open(packed / "one.tar") as archive:
        column = next(one for one in archive if one.name.endswith(".npy"))
    content[column.offset_data + column.size - 1] ^= 1
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        judge_columns(tmp_path / "bad.tar", tmp_path / "out")
    (tmp_path / "none.tar").write_bytes(b"no archive")
    with pytest.raises(DataError, match="no file of columns"):
        Published(tmp_path / "none.tar")
