"""The command line's entry: one place where an error of the tree becomes a message and an exit code.

Anything that is not a :class:`~hwbench.errors.HwbenchError` is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import click

from .cli import cli
from .errors import DeviceError, HwbenchError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXIT_TERMINATED = 143  # 128 + SIGTERM
EXIT_PIPE = 141  # 128 + SIGPIPE: the reader of our output has gone
# What a group of commands raises that is called without any: its help. Before click 8.2 it was printed by click itself.
_HELP: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


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
        code = _run(words, context)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_output()
        return EXIT_PIPE
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop_output()
        where = f" ({error.filename})" if error.filename else ", and the output is not complete"
        return _report(
            DeviceError(
                f"A disk is full: {error.strerror}{where}.",
                remedy="Free space (df -h says where) and run it again; every session committed so far is kept.",
            )
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(words: Sequence[str], context: dict[str, Any]) -> int:
    """Run a command, and print the error that ends it."""
    try:
        if "_HWBENCH_COMPLETE" in os.environ:  # a shell asks click what may come next
            cli.main(words, prog_name="hwbench")
        with cli.make_context("hwbench", list(words), obj=context) as ctx:  # cli.main makes broken pipes exit code 1
            code = cli.invoke(ctx)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except HwbenchError as error:
        return _report(error, context, words)
    except _HELP as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        return _report(_usage(error), context, words)
    except (KeyboardInterrupt, click.Abort):
        print(f"\ninterrupted. {context.get('resume', '')}".rstrip(), file=sys.stderr)  # behind the terminal's ^C
        return EXIT_INTERRUPTED


def _drop_output() -> None:
    """What is still to be flushed goes nowhere, or the interpreter's last flush complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: HwbenchError, context: Mapping[str, Any] | None = None, words: Sequence[str] = ()) -> int:
    from .cli import terminal

    if context is not None and "--json" in words:
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
