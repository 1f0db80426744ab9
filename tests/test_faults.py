"""Faults within a run: signals, half-written files, rights, hangs, memory, prints; and drawings of others."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from oodbench.errors import ModelError, OodbenchError
from oodbench.foreign import inside
from oodbench.passes.batches import batch_size_of, run_pass
from oodbench.passes.executors import Failure, executor_for
from oodbench.paths import UNFINISHED, sweep, write_whole
from oodbench.registry import statistics
from oodbench.report.drawn import _can_be_shown
from oodbench.report.harmless import is_harmless
from oodbench.signals import Stopped, stoppable, uninterrupted
from oodbench.testing import UniformModel

SIGNALS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131), (signal.SIGINT, 130)]
WAITING = """
import sys, time, click
from oodbench.commands.edge import Commands
@click.group(cls=Commands)
def group(): pass
@group.command()
def wait():
    print("ready", flush=True)
    time.sleep(60)
group()
"""


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_is_one_sentence_and_its_exit_code(number, code):
    run = subprocess.Popen(
        [sys.executable, "-c", WAITING, "wait"], text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert run.stdout.readline() == "ready\n"
    run.send_signal(number)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == code
    assert said.count("What is finished is kept: the same command goes on from here.") == 1
    assert "Traceback" not in said


def test_signals_are_raised_where_they_may_and_only_there():
    with pytest.raises(Stopped, match="SIGTERM"), stoppable():
        signal.raise_signal(signal.SIGTERM)
    done = []
    with pytest.raises(Stopped, match="SIGHUP"), stoppable(), uninterrupted():
        done.append([signal.raise_signal(number) for number in (signal.SIGHUP, signal.SIGINT)])
    assert done
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_that_was_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_killed_process_left_is_swept_and_what_is_written_stays(tmp_path):
    left = tmp_path / "ab" / f".x.npz.12{UNFINISHED}"
    left.parent.mkdir()
    left.write_bytes(b"half")

    def write(file):
        file.write(b"whole")
        assert sweep(tmp_path) == 1

    write_whole(tmp_path / "ab" / "y.npz", write)
    assert not left.exists()
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["y.npz"]
    assert (tmp_path / "ab" / "y.npz").read_bytes() == b"whole"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "x", lambda file: file.write(b"x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~umask


class Sleeps:
    here = False

    def perform(self):
        time.sleep(60)

    def __str__(self):
        return "sleeping"


def test_what_takes_too_long_has_failed_and_leaves_no_process(tmp_path):
    with executor_for(1, timeout=3.0) as executor:
        executor.submit(Sleeps())
        ((_, result),) = executor.results()
    assert isinstance(result, Failure)
    assert result.sentence == "sleeping took more than the 3 s of --timeout"


class Large(UniformModel):
    """Fits five images at a time, and says so as torch, or as Python, does."""

    error: Exception = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
    fits = 5

    def log_prob(self, x):
        if len(x) > self.fits:
            raise self.error
        return -x.double().flatten(1).sum(1)


@pytest.mark.parametrize("error", [Large.error, MemoryError()])
def test_a_batch_that_does_not_fit_is_halved_and_scores_do_not_change(error, random):
    model, images = Large((1, 4, 4)), random.integers(0, 256, (70, 1, 4, 4), dtype=np.uint8)
    model.error = error
    found = run_pass(statistics["log_prob"], model, images)["log_prob"]
    assert np.array_equal(found, -images.reshape(70, -1).astype(float).sum(1))
    assert batch_size_of(model) == 4
    model.fits = 0
    with pytest.raises(ModelError, match="needs more memory for one image than is free"):
        run_pass(statistics["log_prob"], model, images)


def test_other_errors_of_torch_are_no_want_of_memory(random):
    model = Large((1, 4, 4))
    model.error = RuntimeError("shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="multiplied"):
        run_pass(
            statistics["log_prob"], model, random.integers(0, 256, (70, 1, 4, 4), dtype=np.uint8)
        )


PRINTS = """
import oodbench as ob
from oodbench.testing import UniformModel
@ob.register_model("prints")
class Prints(UniformModel):
    trained_on = "fashionmnist"
    def log_prob(self, x):
        print("a word of the model")
        return super().log_prob(x)
"""


def test_what_a_model_prints_is_no_line_of_json(tmp_path):
    (tmp_path / "p.py").write_text(PRINTS)
    (tmp_path / "s.yaml").write_text(
        "name: s\ntitle: t\nmodels: [prints]\nlimit: 12\nbootstrap: 0\nplugins: [p.py]\n"
        "pairs: [{in_dist: fashionmnist, ood: [mnist]}]\nscorers: [likelihood]\n"
    )
    argv = ["run", "--suite", "s.yaml", "--out", "out", "--workers", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "oodbench", *argv], cwd=tmp_path, capture_output=True, text=True, timeout=600,
        env={**os.environ, "OODBENCH_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert events[0] == "plan"
    assert events[-1] == "end"
    assert "a word of the model" in done.stderr


HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'


@pytest.mark.parametrize("inner", [
    "<script>alert(1)</script>", '<g onload="alert(1)"/>', '<a href="https://x.org"><text>x</text></a>',
    '<use xlink:href="https://x.org/a.svg#b"/>', "<style>@import 'https://x.org'</style>", "<foreignObject/>",
    '<rect style="fill: url(https://x.org)"/>', "<?x ><script>alert(1)</script>?>", "<![CDATA[<script>]]>",
    '<image href="https://x.org/a.png"/>', "<g>",
])  # fmt: skip
def test_a_drawing_that_runs_or_loads_something_is_not_shown(tmp_path, inner):
    assert not is_harmless(f"{HEAD}{inner}</svg>")
    assert not is_harmless(f"<!-- <svg onload=x> -->{HEAD}</svg>")
    (tmp_path / "x.svg").write_text(f"{HEAD}{inner}</svg>")
    assert not _can_be_shown(tmp_path / "x.svg")
    assert is_harmless(f'{HEAD}<g><!-- 0.5 --><path d="M0 0"/><use xlink:href="#a"/></g></svg>')


def test_every_published_figure_is_harmless():
    figures = sorted((Path(__file__).parents[1] / "leaderboards").glob("*/figures/*.svg"))
    assert len(figures) > 10
    assert [path.name for path in figures if not _can_be_shown(path)] == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", None, 3, "x\0y"])
def test_no_name_in_a_file_leads_out_of_its_folder(tmp_path, name):
    with pytest.raises(OodbenchError, match="not below"):
        inside(tmp_path, name, OodbenchError, "rows.jsonl")
    assert inside(tmp_path, "a/b.png", OodbenchError, "rows.jsonl") == tmp_path / "a" / "b.png"
