"""Runs that share a cache make each shard once, and what a killed one had claimed is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing import get_context

import pytest
from click.testing import CliRunner

from oodbench.cli import main
from oodbench.passes import queue
from oodbench.passes.claims import Claims
from oodbench.passes.executors import Failure, Serial
from oodbench.passes.queue import Queue
from oodbench.plan import make_plan
from oodbench.runner import Options, adapted, measure_part, run_suite
from oodbench.store import ColumnStore, Shard, read_rows
from oodbench.suite import load_suite
from oodbench.trials.results import ResultsFolder
from oodbench.work import Part, part_left, work_left

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def quick():
    return adapted(load_suite("quick"), 40, None, ())


def test_one_run_at_a_time_has_a_claim(home):
    with Claims() as one, Claims() as other:
        assert one.take(KEY)
        assert not other.take(KEY)
        assert other.take(OTHER)
        one.release(KEY)
        assert other.take(KEY)
        one.release(KEY)  # not its own any more
        assert not one.take(KEY)
    assert [path.name for path in (home / "claims").iterdir() if path.name != ".lock"] == []


def foreign_claim(home, machine="another"):
    """A run of another machine that claims KEY."""
    own = home / "claims" / "run-foreign"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(json.dumps({"machine": machine, "process": 1}))
    os.link(own, home / "claims" / KEY)
    return own


def test_a_lease_of_another_machine_runs_out_without_touches(home):
    own = foreign_claim(home)
    with Claims(lease=0.5) as claims:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            assert not claims.take(KEY)
            os.utime(own)
            time.sleep(0.05)
        began = time.monotonic()
        while not claims.take(KEY):
            assert time.monotonic() - began < 10
            time.sleep(0.05)
        assert time.monotonic() - began > 0.4


def test_a_clock_that_is_wrong_takes_no_claim_away(home):
    own = foreign_claim(home)
    with Claims(lease=30) as claims:
        assert claims.take(OTHER)  # the sweep is over
        for moment in (0, 2**32):
            os.utime(own, (moment, moment))
            assert not claims.take(KEY)


def test_a_run_renews_its_claims(home):
    with Claims(lease=0.6) as one, Claims(lease=0.6) as other:
        assert one.take(KEY)
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert not other.take(KEY)
            time.sleep(0.1)


KILLED = f"""
import os, signal
from oodbench.passes.claims import Claims
Claims().take("{KEY}")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_of_this_machine_loses_its_claims_at_once(home):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", KILLED], env=env)
    assert ended.returncode == -signal.SIGKILL
    assert (home / "claims" / KEY).exists()
    with Claims() as claims:
        assert claims.take(KEY)
    assert sorted(path.name for path in (home / "claims").iterdir()) == [".lock"]


