"""No network, a cache of its own, and only the bundled sample unless a test asks for more."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from oodbench.passes.shards import forget

SHARED = os.environ.pop("OODBENCH_DATA", None)
"""A folder of full data sets, where there is one; only tests that ask for it see it."""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    os.environ["OODBENCH_HOME"] = str(tmp_path_factory.mktemp("home"))
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise AssertionError(f"a test asks for the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty cache for one test."""
    monkeypatch.setenv("OODBENCH_HOME", str(tmp_path / "home"))
    forget()
    return tmp_path / "home"


@pytest.fixture
def shared_data(monkeypatch) -> Path:
    """The folder of full data sets that OODBENCH_DATA named when the tests began."""
    if not SHARED or not Path(SHARED).is_dir():
        pytest.skip("OODBENCH_DATA names no folder of full data sets")
    monkeypatch.setenv("OODBENCH_DATA", SHARED)
    return Path(SHARED)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)
