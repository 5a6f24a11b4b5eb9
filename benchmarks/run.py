"""Measures parts: what is current stays, what was cut off goes on, what fails leaves the others alone."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .part import Command, Part
from .rows import Figure, Origin, Outputs, Reading, Row, renewed, row
from .state import State, hashes_at, hashes_now, head, key

QUICK_S = 14 * 60.0
"""When a quick run stops; what it takes to end the last command and write the page comes on top."""
LIMIT_S = 4 * 3600.0  # of one command: what takes longer hangs
NOT_YET = "has not been measured"


class FailedError(Exception):
    """A command that gave no figures, and why."""


@dataclass(slots=True)
class Bed:
    """Where parts are measured and what is known about the code.

    Attributes:
        root: of the repository.
        folder: of what parts leave: states, tables, predictors, stores.
        parts: name → part, all of them.
        quick: fewer repetitions, no verdicts.
        fresh: nothing that is there counts.
        machine: in words.
        end_s: on the monotonic clock, when no time is left.
    """

    root: Path
    folder: Path
    parts: Mapping[str, Part]
    quick: bool = False
    fresh: bool = False
    machine: str = ""
    end_s: float = float("inf")
    tell: Callable[[str], None] = lambda line: print(line, flush=True)
    _hashes: dict[str, str] = field(default_factory=dict)

    def key(self, part: Part) -> str:
        if not self._hashes:
            self._hashes = hashes_now(self.root, (glob for each in self.parts.values() for glob in each.paths))
        return key(part, self.parts, self._hashes, quick=self.quick)

    def key_at(self, part: Part, commit: str) -> str:
        return key(part, self.parts, hashes_at(self.root, commit), quick=self.quick)

    def path(self, part: Part) -> Path:
        return self.folder / f"{part.name}.json"

    def state(self, part: Part) -> State | None:
        return State.read(self.path(part))

    def current(self, part: Part) -> bool:
        """Measured, and nothing that it depends on has changed since."""
        state = self.state(part)
        return state is not None and state.done and state.key == self.key(part)

    def origin(self, part: Part) -> Origin:
        """Of what is measured now; a commit is marked when the code that counts is another one than its own."""
        commit = head(self.root)
        changed = commit != "unknown" and self.key(part) != self.key_at(part, "HEAD")
        return Origin(f"{commit}+" if changed else commit, _now(), self.machine)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def chosen(parts: Mapping[str, Part], names: Sequence[str]) -> list[Part]:
    """The parts of these names, else those whose names begin so; all without a name. Raises KeyError for none."""
    if not names:
        return list(parts.values())
    found: dict[str, Part] = {}
    for name in names:
        matching = [name] if name in parts else [each for each in parts if each.startswith(name)]
        if not matching:
            raise KeyError(name)
        found |= {each: parts[each] for each in matching}
    return [part for name, part in parts.items() if name in found]


def measure(bed: Bed, part: Part) -> str:
    """Bring one part up to date; what became of it in a word: unchanged, measured, skipped or failed."""
    commands = part.sequence(quick=bed.quick)
    why = part.missing() or ("" if commands else "takes too long for a quick run")
    if why:
        bed.tell(f"{part.name}: left out, {why}")
        return "skipped"
    if bed.current(part) and not bed.fresh:
        bed.tell(f"{part.name}: nothing has changed since it was measured")
        return "unchanged"
    if time.monotonic() >= bed.end_s:
        bed.tell(f"{part.name}: left out, the time is over")
        return "skipped"
    state = _begun(bed, part)
    try:
        _needs(bed, part)
        for command in commands[len(state.outputs) :]:
            start = time.monotonic()
            bed.tell(f"{part.name}: {' '.join(command.argv)}")
            state.outputs.append(_output(bed, part, command))
            state.seconds += time.monotonic() - start
            state.write(bed.path(part))
        state.done, state.error = True, ""
    except FailedError as error:
        state.error = str(error)
        bed.tell(f"{part.name}: FAILED, {error}")
    state.write(bed.path(part))
    return "measured" if state.done else "failed"


def _begun(bed: Bed, part: Part) -> State:
    """What an interrupted run left, when it was of the same code; else a clean beginning."""
    before = bed.state(part)
    if before is not None and not before.done and before.key == bed.key(part) and not bed.fresh:
        before.error = ""
        return before
    for path in bed.folder.glob(f"{part.name}.db*"):
        path.unlink()
    state = State(bed.key(part), bed.origin(part))
    state.write(bed.path(part))
    return state


def _needs(bed: Bed, part: Part) -> None:
    for file, name in part.needs:
        if not (bed.folder / file).exists():
            raise FailedError(f"needs {bed.folder / file}, which the part {name} leaves")


def _output(bed: Bed, part: Part, command: Command) -> Any:
    """The JSON object that a command prints last. Raises FailedError when it prints none, or an error."""
    argv = [word.replace("{out}", str(bed.folder)) for word in command.argv]
    if argv[0] == "hwbench":
        argv[:1] = [sys.executable, "-m", "hwbench"]
    elif argv[0] == "python":
        argv[0] = sys.executable
    env = {**os.environ, "HWBENCH_DB": str(bed.folder / f"{command.store or part.name}.db")}
    log = bed.folder / f"{part.name}.log"
    text, code = _run(argv, bed.root, env, log, min(LIMIT_S, bed.end_s - time.monotonic()))
    lines = [line for line in text.splitlines() if line.startswith(("{", "["))]
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        found = None
    if found is None:
        said = log.read_text(errors="replace").strip().splitlines()
        raise FailedError(f"exit status {code} and no figures: {said[-1] if said else 'not a word'} (all in {log})")
    if isinstance(found, dict) and found.get("error"):
        error = found["error"]
        raise FailedError(error["message"] if isinstance(error, dict) else str(error))
    return found


def _run(argv: list[str], root: Path, env: dict[str, str], log: Path, limit_s: float) -> tuple[str, int]:
    """Standard output and exit status. The process and what it started end with the time, or with this program."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            argv, cwd=root, env=env, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            text, _ = process.communicate(timeout=max(1.0, limit_s))
        except subprocess.TimeoutExpired as expired:
            raise FailedError(f"did not end within {limit_s:.0f} s") from expired
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return text.decode(errors="replace"), process.returncode


