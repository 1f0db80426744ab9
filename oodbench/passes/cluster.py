"""The engine for a cluster: shards are measured by Ray's workers, all else in this process or in processes of this machine.

What a node needs travels by content, so that no disk has to be shared: a task as values, its pixels, and as :class:`Parcel`
the card of its model, the images that its pass is prepared on, and plugins. Ray's object store carries each content once to a
node. Columns come back, and only the driver writes them.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.errors import OodbenchError
from oodbench.passes.executors import TRIES, Executor, Task, executor_for
from oodbench.passes.failures import Failure, attempt, packed, unpacked
from oodbench.passes.shards import DETERMINISTIC, ChangedError, ShardTask, open_images
from oodbench.passes.values import PREPARING, ImageRef
from oodbench.passes.workers import ENVIRONMENT
from oodbench.paths import home, write_whole
from oodbench.registry import load_plugin, plugin_parts, statistics
from oodbench.store import ColumnStore, array_bytes, sealed
from oodbench.suite import Resources
from oodbench.syntax import Scope, source_files
from oodbench.zoo.cards import Card, UntrainedCard
from oodbench.zoo.describe import describe

logger = logging.getLogger("oodbench")
WAIT = 0.05
"""Seconds that are waited for the cluster before this machine's own processes are asked, and the other way round."""
IMAGES = "images.npy"


@dataclass(frozen=True)
class Parcel:
    """Files by content, as they travel to a node."""

    files: Mapping[str, bytes]

    def unpacked(self) -> Path:
        """The folder in this node's cache that holds them; each is written whole, once."""
        folder = home() / "sent" / _sha256(self.files)
        for name, content in self.files.items():
            if not (folder / name).exists():
                write_whole(folder / name, methodcaller("write", content))
        return folder


def _sha256(files: Mapping[str, bytes]) -> str:
    found = [(name, hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items())]
    return hashlib.sha256(repr(found).encode()).hexdigest()


@dataclass(frozen=True)
class Plugin:
    """A plugin's file with what it imports from beside it, and the digest that its code must have there."""

    parcel: Parcel
    reference: str
    """The file's name, with the model's behind a colon where one is named."""
    digest: str

    @classmethod
    def of(cls, reference: Path) -> Plugin:
        file, model = plugin_parts(reference)
        scope = Scope.of(file.parent)
        sources = source_files(file, within=file.parent)
        files = {scope.name(source): source.read_bytes() for source in sources}
        name = f"{file.name}:{model}" if model else file.name
        return cls(Parcel(files), name, load_plugin(reference))

    def load(self) -> None:
        """Load it on this node; :class:`ChangedError` where other code comes of it."""
        found = load_plugin(f"{self.parcel.unpacked()}/{self.reference}")
        if found != self.digest:
            raise ChangedError(
                f"the plugin {self.reference} has another digest on a node of the cluster ({found[:12]}…) than here "
                f"({self.digest[:12]}…)"
            )


def measured_there(
    sent: bytes, pixels: np.ndarray, card: Parcel | None, in_dist: Parcel | None, *plugins: Plugin
) -> bytes:
    """What a node's worker does: the pickled shard of a pickled task, or how it failed."""
    return packed(attempt(_measured, sent, pixels, card, in_dist, plugins), "a shard")


def _measured(
    sent: bytes,
    pixels: np.ndarray,
    card: Parcel | None,
    in_dist: Parcel | None,
    plugins: Sequence[Plugin],
) -> Any:
    for plugin in plugins:
        plugin.load()
    task: ShardTask = unpacked(sent, "a task")
    if card:
        task = replace(task, model=str(card.unpacked()))
    if in_dist and task.prepared_on:
        path = str(in_dist.unpacked() / IMAGES)
        task = replace(task, prepared_on=ImageRef(path, task.prepared_on.shape, sampled=True))
    return task.measured(pixels)


