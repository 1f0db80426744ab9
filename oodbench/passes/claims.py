"""Claims: which run makes what in a cache that several runs share, so that each shard is measured once.

A claim is a hard link ``claims/<key>`` to a file of its run's own: linking is atomic on local and on network disks, and the
touch of one file renews all claims of a run. A run that ended, or whose file was not touched for :data:`LEASE`, has lost
its claims. How long that is, each run measures by its own clock that only goes forward: no two clocks have to agree.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from oodbench.paths import home, write_whole

LEASE = 60.0
"""Seconds without a touch after which a run of another machine has lost its claims."""
TOUCHES = 6
"""Touches a lease: a run may be late five times."""
OLD = 86400.0
"""Seconds after which files of other machines' runs are swept away; they hold nobody up, since they are stale long before."""

logger = logging.getLogger("oodbench")


def this_machine() -> str:
    """The machine since it was started and its space of process numbers, within which a number names one process."""
    started, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        return f"{started.read_text().strip()} {os.readlink(space)}"
    except OSError:
        return platform.node()


class Claims:
    """The claims of one run; leaving it gives back those that it still has.

    Where a disk has no hard links everything may be made: twice, then, if another run is at it too.
    """

    def __init__(self, lease: float = LEASE):
        self.folder, self.lease = home() / "claims", lease
        self._own = self.folder / f"run-{uuid.uuid4().hex}"
        self._mine: set[str] = set()
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        """Key → file and time of touch of another run's claim, and when we first saw it so."""
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        if self._clock.is_alive():
            self._clock.join()
        for key in list(self._mine):
            self.release(key)
        self._own.unlink(missing_ok=True)

    def take(self, key: str) -> bool:
        """Whether this run is to make what has this key; a stale claim of another run is taken over."""
        self._begin()
        if not self._link(self.folder / key) and not self._taken_over(key):
            return False
        self._mine.add(key)
        self._seen.pop(key, None)
        return True

    def _begin(self) -> None:
        """Enter the run at its first claim: one that finds everything made needs no folder that can be written."""
        if self._clock.ident is None:
            about = json.dumps({"machine": this_machine(), "process": os.getpid()}).encode()
            write_whole(self._own, lambda file: file.write(about))
            self._clock.start()
            self._sweep()

    def _taken_over(self, key: str) -> bool:
        claim = self.folder / key
        if not self._is_stale(key):
            return False
        with self._alone():
            # another run may have taken it over, or given it back, meanwhile
            if self._is_stale(key) and claim.exists():
                claim.unlink(missing_ok=True)
                logger.warning("taken over from a run that is over: %s…", key[:12])
            return self._link(claim)

    def release(self, key: str) -> None:
        """Give a claim back; one that another run took over meanwhile is left to it."""
        if key in self._mine:
            self._mine.remove(key)
            claim = self.folder / key
            with suppress(FileNotFoundError):
                if claim.samefile(self._own):
                    claim.unlink()

    def _link(self, claim: Path) -> bool:
        try:
            os.link(self._own, claim)
        except FileExistsError:
            return False
        except FileNotFoundError:  # somebody emptied the cache
            return True
        except OSError as error:
            logger.warning(
                "%s has no hard links (%s): runs that share it may do the same work",
                self.folder,
                error,
            )
        return True

    def _is_stale(self, key: str) -> bool:
        claim = self.folder / key
        try:
            stat = claim.stat()
            about = json.loads(claim.read_bytes())
        except FileNotFoundError:
            return True
        except ValueError:
            about = {}
        touched, now = (stat.st_ino, stat.st_mtime_ns), time.monotonic()
        before, since = self._seen.get(key, (None, now))
        if before != touched:
            self._seen[key] = touched, now
            since = now
        return _is_over(about) or now - since > self.lease

    def _renew(self) -> None:
        while not self._over.wait(self.lease / TOUCHES):
            with suppress(OSError):
                os.utime(self._own)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold all claims while one is taken over, where the disk knows locks."""
        with (self.folder / ".lock").open("a") as file:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sweep(self) -> None:
        """Remove what runs of this machine left that were killed, and what others did long ago."""
        with self._alone():
            for path in self.folder.glob("[!.]*"):
                with suppress(OSError, ValueError):
                    about, age = json.loads(path.read_bytes()), time.time() - path.stat().st_mtime
                    if _is_over(about) or age > OLD:
                        path.unlink()


def _is_over(about: dict[str, Any]) -> bool:
    """Whether a run is known to have ended: one of this machine whose process is no more."""
    if about.get("machine") != this_machine():
        return False
    try:
        os.kill(about["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        return False
    return False
