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
# From 3.14 on.
_TERMINATE = getattr(concurrent.futures.process, "_TERMINATE", "terminate")
_KILL = getattr(concurrent.futures.process, "_KILL", "kill")


class _Process:
    """A worker, as a test sees it."""

    def __init__(self, pid: int) -> None:
        self._pidfd = os.pidfd_open(pid)

    def terminate(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def kill(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def is_alive(self) -> bool:
        return not select.select([self._pidfd], [], [], 0)[0]

    def join(self, timeout: float = _PATIENCE) -> None:
        if not select.select([self._pidfd], [], [], timeout)[0]:
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

    def terminate_workers(self) -> None:
        self._force_shutdown(operation=_TERMINATE)

    def kill_workers(self) -> None:
        self._force_shutdown(operation=_KILL)

    def _force_shutdown(self, operation: str) -> None:
        if operation not in (_TERMINATE, _KILL):
            raise ValueError(f"Unsupported operation: {operation!r}")
        (super().terminate_workers if operation == _TERMINATE else super().kill_workers)()

    @property
    def _broken(self) -> bool:
        return self._engine.broken is not None

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
