"""The network: a whole run opens no socket, and downloads come over https, of a size that is known before."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request

import pytest
from test_fetch import CONTENT, MD5, Handler, server  # noqa: F401

from oodbench.data.catalog import catalog
from oodbench.data.fetch import _Redirects, download
from oodbench.errors import DataError

FORBIDDEN = """
import socket, sys
def forbidden(*arguments, **named):
    raise AssertionError("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = forbidden
def watched(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        sys.stderr.write(f"SOCKET {event} {arguments[1:]}\\n")
        raise RuntimeError(event)
sys.addaudithook(watched)
from oodbench.cli import main
main()
"""
"""No interpreter's module can take the hook back: also what C code opens by Python's socket is seen."""
SUITE = """\
name: n
title: t
models: [glow-small-fashionmnist-1]
limit: 12
bootstrap: 0
pairs: [{in_dist: fashionmnist, ood: [mnist]}]
scorers: [likelihood, pixel-mean]
"""


def test_a_whole_run_opens_no_socket(tmp_path):
    (tmp_path / "n.yaml").write_text(SUITE)
    argv = ["run", "--suite", "n.yaml", "--out", "out", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN, *argv],
        cwd=tmp_path, env={**os.environ, "OODBENCH_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SOCKET" not in done.stderr
    assert (tmp_path / "out" / "README.md").exists()


def test_every_address_of_the_catalog_is_https():
    addresses = [file["url"] for card in catalog().values() for file in card.files]
    assert len(addresses) > 20
    assert all(address.startswith("https://") for address in addresses)


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x"]
)
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(DataError, match="no https address"):
        download(url, tmp_path / "x", MD5)


def test_a_redirect_away_from_https_is_refused():
    request = urllib.request.Request("https://example.org/x")
    with pytest.raises(DataError, match="no https address"):
        _Redirects().redirect_request(request, None, 302, "Found", {}, "http://example.org/x")
    followed = _Redirects().redirect_request(request, None, 302, "Found", {}, "https://a.org/x")
    assert followed.full_url == "https://a.org/x"


def test_a_server_that_says_no_size_is_refused(server, tmp_path, monkeypatch):  # noqa: F811
    sends = Handler.send_header
    monkeypatch.setattr(
        Handler, "send_header",
        lambda self, name, value: None if name == "Content-Length" else sends(self, name, value),
    )  # fmt: skip
    with pytest.raises(DataError, match="does not say how large it is"):
        download(f"{server}/file", tmp_path / "file", MD5)
    assert not (tmp_path / "file.part").exists()


def test_more_than_the_disk_holds_is_refused(server, tmp_path, monkeypatch):  # noqa: F811
    free = type("Usage", (), {"free": len(CONTENT) - 1})
    monkeypatch.setattr("oodbench.data.fetch.shutil.disk_usage", lambda path: free)
    with pytest.raises(DataError, match="has room for"):
        download(f"{server}/file", tmp_path / "file", MD5)
