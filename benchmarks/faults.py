"""The campaign of faults: what befalls a run is made to befall it, and the rerun must end with the undisturbed rows.

    python benchmarks/faults.py [--budget small|full] [--seed N] [--only KIND …]

Each fault happens to a run in a process group of its own, with a cache of its own. Afterwards the same command is run again;
then its rows are those of an undisturbed run but for cost and provenance, no temporary file is left in cache or results, and
no process of the run lives. A table of counts, as it stands in docs/trust.md, is printed; the exit code is that of the campaign.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SUITE = """\
name: faults
title: t
models: [glow-small-fashionmnist-1]
limit: {limit}
bootstrap: 50
pairs:
  - {{in_dist: fashionmnist, ood: [mnist, noise]}}
scorers: [likelihood, typicality, pixel-mean, code-length-png]
analysis: {{images: 4, gray: [50], samples: 2, probes: 2}}
"""
PHASES = {
    "plan": "oodbench.runner:make_plan",
    "passes": "oodbench.runner:carry_out",
    "rows": "oodbench.work:Book.enter",
    "comparisons": "oodbench.runner:comparison_tasks",
    "figures": "oodbench.report.leaderboard:draw_stale",
    "pages": "oodbench.report.leaderboard:_pages",
}
"""Phase → the function whose first call begins it."""
MEASURED = ("cost", "provenance", "measured_sha256")
TABLES = ("rows", "analysis", "comparisons", "curves")
LIMIT = 40
"""Images of each set."""
PATIENCE = 600
"""Seconds after which a run is taken to hang."""
UNHURT = ("columns", "images", "samples")
"""Kinds of files in the cache, and below those in the results."""
OF_RESULTS = (
    "rows.jsonl",
    "analysis.jsonl",
    "comparisons.jsonl",
    "curves.jsonl",
    "scores",
    "grids",
)
WATCHED = """
import importlib, os, sys, time
def watched(phase, place):
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *owners, name = path.split(".")
    for one in owners: owner = getattr(owner, one)
    work = getattr(owner, name)
    def marked(*arguments, **named):
        with open(os.environ["FAULTS_MARKS"], "a") as marks: marks.write(f"{phase} {time.time()}\\n")
        setattr(owner, name, work)
        return work(*arguments, **named)
    setattr(owner, name, marked)
for pair in os.environ["FAULTS_PHASES"].split():
    watched(*pair.split("=", 1))
from oodbench.cli import main
main()
"""
MODELS = """
import os, time
import torch
import oodbench as ob
from oodbench.testing import UniformModel

class Troubled(UniformModel):
    trained_on = "fashionmnist"
    batch_size = 10
    calls = 0
    def log_prob(self, x):
        type(self).calls += 1
        self.trouble(x)
        return super().log_prob(x)

@ob.register_model("raises-at-the-seventh-batch")
class Raises(Troubled):
    def trouble(self, x):
        if type(self).calls % 12 == 7: raise ArithmeticError("the seventh batch")

@ob.register_model("nan-for-one-image")
class Holes(UniformModel):
    trained_on = "fashionmnist"
    def log_prob(self, x):
        found = super().log_prob(x)
        found[x.double().flatten(1).sum(1) % 100 < 1] = float("nan")
        return found

@ob.register_model("hangs")
class Hangs(Troubled):
    def trouble(self, x):
        time.sleep(10_000)

@ob.register_model("prints")
class Prints(Troubled):
    def trouble(self, x):
        print("a word of the model")

@ob.register_model("forks")
class Forks(Troubled):
    def trouble(self, x):
        if os.fork() == 0: os._exit(0)
        os.wait()

@ob.register_model("ends-its-process")
class Ends(Troubled):
    def trouble(self, x):
        os._exit(3)

@ob.register_model("runs-out-of-memory")
class Large(Troubled):
    batch_size = 64
    def trouble(self, x):
        if len(x) > 16: raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
