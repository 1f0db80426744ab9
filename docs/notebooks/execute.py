"""Run every notebook of this folder from an empty folder, and fail where a cell does; CI calls it.

Cells are run as they stand; what they show is not written back.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

LIMIT = 600
"""Seconds after which a cell counts as hanging."""


def main() -> None:
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        began = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            resources = {"metadata": {"path": folder}}
            NotebookClient(notebook, timeout=LIMIT, resources=resources).execute()
        print(f"{path.name}: every cell ran, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