def test_many_runs_that_find_a_stale_claim_take_it_over_once(home):
    foreign_claim(home)
    runs = [Claims(lease=0.2) for _ in range(8)]
    taken, gate = [], threading.Barrier(len(runs))

    def try_it(claims):
        claims.take(KEY)
        time.sleep(0.3)
        gate.wait()
        taken.append(claims.take(KEY))

    threads = [threading.Thread(target=try_it, args=(claims,)) for claims in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for claims in runs:
        claims.__exit__()
    assert sum(taken) == 1


@dataclass(frozen=True)
class Making:
    """A job of the cache; ``made`` is what lies there, ``fails`` whether it cannot be made."""

    key: str
    made: set[str]
    after: frozenset[str] = frozenset()
    here: bool = False
    fails: bool = False
    __hash__ = object.__hash__

    @property
    def label(self):
        return self.key

    @property
    def done(self):
        return self.key in self.made

    def perform(self):
        if self.fails:
            raise ValueError("it cannot be made")
        self.made.add(self.key)
        return 1


def test_a_queue_takes_for_done_what_another_run_made_and_goes_on_meanwhile(home, monkeypatch):
    monkeypatch.setattr(queue, "ASK", 0.01)
    made: set[str] = set()
    first, last = Making("1" * 64, made), Making("2" * 64, made, frozenset(["1" * 64]))
    third = Making("3" * 64, made)
    with Claims() as other, Claims() as own:
        assert other.take(first.key)
        found = []
        for job, result in Queue(Serial(), lambda keys: [], own).run([first, last, third]):
            found.append((job.key[0], result))
            if job is third:
                made.add(first.key)  # the other run is done
                other.release(first.key)
        assert found == [("3", 1), ("1", None), ("2", 1)]
        assert all(other.take(job.key) for job in (first, last, third))


def test_what_another_run_failed_at_is_tried_here(home, monkeypatch):
    monkeypatch.setattr(queue, "ASK", 0.01)
    job = Making("1" * 64, set(), fails=True)
    with Claims() as other, Claims() as own:
        assert other.take(job.key)
        threading.Timer(0.2, other.release, [job.key]).start()
        ((_, result),) = Queue(Serial(), lambda keys: [], own).run([job])
        assert isinstance(result, Failure)
        assert other.take(job.key)


def _measure(suite, folder, told):
    told.put(measure_part(suite, Options(show="quiet"), Part(1, 1), folder))


def test_four_processes_on_one_cache_measure_each_shard_once(home, tmp_path, quick):
    context = get_context("fork")
    told = context.Queue()
    runs = [
        context.Process(target=_measure, args=(quick, tmp_path / str(n), told)) for n in range(4)
    ]
    for run in runs:
        run.start()
    made = [told.get(timeout=300) for _ in runs]
    for run in runs:
        run.join()
    work = work_left(make_plan(quick), ResultsFolder(tmp_path / "out"))
    assert sum(made) == len(work.shards) == 9
    assert work.cached == 9
    assert sorted(path.name for path in (home / "claims").iterdir()) == [".lock"]


def test_parts_are_disjoint_and_together_all_and_a_last_run_judges(home, tmp_path, quick):
    work = work_left(make_plan(quick), ResultsFolder(tmp_path / "out"))
    parts = [part_left(work, Part(number, 3)).jobs for number in (1, 2, 3)]
    keys = [job.key for jobs in parts for job in jobs]
    assert sorted(keys) == sorted(work.shards)
    assert {len(jobs) for jobs in parts} == {3}
    made = [measure_part(quick, Options(show="quiet"), Part(n, 3), tmp_path / "a") for n in (1, 3)]
    assert made == [3, 3]
    assert not (tmp_path / "a").exists()
    rows = run_suite(quick, Options(show="quiet"), tmp_path / "a")
    assert {row["status"] for row in rows} == {"ok"}
    missing = {job.key for job in parts[1]}
    written = {path.stem: path.stat().st_mtime_ns for path in (home / "columns").rglob("*.npz")}
    assert min(written[key] for key in missing) > max(written[key] for key in written.keys() - missing)  # fmt: skip
    assert read_rows(tmp_path / "a" / "rows.jsonl") == rows


def test_a_part_that_is_none_is_refused():
    for text in ("0/3", "4/3", "1", "a/b", "-1/3"):
        said = CliRunner().invoke(main, ["run", "--suite", "quick", "--shard", text])
        assert said.exit_code == 2
        assert f"'{text}' must be I/N" in said.output


def test_a_shard_says_whether_it_is_done(home, tmp_path, quick):
    work = work_left(make_plan(quick), ResultsFolder(tmp_path / "out"))
    shard = next(iter(work.shards.values()))
    assert not shard.done
    ColumnStore().put(shard.key, Shard({}, {}))
    assert shard.done


@pytest.mark.slow
def test_submitit_measures_the_parts_of_a_suite(home, tmp_path, quick):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed")
    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=10)
    command = [sys.executable, "-m", "oodbench", "run", "--suite", "quick", "--limit", "40", "--workers", "1"]  # fmt: skip
    parts = [[*command, "--shard", f"{number}/2"] for number in (1, 2)]
    jobs = [executor.submit(submitit.helpers.CommandFunction(part)) for part in parts]
    said = [job.result() for job in jobs]
    assert [text.strip().splitlines()[-1] for text in said] == [
        "part 1/2 of quick is measured, 5 shards of it just now",
        "part 2/2 of quick is measured, 4 shards of it just now",
    ]
    work = work_left(make_plan(quick), ResultsFolder(tmp_path / "out"))
    assert work.cached == len(work.shards) == 9
