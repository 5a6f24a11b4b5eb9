"""The command line's entry: one place where an error of the tree becomes a message and an exit code.

Anything that is not a :class:`~hwbench.errors.HwbenchError` is a bug and keeps its traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import click

from .cli import cli
from .errors import HwbenchError, UsageError

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXIT_TERMINATED = 143  # 128 + SIGTERM
EXIT_PIPE = 141  # 128 + SIGPIPE: the reader of our output has gone


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; those of the process when ``None``.

    Returns:
        The exit code: 0, or that of the error (see :mod:`hwbench.errors`), or 128 + the signal that ended it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    context: dict[str, Any] = {}  # what the command says about itself: model, target, how to resume
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that lacks a letter gets its escape, not a traceback
            stream.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, _terminated)  # ends like an error does: workers go, files are whole
    try:
        code = cli.main(words, prog_name="hwbench", standalone_mode=False, obj=context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except HwbenchError as error:
        return _report(error, context, words)
    except click.ClickException as error:
        return _report(_usage(error), context, words)
    except (KeyboardInterrupt, click.Abort):
        print(f"interrupted. {context.get('resume', '')}".strip(), file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
        return EXIT_PIPE
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(error: HwbenchError, context: dict[str, Any], words: Sequence[str]) -> int:
    from .cli import terminal

    if "--json" in words:
        terminal.json_line({**{key: context.get(key) for key in ("model", "target")}, "error": error.as_dict()})
    else:
        terminal.error(error)
    return error.exit_code


def _usage(error: click.ClickException) -> UsageError:
    """click's own complaints (an option that is not there, a value that is missing) as an error of the tree."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "hwbench"
    return UsageError(error.format_message(), remedy=f"{command} --help shows what it takes.")


def _terminated(number: int, frame: FrameType | None) -> None:
    raise SystemExit(EXIT_TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