def adopt(bed: Bed, part: Part, files: Sequence[Path], commit: str) -> None:
    """Take what the telling commands of a part printed earlier, in their order, instead of running them.

    Raises:
        FailedError: another number of files than the part has telling commands, or one without a JSON object.
    """
    telling = [command for command in part.commands if command.tells]
    if len(files) != len(telling):
        words = "; ".join(" ".join(command.argv) for command in telling)
        raise FailedError(f"{part.name} takes what {len(telling)} commands printed, not {len(files)} files: {words}")
    printed = iter([_printed(path) for path in files])
    outputs = [next(printed) if command.tells else None for command in part.commands]
    changed = max(path.stat().st_mtime for path in files)
    date = datetime.datetime.fromtimestamp(changed, datetime.timezone.utc).isoformat(timespec="seconds")
    origin = Origin(head(bed.root, commit), date, bed.machine)
    if origin.commit == "unknown":
        raise FailedError(f"there is no commit {commit}")
    state = State(bed.key_at(part, commit), origin, outputs, done=True)
    unread = [r.note for r in readings(part, state) if r.note.startswith(UNREAD)]
    if unread:
        raise FailedError(f"this is not what {part.name} prints: {unread[0]}")
    state.write(bed.path(part))


def _printed(path: Path) -> Any:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(("{", "["))]
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise FailedError(f"{path} holds no JSON object") from error


UNREAD = "cannot be read from what was printed"


def readings(part: Part, state: State, *, quick: bool = False) -> list[Reading]:
    """Each figure of a part, as its commands printed it: the mean over their runs, which give the repeat error."""
    commands = part.quick if quick else part.commands
    rounds = [state.outputs[i : i + len(commands)] for i in range(0, len(state.outputs), len(commands))]
    told = [[out for command, out in zip(commands, mine, strict=True) if command.tells] for mine in rounds]
    return [_merged([_read(figure, outputs) for outputs in told]) for figure in part.figures]


def _read(figure: Figure, outputs: Outputs) -> Reading:
    try:
        return figure.read(outputs)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        return Reading(None, note=f"{UNREAD}: {type(error).__name__} {error}")


def _merged(found: Sequence[Reading]) -> Reading:
    """The mean of several, with what they differ by over it."""
    values = [each.value for each in found if each.value is not None]
    if len(found) < 2 or len(values) < len(found):
        return found[-1]
    mean = sum(values) / len(values)
    return replace(found[-1], value=mean, repeat_error=(max(values) - min(values)) / mean if mean else None)


def collect(bed: Bed, before: Sequence[Row], tried: Mapping[str, str]) -> list[Row]:
    """Every promised figure: as measured in this folder, else as an earlier row has it, else without a value.

    Args:
        bed: where parts were measured.
        before: rows that are there already.
        tried: name → what was tried, for rows that do not meet their bar.
    """
    old = {each["name"]: each for each in before if each["date"] is not None}
    found = []
    for part in bed.parts.values():
        state = bed.state(part)
        known = readings(part, state, quick=bed.quick) if state is not None and state.done else []
        for number, figure in enumerate(part.figures):
            name = f"{part.name}/{figure.name}"
            if known and state is not None:
                made = row(part.name, part.topic, figure, known[number], state.origin)
            elif name in old:
                made = renewed(old[name], part.name, part.topic, figure)
            else:
                made = row(part.name, part.topic, figure, Reading(None, note=_why(bed, part, state)), None)
            made["met"] = None if bed.quick else made["met"]
            silent = bed.quick or made["met"] or made["bar"] is None or made["note"] == NOT_YET
            made["tried"] = "" if silent else tried.get(name, "")
            found.append(made)
    return found


def _why(bed: Bed, part: Part, state: State | None) -> str:
    if bed.quick and not part.quick:
        return "takes too long for a quick run"
    return part.missing() or (f"failed: {state.error}" if state is not None and state.error else NOT_YET)
