"""The worker's entry: jobs as JSON lines on stdin, answers as JSON lines on what was stdout.

fd 1 is kept for answers and then pointed at stderr *before* a runtime is imported, because libraries print. Jobs
are read from a copy of stdin, whose place /dev/null takes, so that a model that reads stdin cannot eat one. The worker
ends by itself on end-of-file, at its job's deadline and when no job comes for long: killing the local end of ssh or adb
leaves the far side running, and a link that breaks silently brings no end-of-file.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import threading
import time
import traceback
from typing import Any, Dict, TextIO

from .jobs import Jobs

PROTOCOL = 1
GRACE_S = 2.0  # after end-of-file, a running job gets this long to reach its end
IDLE_S = 1800.0  # between two jobs; the longest wait is for the other side of a pair, a job of ten minutes at most


def _read(jobs: TextIO, lines: "queue.Queue[Any]") -> None:
    """Feed jobs to the main thread; on end-of-file make sure the process ends even inside native code."""
    for line in jobs:
        lines.put(line)
    lines.put(None)
    time.sleep(GRACE_S)
    os._exit(0)


def _answer(out: TextIO, message: Dict[str, Any]) -> None:
    out.write(json.dumps(message, separators=(",", ":"), allow_nan=False) + "\n")  # a NaN is no number: an error
    out.flush()


def _serve(jobs: TextIO, out: TextIO) -> None:
    lines: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read, args=(jobs, lines), daemon=True).start()
    verbs = Jobs(PROTOCOL)
    while True:
        try:
            line = lines.get(timeout=IDLE_S)
        except queue.Empty:
            os._exit(0)  # the reader waits for a line that does not come, and an ordinary exit waits for the reader
        if line is None:
            return
        number = None
        try:
            job = json.loads(line)
            number = job.pop("id", None)
            deadline_s = job.pop("deadline_s", None)
            if deadline_s:
                # A watchdog in C: it ends the process even where a runtime holds the interpreter's lock for ever.
                faulthandler.dump_traceback_later(deadline_s, exit=True)
            verb = job.pop("do")
            _answer(out, {"id": number, "ok": verbs.do(verb, job)})
        except (Exception, SystemExit) as error:  # noqa: BLE001 - what a runtime raises is an answer, not the end
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            _answer(
                out,
                {"id": number, "error": {"type": type(error).__name__, "message": str(error), "trace": text[-4000:]}},
            )
        finally:
            faulthandler.cancel_dump_traceback_later()


def _volunteer_for_the_oom_killer() -> None:
    """When memory runs out it is the model under test that must go, not the user's session."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    jobs = os.fdopen(os.dup(0), encoding="utf-8", errors="replace")  # an error here would end the reader alone
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    _volunteer_for_the_oom_killer()
    faulthandler.enable()  # a SIGSEGV leaves its place on stderr
    _serve(jobs, out)


if __name__ == "__main__":
    main()
