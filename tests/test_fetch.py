"""Downloads against a local server: whole, resumed, broken off, of the wrong hash, refused."""

from __future__ import annotations

import hashlib
import http.server
import threading
from dataclasses import replace

import pytest

from oodbench.data.catalog import data_card
from oodbench.data.fetch import download, fetch, verify
from oodbench.errors import DataError

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; ``/cut`` breaks off after a third of what is asked."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.headers["Range"])
        if self.path == "/missing":
            self.send_error(404)
            return
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if self.path == "/no-ranges":
            start = 0
        elif start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 3] if self.path == "/cut" else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    Handler.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_a_whole_file_arrives_with_progress(server, tmp_path):
    sizes, steps = [], []
    download(f"{server}/file", tmp_path / "file", MD5, steps.append, sizes.append)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert sizes == [len(CONTENT)]
    assert sum(steps) == len(CONTENT)
    assert not (tmp_path / "file.part").exists()


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    with pytest.raises(DataError, match="run the same command to go on"):
        download(f"{server}/cut", tmp_path / "file", MD5)
    kept = (tmp_path / "file.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    assert not (tmp_path / "file").exists()
    steps = []
    download(f"{server}/file", tmp_path / "file", MD5, steps.append)
    assert Handler.asked[-1] == f"bytes={kept}-"
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert sum(steps) == len(CONTENT)


def test_a_whole_part_is_verified_not_fetched(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    download(f"{server}/file", tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:100])
    download(f"{server}/no-ranges", tmp_path / "file", MD5)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_removed(server, tmp_path):
    with pytest.raises(DataError, match="MD5"):
        download(f"{server}/file", tmp_path / "file", "0" * 32)
    assert not list(tmp_path.iterdir())


def test_refusals_and_dead_hosts_are_sentences(server, tmp_path):
    with pytest.raises(DataError, match="answers 404"):
        download(f"{server}/missing", tmp_path / "file", MD5)
    with pytest.raises(DataError, match="broke off"):
        download("http://127.0.0.1:9/file", tmp_path / "file", MD5)


def test_fetch_takes_what_is_missing_and_verify_checks_it(server, home):
    files = [{"path": f"{name}.bin", "md5": MD5, "url": f"{server}/{name}"} for name in ("a", "b")]
    card = replace(data_card("mnist"), files=files, splits={})
    (home / "raw").mkdir(parents=True)
    (home / "raw" / "a.bin").write_bytes(CONTENT)
    sizes = {}
    assert fetch(card, sizes.__setitem__, lambda name, n: None) == []
    assert sizes == {"b.bin": len(CONTENT)}
    assert verify(card)[:2] == ["a.bin: MD5 as it should be", "b.bin: MD5 as it should be"]
    (home / "raw" / "b.bin").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"b\.bin has MD5"):
        verify(card)
