"""Shards on a real Ray cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from oodbench.passes.cluster import Parcel, Plugin
from oodbench.passes.shards import ChangedError
from oodbench.store import MEASURED, SEALS, read_rows

pytest.importorskip("ray", minversion="2.50", reason="Ray is not installed: pip install 'oodbench[ray]'")  # fmt: skip

DRIVER = """
import socket, sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from click.testing import CliRunner
from oodbench.cli import main
from oodbench.store import ColumnStore

suite, out, plugin, kill = sys.argv[1:]
AGENTS = "metrics_agent_port", "runtime_env_agent_port", "metrics_export_port", "dashboard_agent_listen_port"

def node():
    # a node that chooses its agents' ports waits half a minute for them and gives up, which is short on a busy machine
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in AGENTS]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return dict(num_cpus=1, object_store_memory=80 * 2**20, **dict(zip(AGENTS, ports)))

cluster = Cluster(initialize_head=True, head_node_args=node() | {"include_dashboard": False})
second = cluster.add_node(**node())
cluster.wait_for_nodes()

def lose_a_node():
    # when it is in the middle of a shard, and another one is done
    mark = Path(suite).parent / f"node-{second.node_id}"
    while not (mark.exists() and list(ColumnStore().root.rglob("*.npz"))):
        time.sleep(0.01)
    cluster.remove_node(second, allow_graceful=False)

if kill == "kill":
    threading.Thread(target=lose_a_node, daemon=True).start()
arguments = ["run", "--suite", suite, "--out", out, "--plugin", plugin, "--workers", "1", "--quiet"]
result = CliRunner().invoke(main, [*arguments, "--executor", f"ray://{cluster.address}"])
print(result.output)
print("left", ray.is_initialized())
cluster.shutdown()
if result.exception and not isinstance(result.exception, SystemExit):
    raise result.exception
sys.exit(result.exit_code)
"""
PLUGIN = """
import sys, time
from pathlib import Path
import torch
import oodbench as ob
from helper import scale

@ob.register_model("slow-pixels")
class Slow:
    shape, trained_on, likelihood, batch_size = (1, 28, 28), "fashionmnist", "exact", 500

    def log_prob(self, images):
        # each node says that it is at work, and takes long enough to be killed at it
        ray = sys.modules.get("ray")
        if ray and ray.is_initialized():
            (Path("FOLDER") / f"node-{ray.get_runtime_context().get_node_id()}").touch()
            time.sleep(2)
        return -scale * images.double().flatten(1).mean(1)
"""
SUITE = {
    "name": "t", "title": "t", "models": ["glow-fashionmnist", "slow-pixels"], "bootstrap": 20, "limit": 1200,
    "scorers": ["likelihood", "typicality", "pixel-mean"],
    "pairs": [{"in_dist": "fashionmnist", "ood": ["mnist", "noise"]}],
}  # fmt: skip


@pytest.fixture
def suite(tmp_path):
    """A suite of a card and of a plugin's model that takes two seconds a shard on a cluster."""
    (tmp_path / "helper.py").write_text("scale = 2.0\n")
    (tmp_path / "mine.py").write_text(PLUGIN.replace("FOLDER", str(tmp_path)))
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(SUITE))
    return tmp_path / "t.yaml"


def said_by(command, home):
    paths = os.pathsep.join(sys.path)
    settings = {"OODBENCH_HOME": str(home), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **settings, "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def values(folder: Path):
    """The rows without what may differ between machines."""
    left_out = {*MEASURED, SEALS[1]}
    rows = read_rows(folder / "rows.jsonl")
    return [{name: one for name, one in row.items() if name not in left_out} for row in rows]


def test_rows_are_those_of_one_process_though_a_node_is_lost(suite, tmp_path):
    plugin = str(tmp_path / "mine.py")
    serial, ray = tmp_path / "serial", tmp_path / "ray"
    arguments = ["--suite", str(suite), "--plugin", plugin, "--workers", "1", "--quiet"]
    said_by(["-m", "oodbench", "run", *arguments, "--out", str(serial)], tmp_path / "home-a")
    told = said_by(["-c", DRIVER, str(suite), str(ray), plugin, "kill"], tmp_path / "home-b")
    again = [line for line in told.splitlines() if "is sent again" in line]
    print("\n".join(again))
    assert again
    assert "left False" in told
    assert values(ray) == values(serial)
    assert len(values(ray)) == 12
    written = list((tmp_path / "home-b" / "columns").rglob("*.npz"))
    assert len(written) == len(list((tmp_path / "home-a" / "columns").rglob("*.npz")))


def test_a_plugin_travels_with_what_it_imports_and_is_refused_when_changed(home, tmp_path):
    (tmp_path / "helper.py").write_text("scale = 2.0\n")
    (tmp_path / "lines.py").write_text("from helper import scale\n")
    plugin = Plugin.of(tmp_path / "lines.py")
    assert set(plugin.parcel.files) == {"lines.py", "helper.py"}
    plugin.load()
    there = {path.name for path in plugin.parcel.unpacked().iterdir()}
    assert there == {"lines.py", "helper.py"}
    changed = Parcel({**plugin.parcel.files, "helper.py": b"scale = 3.0\n"})
    with pytest.raises(ChangedError, match=r"lines\.py has another digest on a node"):
        Plugin(changed, plugin.reference, plugin.digest).load()
