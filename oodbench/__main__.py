"""``python -m oodbench``: the command."""

from oodbench.cli import main

main(prog_name="oodbench")
