# SPDX-License-Identifier: Apache-2.0
"""Real children for tests: their result comes back as JSON, their failure as a failure of the test."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

WAIT_SECONDS = 30


def run_child(body: Callable[[], Any], fork: Callable[[], int]) -> Any:
    """Fork with `fork`, run body in the child, return what it returned."""
    with tempfile.TemporaryFile() as result:
        pid = fork()
        if pid == 0:
            _child(body, result.fileno())
        status = wait_bounded(pid)
        result.seek(0)
        answer = json.loads(result.read() or b'{"error": "no answer"}')
    assert "error" not in answer, f"child failed ({status=}):\n{answer['error']}"
    assert status == 0
    return answer["value"]


def wait_bounded(pid: int) -> int:
    """The exit code of a child; one that takes too long is interrupted, then killed."""
    pidfd = os.pidfd_open(pid)
    try:
        for number in (None, signal.SIGINT, signal.SIGKILL):
            if number is not None:
                os.kill(pid, number)
            ready, _, _ = select.select([pidfd], [], [], WAIT_SECONDS)
            if ready:
                break
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(pidfd)


def _child(body: Callable[[], Any], result: int) -> NoReturn:
    code = 1
    try:
        try:
            answer = {"value": body()}
            code = 0
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(result, json.dumps(answer).encode())
        sys.stdout.flush()
    finally:
        os._exit(code)


def run_script(script: str, **environment: str) -> Any:
    """What a fresh interpreter prints, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
