"""Engines give the same results, whatever tasks do to the processes that they are done in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from executor_tasks import (
    ERRORS,
    Dies,
    Forks,
    Knows,
    Pid,
    Raises,
    Returns,
    Square,
    Threads,
    Unreadable,
    Unsendable,
    Waits,
)

from oodbench.passes import executors
from oodbench.passes.executors import Failure, Processes, Serial, executor_for

ENGINES = [1, 2]
HAS_PROC = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")


def results_of(executor, tasks):
    """Results in the order of completion, from an engine that leaves nothing behind."""
    with executor:
        for task in tasks:
            executor.submit(task)
        results = list(executor.results())
    assert active_children() == []
    return results


def wait_for(condition):
    deadline = time.monotonic() + 15
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_engines_agree_whatever_the_order():
    tasks = [Square(number, here=number % 3 == 0) for number in range(20)]
    serial = dict(results_of(Serial(), tasks))
    assert serial == {task: task.number**2 for task in tasks}
    assert dict(results_of(Processes(3), tasks)) == serial


def test_one_worker_takes_tasks_in_order():
    tasks = [Square(number) for number in range(20)]
    assert [task for task, _ in results_of(Processes(1), tasks)] == tasks


@pytest.mark.parametrize("workers", ENGINES)
def test_tasks_are_taken_while_results_are_read(workers):
    found = []
    with executor_for(workers) as executor:
        executor.submit(Square(0))
        for task, result in executor.results():
            found.append(result)
            if task.number < 4:
                executor.submit(Square(task.number + 1, here=task.number == 2))
    assert found == [0, 1, 4, 9, 16]


def test_the_engine_for_one_process_is_serial():
    assert isinstance(executor_for(1), Serial)
    assert isinstance(executor_for(2), Processes)


SENTENCES = {
    "plain": "ValueError: a plain one",
    "key": "KeyError: 'net.weight'",
    "memory": "MemoryError: out of memory",
    "assertion": "AssertionError: an assertion does not hold",
    "empty": "RuntimeError: raised without a message",
    "exit": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt: raised without a message",
    "mute": "MuteError: raised without a message",
    "two arguments": "TwoArgumentsError: one and two",
    "ours": "the set is not here; get it",
    "name": "no statistic is called 'x'; known: y.",
}


@pytest.mark.parametrize("workers", ENGINES)
def test_an_error_of_any_kind_leaves_the_others_alone(workers):
    names = [name for name in ERRORS if workers > 1 or name != "interrupt"]
    tasks = [task for name in names for task in (Raises(name), Square(len(name)))]
    found = dict(results_of(executor_for(workers), tasks))
    for name in names:
        failure = found[Raises(name)]
        assert isinstance(failure, Failure)
        assert failure.sentence.startswith(SENTENCES.get(name, "ValueError: <unlocked"))
        assert failure.kind == type(ERRORS[name]()).__name__
        assert failure.ours == (name in ("ours", "name"))
        assert "raise ERRORS[self.error]()" in failure.traceback
        assert found[Square(len(name))] == len(name) ** 2


@pytest.mark.parametrize("engine", [Serial, lambda: Processes(2)], ids=["serial", "processes"])
def test_ctrl_c_of_the_user_is_no_failure(engine):
    with engine() as executor:
        executor.submit(Raises("interrupt", here=True))
        with pytest.raises(KeyboardInterrupt):
            next(executor.results())


def test_what_does_not_pickle_is_said():
    tasks = [Returns("lock"), Returns("function"), Returns("once"), Unsendable(), Unreadable()]
    found = {str(task): result for task, result in results_of(Processes(2), [*tasks, Square(3)])}
    assert found.pop(str(Square(3))) == 9
    assert all(failure.ours for failure in found.values())
    left, read = "cannot leave its process", "cannot be read in another process"
    assert f"{left}: TypeError: cannot pickle" in found[str(tasks[0])].sentence
    assert f"the result of {tasks[1]} {left}" in found[str(tasks[1])].sentence
    assert f"the result of {tasks[2]} {read}: LookupError: not" in found[str(tasks[2])].sentence
    assert f"the task {tasks[3]} {left}: TypeError: a task of" in found[str(tasks[3])].sentence
    assert f"{read}: LookupError: not here" in found[str(tasks[4])].sentence


@pytest.mark.parametrize("how", ["exit", "kill", "fork"])
def test_a_task_whose_process_died_is_tried_again(tmp_path, how):
    tasks = [Dies(tmp_path, 1, how), *map(Square, range(6))]
    expected = {task: task.number**2 for task in tasks[1:]} | {tasks[0]: "alive"}
    began = time.monotonic()
    assert dict(results_of(Processes(2), tasks)) == expected
    assert time.monotonic() - began < 60
    assert len(list(tmp_path.iterdir())) == 2


@HAS_PROC
def test_the_last_try_comes_last_and_alone(tmp_path):
    tasks = [Dies(tmp_path, 2), *(Pid(0.3 + number / 1e3) for number in range(6))]
    order = results_of(Processes(2), tasks)
    assert order[-1] == (tasks[0], "alive")
    assert len(order) == 7
    tries = [len(file.read_text().split()) for file in sorted(tmp_path.iterdir())]
    assert tries[1:] == [2, 1]


@HAS_PROC
def test_tasks_submitted_during_the_last_try_wait(tmp_path):
    order, deadly = [], Dies(tmp_path, 2, rest=0.5)
    with Processes(2) as executor:
        executor.submit(deadly)
        executor.submit(Pid(0.05, here=True))
        for task, _ in executor.results():
            order.append(task)
            if not task.here:
                continue
            begun = (tmp_path / "try-2").exists()
            executor.submit(Square(1) if begun else task)
            assert len(active_children()) <= 1
    assert order[-2:] == [deadly, Square(1)]


HOW = {
    "exit": "exit code 7",
    "segfault": "signal SIGSEGV",
    "kill": "signal SIGKILL, perhaps for want of memory",
}


@pytest.mark.parametrize("how", HOW)
def test_a_task_that_ends_every_process_fails(tmp_path, how):
    tasks = [Dies(tmp_path, 99, how), *map(Square, range(6))]
    found = dict(results_of(Processes(2), tasks))
    message = f"the process that did a deadly task ended ({HOW[how]}), three times"
    assert found.pop(tasks[0]) == Failure("WorkerDied", message)
    assert found == {task: task.number**2 for task in tasks[1:]}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_worker_that_was_killed_from_outside_is_replaced(tmp_path):
    with Processes(2) as executor:
        for task in [Waits(tmp_path), Square(2), Square(3)]:
            executor.submit(task)
        wait_for((tmp_path / "pid").exists)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        assert dict(executor.results()) == {Waits(tmp_path): "alive", Square(2): 4, Square(3): 9}


def test_an_idle_worker_that_dies_costs_no_task_a_try(tmp_path):
    with Processes(1) as executor:
        executor.submit(Pid())
        ((_, pid),) = executor.results()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: active_children() == [])
        executor.submit(Dies(tmp_path, 2))
        ((_, result),) = executor.results()
    assert result == "alive"


def test_tasks_of_this_process_run_between_answers_of_workers():
    with Processes(1) as executor:
        executor.submit(Pid())
        ((_, worker),) = executor.results()
        tasks = Pid(0.2), Pid(0.8, here=True), Pid(0.5, here=True)
        for task in tasks:
            executor.submit(task)
        first, second, third = executor.results()
    assert first == (tasks[1], os.getpid())
    assert second == (tasks[0], worker)
    assert third == (tasks[2], os.getpid())
    assert worker != os.getpid()


def test_no_process_starts_for_tasks_of_this_one(monkeypatch):
    monkeypatch.delattr(executors, "Worker")
    assert results_of(Processes(2), []) == []
    tasks = [Pid(here=True), Unsendable()]
    results = results_of(Processes(2), tasks)
    assert (tasks[0], os.getpid()) in results


def test_no_more_processes_than_tasks_and_than_allowed():
    for tasks, workers, expected in ((2, 16, 2), (5, 2, 2)):
        with Processes(workers) as executor:
            assert active_children() == []
            for number in range(tasks):
                executor.submit(Pid(0.5 + number / 1e3))
            assert len(active_children()) == expected
            list(executor.results())
            assert len(active_children()) == expected
        assert active_children() == []


def test_cancel_ends_what_runs_and_forgets_what_waits():
    with Processes(2) as executor:
        for number in range(8):
            executor.submit(Pid(60 + number))
        executor.submit(Square(1, here=True))
        began = time.monotonic()
        executor.cancel()
        assert time.monotonic() - began < 30
        assert active_children() == []
        assert list(executor.results()) == []
        executor.submit(Square(5))
        assert list(executor.results()) == [(Square(5), 25)]


def test_workers_have_one_thread_and_torch_only_when_they_need_it(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    before = dict(os.environ)
    assert results_of(Processes(2), [Threads()]) == [(Threads(), (False, 1, "68719476736"))]
    assert dict(os.environ) == before


def test_tasks_may_start_processes():
    assert results_of(Processes(2), [Forks()]) == [(Forks(), 0)]


def test_printing_harms_nothing(capfd):
    results = results_of(Processes(2), [Pid()])
    assert len(results) == 1
    assert "printed by a task" in capfd.readouterr().err  # the output is the command's


def test_workers_load_plugins(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("import oodbench as ob\nob.register_model('executors-mine')(object)\n")
    tasks = [Knows("executors-mine"), Knows("executors-other")]
    assert dict(results_of(Processes(2, [plugin]), tasks)) == {tasks[0]: True, tasks[1]: False}


def test_a_plugin_that_a_worker_cannot_load_is_said(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("raise SystemError('not twice')\n")
    ((_, failure),) = results_of(Processes(2, [plugin]), [Square(1)])
    assert "mine.py, line 1 raised SystemError: not twice" in failure.sentence


SCRIPT = """
import sys, time
from executor_tasks import Pid, Waits
from oodbench.passes.executors import Processes
from pathlib import Path

folders = [Path(folder) for folder in sys.argv[1:]]
try:
    with Processes(2) as executor:
        for folder in folders:
            executor.submit(Waits(folder))
        list(executor.results())
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.fixture
def run_of_two(tmp_path):
    """A run in a session of its own with two busy workers, and their process ids."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, folders)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: all((folder / "pid").exists() for folder in folders))
    yield run, [int((folder / "pid").read_text()) for folder in folders]
    if run.poll() is None:
        run.kill()


@HAS_PROC
@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_ctrl_c_twice_leaves_no_process_and_no_traceback(run_of_two, pause):
    run, workers = run_of_two
    began = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)
    if pause:
        time.sleep(pause)
        os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=60)[0]
    assert time.monotonic() - began < 30
    assert said == "stopped\n"
    wait_for(lambda: not any(map(is_alive, workers)))


@HAS_PROC
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_leave_when_their_parent_was_ended(run_of_two, number):
    run, workers = run_of_two
    assert all(map(is_alive, workers))
    run.send_signal(number)
    run.wait(10)
    wait_for(lambda: not any(map(is_alive, workers)))


def test_the_seam_is_light():
    program = "import sys, oodbench.passes.executors; print('torch' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert said.stdout == "False\n"
