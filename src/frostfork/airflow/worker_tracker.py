# SPDX-License-Identifier: Apache-2.0
"""A worker of the zygote as Airflow's supervisor tracks a process."""

from __future__ import annotations

import contextlib
import enum
import logging
import select
import signal
import time
from typing import TYPE_CHECKING

from airflow.sdk.execution_time.supervisor import ProcessTracker

from frostfork._signals import DeferredSignals
from frostfork.airflow.zygote_parent import FORK_SECONDS
from frostfork.zygote import Coming

if TYPE_CHECKING:
    from frostfork.zygote import Ended, Worker

log = logging.getLogger("frostfork.airflow")

# psutil's, in whose place this stands, so that Airflow can name the signal.
_NEGATIVE = {number.name: -number.value for number in signal.Signals}
_Negative = enum.IntEnum("_Negative", _NEGATIVE)  # type: ignore[misc]
NO_PID = 2**31 - 1  # no process can have it
_UNKNOWN = -1  # what Airflow takes for a process that was gone before it could be asked

# Airflow waits for a child's end by its sockets, and asks for the status when they are closed, once. Its own children
# can be asked at that moment; here the zygote has to see the end first, which may import something.
_END_SECONDS = 0.05
_STATUS_SECONDS = 1.0


class WorkerTracker(ProcessTracker):
    """Airflow's protocol over a Worker.

    Airflow's signal handlers ask it as well, in the middle of whatever the manager is at: also in the middle of asking
    the zygote, which takes a lock. So signals wait for that to be over.
    """

    ProcessNotFound = ProcessLookupError
    TimeoutExpired = TimeoutError

    def __init__(self, worker: Worker | Coming) -> None:
        """worker: or what is still coming, whose fork is waited for until FORK_SECONDS from now."""
        self._coming = worker if isinstance(worker, Coming) else None
        self._came = None if isinstance(worker, Coming) else worker
        self._deadline = time.monotonic() + FORK_SECONDS

    @property
    def is_settled(self) -> bool:
        """Whether it is known if there is a process."""
        return self._coming is None or self._coming.is_settled

    def settle(self) -> None:
        """Wait until it is forked. ZygoteError, OSError: it is not."""
        if self._came is None and self._coming is not None:
            with DeferredSignals():
                self._came = self._coming.worker(max(0.001, self._deadline - time.monotonic()))

    @property
    def _worker(self) -> Worker:
        """Whoever wants to end or know it before it is settled will not have it any more."""
        if self._came is None:
            if self._coming is not None:
                with DeferredSignals():
                    self._coming.abandon()
            raise ProcessLookupError("it was never known to be forked")
        return self._came

    @property
    def pid(self) -> int:
        return NO_PID if self._came is None else self._came.pid

    @property
    def forked_at(self) -> float:
        return self._worker.forked_at

    @property
    def ended(self) -> Ended | None:
        worker = self._worker
        with DeferredSignals():
            return worker.poll()

    def send_signal(self, s: signal.Signals) -> None:
        self._worker.send_signal(s)

    def wait(self, timeout: float | None) -> int:
        if self._came is None:
            return _UNKNOWN
        ended = self.ended if timeout == 0 else self._came.wait(timeout)
        if ended is None:
            raise TimeoutError(f"process {self.pid} has not ended yet")
        if ended.code is None:
            log.warning("nobody could tell how the process %d ended", self.pid)
            return _UNKNOWN
        try:
            return _Negative(ended.code)
        except ValueError:  # an exit code, or a real-time signal
            return ended.code

    def await_status(self) -> None:
        """For when nothing more can come of the process: wait a moment for its end, and for its status."""
        if self.ended is None and self._is_over(_END_SECONDS):
            with DeferredSignals(), contextlib.suppress(TimeoutError):  # the next look will tell
                self._worker.wait(_STATUS_SECONDS)

    def _is_over(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._worker.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1000))
