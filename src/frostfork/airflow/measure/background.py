# SPDX-License-Identifier: Apache-2.0
"""Airflow in the background: started apart from the terminal, logged to a file, ended with all its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from frostfork.errors import FrostforkError

_STOP_SECONDS = 6.0
_STOP_TRIES = 3
_LOOK_SECONDS = 0.1
_LOG_LINES = 20


class RunError(FrostforkError):
    """Airflow did not do its part; the message ends with the last lines of its log."""


class Log:
    """The output of a subprocess; it is removed unless the run fails."""

    def __init__(self, name: str) -> None:
        descriptor, path = tempfile.mkstemp(prefix=f"frostfork-demo-{name}-", suffix=".log")
        self.path = Path(path)
        self.file = os.fdopen(descriptor, "wb")
        self._keep = False

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if not self._keep:
            self.path.unlink()

    def failure(self, what: str) -> RunError:
        self._keep = True
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return RunError("\n".join([f"{what}; its log is {self.path}:", *lines]))


def start(arguments: list[str], environment: dict[str, str], log: Log) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C at the terminal is the demo's to handle, once and in order.
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log.file,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and what is left of its session; Airflow ends its own children on SIGINT."""
    if process.poll() is not None:
        return
    try:
        for _ in range(_STOP_TRIES):
            # More than once: Airflow's handler raises SystemExit, which is lost if it comes up in a
            # finalizer. Not send_signal(), which would reap the process.
            os.kill(process.pid, signal.SIGINT)
            if _ends_within(process, _STOP_SECONDS):
                break
    finally:
        # A second Ctrl-C ends the patience, not the tidying. The process is not yet reaped, so that the
        # group's number cannot be another's by now.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait without reaping."""
    deadline = time.monotonic() + seconds
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
