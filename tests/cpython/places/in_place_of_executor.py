# SPDX-License-Identifier: Apache-2.0
"""ForkPool is what a ProcessPoolExecutor is, with as much of that one's inside as tests look at."""

from __future__ import annotations

import concurrent.futures.process
import os
import select
import signal
import threading
import time

import frostfork
from frostfork.pool.outcome import RemoteTraceback

_PATIENCE = 30.0


class _Process:
    """A worker, as a test sees it."""

    def __init__(self, pid: int) -> None:
        self._pidfd = os.pidfd_open(pid)

    def terminate(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def join(self) -> None:
        if not select.select([self._pidfd], [], [], _PATIENCE)[0]:
            raise AssertionError("the worker has not ended")

    def __del__(self, close=os.close) -> None:
        close(self._pidfd)


class _CallQueue:
    """There is none, and so no thread of it."""

    def join_thread(self) -> None:
        pass


class ProcessPoolExecutor(frostfork.ForkPool):
    """With the parameters of the one that it stands for; the context makes no difference to ours."""

    _call_queue = _CallQueue()

    def __init__(
        self, max_workers=None, mp_context=None, initializer=None, initargs=(), *, max_tasks_per_child=None
    ):
        recycle = frostfork.RecyclePolicy(max_tasks=max_tasks_per_child, jitter=0.0)
        super().__init__(max_workers, initializer=initializer, initargs=initargs, recycle=recycle)

    @property
    def _max_workers(self) -> int:
        return self._crew.size

    @property
    def _executor_manager_thread(self) -> threading.Thread:
        return self._crew.thread

    @property
    def _processes(self) -> dict[int, _Process]:
        """All workers: ours start in another thread, where fork's are there when submit() returns."""
        end = time.monotonic() + _PATIENCE
        while len(workers := self.stats().workers) < self._max_workers and time.monotonic() < end:
            time.sleep(0.01)
        return {each.pid: _Process(each.pid) for each in workers}


RemoteTraceback.tb = property(lambda self: str(self))
concurrent.futures.process._RemoteTraceback = RemoteTraceback
concurrent.futures.process.ProcessPoolExecutor = ProcessPoolExecutor
concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor
