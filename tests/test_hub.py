"""Hosted weights: from a folder and from a server that speaks as the hub does, verified before they are kept."""

from __future__ import annotations

import http.server
import shutil
import threading

import pytest
from click.testing import CliRunner

import oodbench as ob
from oodbench.cli import main
from oodbench.errors import ModelError
from oodbench.zoo.cards import ZOO, load_card
from oodbench.zoo.describe import describe
from oodbench.zoo.hub import fetch_weights

WEIGHTS = (ZOO / "glow-fashionmnist" / "weights.safetensors").read_bytes()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """``/owner/name/resolve/<revision>/<file>`` with the headers that huggingface_hub asks for."""

    def do_HEAD(self):
        if not self.path.startswith("/owner/glows/resolve/"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(WEIGHTS)))
        self.send_header("ETag", '"0123"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(WEIGHTS)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{httpd.server_port}")
        yield
        httpd.shutdown()


@pytest.fixture
def card(tmp_path, home):
    """A card without weights, hosted in a folder or wherever a test says."""
    folder, shelf = tmp_path / "glow-fashionmnist-paper", tmp_path / "shelf"
    folder.mkdir()
    shelf.mkdir()
    (shelf / "weights.safetensors").write_bytes(WEIGHTS)
    shutil.copy(ZOO / "glow-fashionmnist" / "trained.json", folder)

    def make(repo=str(shelf)):
        text = (
            (ZOO / "glow-fashionmnist" / "card.yaml")
            .read_text()
            .replace("name: glow-fashionmnist\n", "")
        )
        (folder / "card.yaml").write_text(
            f"name: glow-fashionmnist-paper\nhosted: {{repo: {repo}}}\n{text}"
        )
        describe.cache_clear()
        return load_card(str(folder))

    return make


def test_weights_from_a_folder(card, home):
    made = card()
    with pytest.raises(
        ModelError, match=f"no weights on this machine; get them: `oodbench fetch {made.folder}`"
    ):
        ob.load_model(str(made.folder))
    answer = CliRunner().invoke(main, ["fetch", str(made.folder)])
    assert answer.exit_code == 0, answer.output
    assert "0.6 MB, as its card says" in answer.output
    assert made.weights == home / "weights" / "glow-fashionmnist-paper.safetensors"
    assert ob.load_model(str(made.folder)).shape == (1, 28, 28)


def test_other_bytes_are_not_kept(card, tmp_path):
    made = card()
    (tmp_path / "shelf" / "weights.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelError, match="it is an HTML page"):
        fetch_weights(made)
    assert not made.weights.exists()
    (tmp_path / "shelf" / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match="there is no file"):
        fetch_weights(made)


def test_weights_from_the_hub(card, server):
    pytest.importorskip("huggingface_hub")
    made = card("owner/glows")
    assert fetch_weights(made).read_bytes() == WEIGHTS
    with pytest.raises(
        ModelError, match=r"weights.safetensors of owner/nothing@main cannot be fetched: .+"
    ):
        fetch_weights(card("owner/nothing"))


def test_a_card_that_is_not_hosted_says_so():
    with pytest.raises(ModelError, match="names no place where its weights are hosted"):
        fetch_weights(load_card("glow-fashionmnist"))