@lru_cache(maxsize=64)
def card_parcel(reference: str) -> Parcel | None:
    """The card, record and weights of a model; None of a plugin's, which the plugin makes, and of an untrained one."""
    card = describe(reference)
    if not isinstance(card, Card) or isinstance(card, UntrainedCard):
        return None
    files = {name: (card.folder / name).read_bytes() for name in ("card.yaml", "trained.json")}
    return Parcel({**files, "weights.safetensors": card.read_weights()})


@lru_cache(maxsize=64)
def in_dist_parcel(ref: ImageRef) -> Parcel:
    """The last images of a set, so many that a model's pass is prepared on the same of them as of the whole set."""
    images = np.ascontiguousarray(open_images(ref).images[-2 * PREPARING :])
    return Parcel({IMAGES: sealed(array_bytes(images))})


def travels(task: Task) -> bool:
    """Whether a node can do a task: a shard, unless this process alone knows what is to be measured, or its pass learns from a
    whole set of images without a model, as a covariance does."""
    if not isinstance(task, ShardTask) or task.here:
        return False
    return not (task.prepared_on and statistics[task.statistic].model_free)


@dataclass
class _Flight:
    task: ShardTask
    arguments: tuple[Any, ...]
    deaths: int = 0


class Ray(Executor):
    """Measures shards on a Ray cluster, and does all else with ``workers`` processes of this machine.

    A worker that dies costs its task a try; a node that goes costs none, since it is not the task's fault.

    Parameters
    ----------
    address : of the cluster's head, as ``ray start`` prints it; empty for one that runs on this machine, else for a new one
    resources : what a task asks for; a cluster without it has the task wait
    plugins : files that every worker loads, by content
    """

    def __init__(
        self, address: str, resources: Resources, device: str, workers: int, plugins: Sequence[Path] = ()
    ):  # fmt: skip
        self._address, self._plugins = address, plugins
        self._ray = _import_ray()
        self._asked = {"num_cpus": resources.cpus, "num_gpus": resources.gpus_on(device)}
        self._local = executor_for(workers, plugins)
        self._remote: Any = None
        self._ours = False
        self._flights: dict[Any, _Flight] = {}
        self._done: deque[tuple[Task, Any | Failure]] = deque()
        self._stored: dict[int, tuple[Any, Any]] = {}
        """Identity of a parcel → the parcel, and its reference in the object store."""
        self._sent_plugins: list[Any] = []

    @property
    def capacity(self) -> int:
        return 2 * self._slots() + self._local.capacity

    def _slots(self) -> int:
        """Tasks that the cluster does at once."""
        if self._remote is None:
            return 1
        there = self._ray.cluster_resources()
        cpus = there.get("CPU", 0) / (self._asked["num_cpus"] or 1)
        gpus = there.get("GPU", 0) / self._asked["num_gpus"] if self._asked["num_gpus"] else cpus
        return max(1, int(min(cpus, gpus)))

    def submit(self, task: Task) -> None:
        if not travels(task):
            self._local.submit(task)
            return
        assert isinstance(task, ShardTask)
        self._connect()
        arguments = attempt(self._arguments, task)
        if isinstance(arguments, Failure):
            self._done.append((task, arguments))
        else:
            self._send(_Flight(task, arguments))

    def _connect(self) -> None:
        """Join the cluster when the first shard is to be measured."""
        if self._remote is not None:
            return
        ray = self._ray
        if not ray.is_initialized():
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to anybody
            settings = {"log_to_driver": False, "logging_level": logging.ERROR}
            try:
                ray.init(address=self._address or None, **settings)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                where = f"at {self._address}" if self._address else "on this machine"
                raise OodbenchError(
                    f"no Ray cluster answers {where} ({error}); `ray start --head` starts one; run oodbench on a node of it"
                ) from error
            self._ours = True
        threads = {name: str(self._threads()) for name in ENVIRONMENT if name.endswith("_THREADS")}
        settled = {DETERMINISTIC: os.environ[DETERMINISTIC]} if DETERMINISTIC in os.environ else {}
        environment = {"env_vars": {**ENVIRONMENT, **threads, **settled}}
        # retries are ours, so that the log can tell of them
        asked: dict[str, Any] = {**self._asked, "max_retries": 0, "runtime_env": environment}
        self._remote = ray.remote(**asked)(measured_there)
        self._sent_plugins = [ray.put(Plugin.of(path)) for path in self._plugins]

    def _threads(self) -> int:
        return max(1, int(self._asked["num_cpus"]))

    def _arguments(self, task: ShardTask) -> tuple[Any, ...]:
        """What a node is given: the task, and references to what the object store carries."""
        card = card_parcel(task.model) if task.model else None
        in_dist = in_dist_parcel(task.prepared_on) if task.prepared_on else None
        pixels = self._ray.put(np.ascontiguousarray(task.read()))
        sent = packed(task, f"the task {task}")
        return (
            sent,
            pixels,
            self._stored_once(card),
            self._stored_once(in_dist),
            *self._sent_plugins,
        )

    def _stored_once(self, parcel: Parcel | None) -> Any:
        if parcel is None:
            return None
        if id(parcel) not in self._stored:
            self._stored[id(parcel)] = parcel, self._ray.put(parcel)
        return self._stored[id(parcel)][1]

    def _send(self, flight: _Flight) -> None:
        self._flights[self._remote.remote(*flight.arguments)] = flight

    def results(self) -> Iterator[tuple[Task, Any | Failure]]:
        while self._flights or self._done or self._local.busy:
            self._hear(0 if self._done else WAIT if self._local.busy else 1)
            if self._done:
                yield self._done.popleft()
            yield from self._local.ready(WAIT if self._flights or self._done else 1)

    def _hear(self, seconds: float) -> None:
        """Take what the cluster has done, waiting at most so many seconds for the first."""
        if not self._flights:
            return
        flying = list(self._flights)
        landed, _ = self._ray.wait(flying, num_returns=1, timeout=seconds)
        for reference in landed:
            self._land(self._flights.pop(reference), reference)

    def _land(self, flight: _Flight, reference: Any) -> None:
        ray, task = self._ray, flight.task
        try:
            answer = ray.get(reference)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            flight.deaths += 1
            self._again(flight, error)
        except (
            ray.exceptions.NodeDiedError,
            ray.exceptions.LocalRayletDiedError,
            ray.exceptions.ObjectLostError,  # what was made there went with its node
        ) as error:
            self._again(flight, error)
        except Exception as error:  # a node cannot make its environment, or has another oodbench
            self._done.append((task, Failure.of(error)))
        else:
            shard = attempt(unpacked, answer, f"the result of {task}")
            kept = shard if isinstance(shard, Failure) else attempt(self._keep, task, shard)
            self._done.append((task, kept))

    def _keep(self, task: ShardTask, shard: Any) -> int:
        ColumnStore().put(task.key, shard)
        return task.images_here

    def _again(self, flight: _Flight, error: Exception) -> None:
        """Send a task again whose worker or node was lost."""
        how, task = type(error).__name__, flight.task
        if flight.deaths == TRIES:
            message = f"the process that did {task} ended ({how}), three times"
            self._done.append((task, Failure("WorkerDied", message)))
            return
        last = task.start + task.images_here
        logger.warning("%s, images %d to %d, is sent again: %s", task, task.start, last, how)
        self._send(flight)

    def cancel(self) -> None:
        for reference in self._flights:
            self._ray.cancel(reference, force=True)
        for waiting in (self._flights, self._done, self._stored, self._sent_plugins):
            waiting.clear()
        self._local.cancel()
        if self._ours:
            self._ray.shutdown()
        self._remote, self._ours = None, False


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise OodbenchError(
            "--executor ray needs the package ray: `pip install 'oodbench[ray]'`"
        ) from error
    return ray
