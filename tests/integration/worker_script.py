# SPDX-License-Identifier: Apache-2.0
"""Scripts that are a zygote, in a fresh interpreter, and fork workers as a pool does: by hand, without a Zygote."""

from __future__ import annotations

import textwrap
from typing import Any

from tests.integration.forking import run_script

# work(body): what body returns in a worker.
PRELUDE = """
import json, os, signal, sys, traceback
from frostfork import _worker, fork

def become(*keep):
    _worker.become_zygote("pool zygote", 1, keep)

def work(body, name="pool-1", generation=2, keep=(), leave=False, expect=0):
    reader, writer = os.pipe()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = fork()
    if pid == 0:
        code = 1
        try:
            _worker.become_worker(name, generation, (writer, *keep))
            os.write(writer, json.dumps(body()).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            if leave:
                _worker.leave(code)
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == expect, status
    return json.loads(text) if text else None
"""


def run(script: str, **environment: str) -> Any:
    return run_script(PRELUDE + textwrap.dedent(script), **environment)
