# SPDX-License-Identifier: Apache-2.0
"""The end of a zygote, in order: its temporary folders go, its log handlers and files are written out.

What its template registered with atexit is not run: a zygote has what its workers are to run at their end (see
_inherited.settle). Modules are not taken apart, and threads are not waited for. Whoever closes it waits a little longer
than this may take; after the owner's death nobody would end one that hangs. So the kernel does, by SIGALRM.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from typing import NoReturn

from frostfork import _core, _end

_SECONDS = 1.5


def _finalize() -> None:
    """weakref.finalize's own, of TemporaryDirectory and others: settle() has taken it from atexit."""
    if (finalize := getattr(sys.modules.get("weakref"), "finalize", None)) is not None:
        finalize._exitfunc()


def leave(code: int) -> NoReturn:
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        for end in (_finalize, atexit._run_exitfuncs, _end.write_out_all):
            try:
                end()
            except BaseException as error:
                _core.report_unraisable(error, end)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
    finally:
        os._exit(code)