"""
TROUBLES = {
    "raises-at-the-seventh-batch": "the seventh batch",
    "nan-for-one-image": "",
    "hangs": "--timeout",
    "prints": "",
    "forks": "",
    "ends-its-process": "exit code 3",
    "runs-out-of-memory": "",
}
"""Model → what the sentence of its FAILED rows holds; empty where rows are sound."""


@dataclass
class Place:
    """The cache, results and suite of one trial."""

    folder: Path
    more: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def command(self, *more: str, workers: int = 2) -> list[str]:
        suite = self.folder / "s.yaml"
        suite.write_text(SUITE.format(limit=LIMIT))
        run = ["run", "--suite", str(suite), "--out", str(self.out), "--workers", str(workers)]
        return [sys.executable, "-c", WATCHED, *run, *more]

    @property
    def environment(self) -> dict[str, str]:
        phases = " ".join(f"{phase}={place}" for phase, place in PHASES.items())
        own = {
            "OODBENCH_HOME": str(self.home),
            "FAULTS_MARKS": str(self.folder / "marks"),
            "FAULTS_PHASES": phases,
            # one process alone would use all cores, and rounds in another order than workers of one thread each
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **own, **self.more}

    def begin(self, *more: str, workers: int = 2) -> subprocess.Popen[str]:
        with suppress(FileNotFoundError):
            (self.folder / "marks").unlink()
        return subprocess.Popen(
            self.command(*more, workers=workers), env=self.environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def finish(self, *more: str, workers: int = 1) -> tuple[int, str]:
        run = self.begin(*more, workers=workers)
        said = run.communicate(timeout=PATIENCE)[0]
        return run.returncode, said

    def values(self) -> dict[str, list[str]]:
        """The rows of each table without what measuring took."""
        found = {}
        for table in TABLES:
            path = self.out / f"{table}.jsonl"
            lines = path.read_text().split("\n") if path.exists() else []
            rows = [json.loads(line) for line in lines if line]
            kept = [{name: row[name] for name in row if name not in MEASURED} for row in rows]
            found[table] = sorted(json.dumps(row, sort_keys=True) for row in kept)
        return found

    def left_behind(self) -> list[str]:
        """Half-written files, and processes that live on."""
        files = [str(path) for path in self.folder.rglob("*.unfinished")]
        return files + [f"process {number}" for number in self.processes()]

    def processes(self) -> list[int]:
        mark = f"OODBENCH_HOME={self.home}".encode()
        return [
            number for number, environment in environments() if mark in environment.split(b"\0")
        ]


def environments() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            yield int(path.parent.name), path.read_bytes()


class OverError(Exception):
    """The time of the campaign is over."""


class Campaign:
    """Faults one after the other, each counted as tried and, where all is as it should be, as sound."""

    def __init__(self, seed: int, scale: float, ends: float):
        self.ends = ends
        self.random, self.scale = random.Random(seed), scale
        self.root = Path(tempfile.mkdtemp(prefix="faults-"))
        self.counts: dict[str, Counter[str]] = {}
        self.notes: list[str] = []
        self.whole = Place(self._new("undisturbed"))
        code, said = self.whole.finish()
        assert code == 0, said
        self.values = self.whole.values()
        self.length = self._phases(self.whole)

    def _new(self, name: str) -> Path:
        folder = self.root / name
        folder.mkdir()
        return folder

    def _phases(self, place: Place) -> dict[str, float]:
        """Seconds that each phase took."""
        lines = [line.split() for line in (place.folder / "marks").read_text().splitlines()]
        began = [float(when) for _, when in lines] + [time.time()]
        return {
            phase: max(0.05, after - when)
            for (phase, _), when, after in zip(lines, began, began[1:])
        }

    def times(self, full: int) -> range:
        return range(max(1, round(full * self.scale)))

    def place(self, warm: bool = False) -> Place:
        """A new place; a warm one holds what the undisturbed run left."""
        if time.monotonic() > self.ends:
            raise OverError
        folder = (
            self.root
            / f"trial-{sum(sum(one.values()) for one in self.counts.values())}-{self.random.random():.6f}"
        )
        folder.mkdir()
        if warm:
            for name in ("home", "out"):
                shutil.copytree(self.whole.folder / name, folder / name)
        return Place(folder)

    def judge(self, kind: str, place: Place, *faults: str, rerun: bool = True) -> None:
        """Run again, compare, and count."""
        found = [fault for fault in faults if fault]
        if rerun:
            code, said = place.finish()
            found += [f"the rerun ended with {code}: {said[-300:]}"] * (code != 0)
            found += ["a traceback"] * ("Traceback" in said)
            found += ["other rows than the undisturbed ones"] * (place.values() != self.values)
        time.sleep(1.5)  # workers that lost their parent look once a second
        found += [f"left behind: {one}" for one in place.left_behind()]
        self.count(kind, found)
        shutil.rmtree(place.folder, ignore_errors=True)

    def count(self, kind: str, found: list[str]) -> None:
        counts = self.counts.setdefault(kind, Counter())
        counts["tried"] += 1
        counts["sound"] += not found
        self.notes += [f"{kind}: {one}" for one in found]
        print(f"{kind}: {'; '.join(found) or 'sound'}", file=sys.stderr, flush=True)

    def wait_in(self, place: Place, run: subprocess.Popen[str], phase: str) -> None:
        """Wait for a phase to begin, and then for a random part of its length."""
        marks, until = place.folder / "marks", time.time() + PATIENCE
        while run.poll() is None and time.time() < until:
            if marks.exists() and phase in marks.read_text().split():
                time.sleep(self.random.uniform(0, self.length.get(phase, 0.2)))
                return
            time.sleep(0.01)

    # what befalls a run

    def killed_group(self) -> None:
        """SIGKILL to all of its processes."""
        for phase in PHASES:
            for _ in self.times(9):
                place = self.place()
                run = place.begin()
                self.wait_in(place, run, phase)
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)
                run.communicate()
                self.judge(f"kill -9 of the group, {phase}", place)

    def killed_worker(self) -> None:
        """SIGKILL to one worker: the same run goes on to its end."""
        for _ in self.times(20):
            place = self.place()
            run = place.begin()
            self.wait_in(place, run, "passes")
            workers = [one for one in place.processes() if one != run.pid]
            if workers:
                with suppress(ProcessLookupError):
                    os.kill(self.random.choice(workers), signal.SIGKILL)
            said = run.communicate(timeout=PATIENCE)[0]
            ended = f"the run ended with {run.returncode}: {said[-300:]}" if run.returncode else ""
            other = "other rows" if place.values() != self.values else ""
            self.judge(
                "kill -9 of one worker",
                place,
                ended,
                other,
                "" if workers else "no worker was there",
                rerun=False,
            )

    def stopped(self) -> None:
        """A signal that asks to end: one sentence, its exit code, and nothing left, before any rerun."""
        for number, code in (
            (signal.SIGTERM, 143),
            (signal.SIGHUP, 129),
            (signal.SIGQUIT, 131),
            (signal.SIGINT, 130),
        ):
            for _ in self.times(6):
                place = self.place()
                run = place.begin()
                self.wait_in(place, run, self.random.choice(["plan", "passes", "rows", "figures"]))
                self._send(run, number)
                said = run.communicate(timeout=60)[0]
                done = run.returncode == 0  # it was over before the signal came
                faults = ["" if done or run.returncode == code else f"exit code {run.returncode}"]
                faults += ["" if done or "goes on from here" in said else f"it said {said[-200:]}"]
                faults += ["a traceback" if "Traceback" in said else ""]
                faults += [f"left behind: {one}" for one in place.left_behind()]
                self.judge(signal.Signals(number).name, place, *faults)

    def _send(self, run: subprocess.Popen[str], number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, number)

    def interrupted_twice(self) -> None:
        """Ctrl-C twice within a second: it ends within two."""
        for _ in self.times(8):
            place = self.place()
            run = place.begin()
            self.wait_in(place, run, self.random.choice(["plan", "passes", "rows"]))
            self._send(run, signal.SIGINT)
            time.sleep(self.random.uniform(0.05, 0.9))
            self._send(run, signal.SIGINT)
            began = time.monotonic()
            said = run.communicate(timeout=60)[0]
            took, busy = (
                time.monotonic() - began,
                max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)),
            )
            late = f"it took {took:.1f} s" if took > 2 * busy else ""
            self.judge("Ctrl-C twice", place, late, "a traceback" if "Traceback" in said else "")

    def full_disk(self) -> None:
        """No file may grow beyond some kilobytes, in any process of the run."""
        for _ in self.times(6):
            place, most = self.place(), self.random.choice([0, 1_000, 20_000, 200_000])
            command = ["prlimit", f"--fsize={most}", *place.command()]
            run = subprocess.run(
                command,
                env=place.environment,
                cwd=place.folder,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            said = run.stdout + run.stderr
            wrong = (
                ""
                if run.returncode in (0, 1) and "Traceback" not in said
                else f"{run.returncode}: {said[-300:]}"
            )
            self.judge("no file may grow", place, wrong)

    def vanishing_cache(self) -> None:
        """The cache is removed while the run measures."""
        for _ in self.times(6):
            place = self.place()
            run = place.begin()
            self.wait_in(place, run, self.random.choice(["passes", "rows"]))
            shutil.rmtree(place.home, ignore_errors=True)
            said = run.communicate(timeout=PATIENCE)[0]
            self.judge("the cache vanishes", place, "a traceback" if "Traceback" in said else "")

    def unwritable(self) -> None:
        """A file stands where the results, or the cache, should be: told before any pass."""
        for name in ("out", "home"):
            place = self.place()
            (place.folder / name).write_text("in the way\n")
            code, said = place.finish()
            measured = any(place.home.rglob("*.npz")) if place.home.is_dir() else False
            faults = ["it measured first"] * measured + [f"exit code {code}"] * (code not in (1, 2))
            faults += ["a traceback"] * ("Traceback" in said)
            (place.folder / name).unlink()
            self.judge("--out or cache cannot be written", place, *faults)

    def together(self) -> None:
        """Two and four runs at once on one cache and one results folder."""
        for n in [2, 4] if self.scale >= 1 else [2]:
            place = self.place()
            runs = [place.begin(workers=1) for _ in range(n)]
            said = [run.communicate(timeout=PATIENCE)[0] for run in runs]
            bad = [one[-200:] for run, one in zip(runs, said, strict=True) if run.returncode]
            self.judge(f"{n} processes at once", place, *bad)

    def reported_meanwhile(self) -> None:
        """`report` again and again while `run` writes."""
        for _ in self.times(2):
            place = self.place()
            run, said = place.begin(), []
            while run.poll() is None:
                report = [sys.executable, "-m", "oodbench", "report", str(place.out)]
                done = subprocess.run(
                    report, env=place.environment, capture_output=True, text=True, timeout=PATIENCE
                )
                said.append(done.stdout + done.stderr)
            run.communicate()
            faults = [
                "a traceback"
                if any("Traceback" in one or "stumbled" in one for one in said)
                else ""
            ]
            self.judge(
                "report while run writes",
                place,
                *faults,
                f"exit code {run.returncode}" if run.returncode else "",
            )

    def damaged_files(self) -> None:
        """One bit flipped or the end cut off, in each kind of file, in each quarter of it."""
        kinds = [(True, kind) for kind in UNHURT] + [(False, kind) for kind in OF_RESULTS]
        for of_cache, kind in kinds:
            for quarter in range(4) if self.scale >= 1 else [self.random.randrange(4)]:
                for cut in (False, True) if self.scale >= 1 else [self.random.random() < 0.5]:
                    place = self.place(warm=True)
                    path = self._damage(place, of_cache, kind, quarter, cut)
                    if of_cache:
                        shutil.rmtree(place.out)
                    self.judge(
                        f"a file {'cut' if cut else 'flipped'}: {kind}",
                        place,
                        "" if path else "no such file",
                    )

    def _damage(
        self, place: Place, of_cache: bool, kind: str, quarter: int, cut: bool
    ) -> Path | None:
        root = (place.home if of_cache else place.out) / kind
        files = (
            [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        )
        if not files:
            return None
        path = self.random.choice(files)
        content = bytearray(path.read_bytes())
        place_of = min(len(content) - 1, int((quarter + self.random.random()) / 4 * len(content)))
        content[place_of] ^= 1 << self.random.randrange(8)
        path.write_bytes(content[:place_of] if cut else content)
        return path

    def troubled_models(self) -> None:
        """Models that misbehave: their own rows FAILED or are sound, the other model's stand, and so in the rerun."""
        for model, sentence in TROUBLES.items():
            place = self.place(warm=True)
            (place.folder / "models.py").write_text(MODELS)
            (place.folder / "s.yaml").write_text(SUITE.format(limit=LIMIT))
            more = [
                "--plugin",
                str(place.folder / "models.py"),
                "--only",
                model,
                "--only",
                "likelihood",
                "--timeout",
                "40",
            ]
            _, said = place.finish(*more)
            rows = [
                json.loads(line)
                for line in (place.out / "rows.jsonl").read_text().split("\n")
                if line
            ]
            own = [row for row in rows if row["model"] == model and row["status"] != "skipped"]
            failed = [row for row in own if row["status"] == "failed"]
            wrong = "" if own else "it has no row"
            if sentence and not all(
                sentence in row["reason"] for row in own if row["status"] == "failed"
            ):
                wrong = f"its reason is {failed[0]['reason']}"
            if sentence and not failed:
                wrong = "it did not fail"
            if not sentence and model != "nan-for-one-image" and failed:
                wrong = f"it failed: {failed[0]['reason']}"
            others = [
                json.dumps(
                    {name: row[name] for name in row if name not in MEASURED}, sort_keys=True
                )
                for row in rows
                if row["model"] != model
            ]
            lost = (
                ""
                if set(self.values["rows"]) <= set(others) | set(_skips(self.values["rows"]))
                else "rows of the other model are gone"
            )
            self.judge(
                f"a model that {model.replace('-', ' ')}",
                place,
                wrong,
                lost,
                "a traceback" if "Traceback" in said else "",
                rerun=False,
            )


