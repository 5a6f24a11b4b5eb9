"""The worker's entry: jobs as JSON lines on stdin, answers as JSON lines on what was stdout.

fd 1 is kept for answers and then pointed at stderr *before* a runtime is imported, because libraries print. The worker
ends by itself on end-of-file and at its job's deadline: killing the local end of ssh or adb leaves the far side
running.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any, Dict, TextIO

from .jobs import Jobs

PROTOCOL = 1
GRACE_S = 2.0  # after end-of-file, a running job gets this long to reach its end


def _read(lines: "queue.Queue[Any]") -> None:
    """Feed jobs to the main thread; on end-of-file make sure the process ends even inside native code."""
    for line in sys.stdin:
        lines.put(line)
    lines.put(None)
    time.sleep(GRACE_S)
    os._exit(0)


def _answer(out: TextIO, message: Dict[str, Any]) -> None:
    out.write(json.dumps(message, separators=(",", ":")) + "\n")
    out.flush()


def _serve(out: TextIO) -> None:
    lines: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    jobs = Jobs(PROTOCOL)
    while True:
        line = lines.get()
        if line is None:
            return
        job = json.loads(line)
        number = job.pop("id", None)
        deadline_s = job.pop("deadline_s", None)
        if deadline_s:
            # A watchdog in C: it ends the process even where a runtime holds the interpreter's lock for ever.
            faulthandler.dump_traceback_later(deadline_s, exit=True)
        try:
            verb = job.pop("do")
            _answer(out, {"id": number, "ok": jobs.do(verb, job)})
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises is an answer, not the worker's end
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            _answer(
                out,
                {"id": number, "error": {"type": type(error).__name__, "message": str(error), "trace": text[-4000:]}},
            )
        finally:
            if deadline_s:
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
    _volunteer_for_the_oom_killer()
    faulthandler.enable()  # a SIGSEGV leaves its place on stderr
    _serve(out)


if __name__ == "__main__":
    main()
