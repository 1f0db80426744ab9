"""The command's edge: whatever goes wrong inside becomes a sentence and one of the exit codes below.

====  =====================================================================================
code  meaning
====  =====================================================================================
0     done
1     what was asked cannot be done, trials FAILED, or a check found faults
2     the options are no sentence of this command line
70    a fault of oodbench that nobody foresaw; the sentence names the file of its traceback
129   ended by SIGHUP, as when its terminal closes
130   interrupted with Ctrl-C
131   ended by SIGQUIT, as by Ctrl-\\
143   ended by SIGTERM, as a scheduler or `kill` sends it
====  =====================================================================================
"""

from __future__ import annotations

import codecs
import platform
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from oodbench import __version__
from oodbench.errors import OodbenchError, StoreError
from oodbench.foreign import printable, shown_path
from oodbench.paths import home, write_whole
from oodbench.signals import STOPS, Stopped, handled, stoppable

UNFORESEEN, INTERRUPTED = 70, 130
STOPPED = {128 + number: number.name for number in STOPS}
"""Exit codes of the signals that end a command, as shells have them."""
PLAIN = str.maketrans(
    {
        "▼": "v", "‡": "++", "→": "->", "−": "-", "–": "-", "—": "-", "×": "x", "…": "...", "·": "*", "½": "1/2",
        "≤": "<=", "≥": ">=", "√": "sqrt", "Σ": "sum", "σ": "sigma", "µ": "u", "π": "pi", "∂": "d", "⁻": "-", "¹": "1",
        "²": "2", "₁": "1", "₂": "2", "ₖ": "k", "\N{NO-BREAK SPACE}": " ",
    }
)  # fmt: skip
"""Signs of ours, for terminals whose encoding lacks them."""


class Commands(click.Group):
    """Errors of the user, of the machine and of oodbench as one sentence each, and Ctrl-C too; no tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        use_plain_signs()
        try:
            with stoppable():
                return super().invoke(ctx)
        except OodbenchError as error:
            raise click.ClickException(printable(error)) from error
        except KeyboardInterrupt as error:
            sys.exit(_interrupted(error))
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except MemoryError as error:
            raise click.ClickException(
                "the memory of this machine does not suffice; try fewer --workers, or a --limit"
            ) from error
        except Exception as error:
            told = _of_the_machine(error)
            if told:
                raise click.ClickException(told) from error
            click.echo(printable(unforeseen(error)), err=True)
            sys.exit(UNFORESEEN)


def _interrupted(error: KeyboardInterrupt) -> int:
    """Say what ended the command, and that it can go on; returns the exit code."""
    stopped = isinstance(error, Stopped)
    with handled({signal.SIGINT: signal.SIG_IGN}), suppress(OSError):  # the terminal may be gone
        said = f"Stopped by {error}" if stopped else "Interrupted"
        click.echo(
            f"\n{said}. What is finished is kept: the same command goes on from here.", err=True
        )
    return 128 + error.number if isinstance(error, Stopped) else INTERRUPTED


def _of_the_machine(error: Exception) -> str:
    """What the system refused, with the file's name; empty where that is not what happened."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return ""
    return f"{shown_path(error.filename)}: {error.strerror}"


def unforeseen(error: BaseException) -> str:
    """One sentence on a fault of oodbench, after its whole traceback was written to a file that the sentence names."""
    message = " ".join(str(error).split())
    what = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return (
        f"Error: oodbench stumbled ({what}). What is finished is kept. The whole traceback is in {_written(error)}: "
        "please report it with that file on oodbench's issue tracker, with the data or the plugin where you can share them."
    )


def _written(error: BaseException) -> Path:
    """The file that holds the traceback, what was called, and the versions."""
    lines = [
        f"command: {' '.join(sys.argv)}",
        f"oodbench {__version__}, python {platform.python_version()}, {platform.platform()}",
        "",
        "".join(traceback.format_exception(error)),
    ]
    content = "\n".join(lines).encode("utf-8", "backslashreplace")
    name = f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{time.time_ns() % 10**6:06}.txt"
    path = home() / "errors" / name
    try:
        write_whole(path, lambda file: file.write(content))
    except StoreError:  # a home that cannot be written may be what went wrong
        path = Path(tempfile.mkdtemp(prefix="oodbench-")) / name
        path.write_bytes(content)
    return path


def use_plain_signs() -> None:
    """Let both streams write signs that their encoding lacks in plain letters, in place of an error."""
    codecs.register_error("oodbench.plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="oodbench.plain")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    plain = error.object[error.start : error.end].translate(PLAIN)
    return plain.encode("ascii", "backslashreplace").decode(), error.end