def _skips(rows: list[str]) -> list[str]:
    return [row for row in rows if '"status": "skipped"' in row]


def table(counts: dict[str, Counter[str]]) -> str:
    lines = [f"| {kind} | {one['tried']} | {one['sound']} |" for kind, one in counts.items()]
    total = sum(counts.values(), Counter())
    lines.append(f"| all | {total['tried']} | {total['sound']} |")
    return "\n".join(["| fault | tried | sound |", "| --- | --- | --- |", *lines])


KINDS: dict[str, Callable[[Campaign], None]] = {
    "killed-group": Campaign.killed_group,
    "killed-worker": Campaign.killed_worker,
    "stopped": Campaign.stopped,
    "interrupted-twice": Campaign.interrupted_twice,
    "full-disk": Campaign.full_disk,
    "vanishing-cache": Campaign.vanishing_cache,
    "unwritable": Campaign.unwritable,
    "together": Campaign.together,
    "reported-meanwhile": Campaign.reported_meanwhile,
    "damaged-files": Campaign.damaged_files,
    "troubled-models": Campaign.troubled_models,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", choices=["small", "full"], default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(KINDS))
    parser.add_argument(
        "--minutes", type=float, default=600, help="begin no further trial after so many"
    )
    options = parser.parse_args()
    scale, ends = 1.0 if options.budget == "full" else 0.1, time.monotonic() + 60 * options.minutes
    campaign = Campaign(options.seed, scale, ends)
    try:
        with suppress(OverError):
            for name in options.only or KINDS:
                KINDS[name](campaign)
    finally:
        shutil.rmtree(campaign.root, ignore_errors=True)
    print(table(campaign.counts))
    for note in campaign.notes:
        print(note, file=sys.stderr)
    return int(any(one["sound"] < one["tried"] for one in campaign.counts.values()))


if __name__ == "__main__":
    sys.exit(main())
