# SPDX-License-Identifier: Apache-2.0
"""A process of the multiprocessing context that is started by a fork of its parent."""

from __future__ import annotations

import atexit
import os
from multiprocessing import popen_fork, util
from typing import TYPE_CHECKING, Any

from frostfork._inherited import share_tracker
from frostfork.fork import fork

if TYPE_CHECKING:
    from collections.abc import Iterable

# From 3.13 on a child runs what it registers with atexit; before, only what multiprocessing itself has to do.
RUNS_ATEXIT = hasattr(popen_fork, "atexit")


class ForkPopen(popen_fork.Popen):
    """popen_fork's, but for the fork itself: the child freezes what it inherits."""

    def _launch(self, process_obj: Any) -> None:
        code = 1
        parent_r, child_w = os.pipe()
        child_r, parent_w = os.pipe()
        share_tracker(True)
        try:
            self.pid = fork()
        except BaseException:
            close_all((parent_r, child_w, child_r, parent_w))
            raise
        finally:
            share_tracker(False)
        if self.pid == 0:
            try:
                if RUNS_ATEXIT:
                    clear_atexit()
                os.close(parent_r)
                os.close(parent_w)
                code = process_obj._bootstrap(parent_sentinel=child_r)
            finally:
                if RUNS_ATEXIT:
                    run_atexit()
                os._exit(code)
        close_all((child_w, child_r))
        self.finalizer = util.Finalize(self, close_all, ((parent_r, parent_w),))
        self.sentinel = parent_r


def close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def clear_atexit() -> None:
    """What the parent registered is the parent's to run."""
    atexit._clear()
    atexit.register(vars(util)["_exit_function"])


def run_atexit() -> None:
    """As the interpreter does at a normal end, which os._exit is not."""
    atexit._run_exitfuncs()
