# SPDX-License-Identifier: Apache-2.0
"""A worker of the zygote as Airflow's supervisor tracks a process."""

from __future__ import annotations

import contextlib
import enum
import logging
import select
import signal
from typing import TYPE_CHECKING

from airflow.sdk.execution_time.supervisor import ProcessTracker

from frostfork._signals import DeferredSignals
from frostfork.airflow.zygote_parent import FORK_SECONDS
from frostfork.errors import ZygoteError

if TYPE_CHECKING:
    from frostfork.zygote import Coming, Ended, Worker

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

    def __init__(self, coming: Coming) -> None:
        self._coming = coming
        self._came: Worker | None = None

    def settle(self) -> Worker:
        """The worker, once it is forked. ZygoteError, OSError: it is not."""
        if self._came is None:
            with DeferredSignals():
                self._came = self._coming.worker(FORK_SECONDS)
        return self._came

    @property
    def _worker(self) -> Worker:
        try:
            return self.settle()
        except (ZygoteError, OSError) as error:
            raise ProcessLookupError(str(error)) from error

    @property
    def pid(self) -> int:
        try:
            return self._worker.pid
        except ProcessLookupError:
            return NO_PID

    @property
    def ended(self) -> Ended | None:
        worker = self._worker
        with DeferredSignals():
            return worker.poll()

    def send_signal(self, s: signal.Signals) -> None:
        self._worker.send_signal(s)

    def wait(self, timeout: float | None) -> int:
        try:
            ended = self.ended if timeout == 0 else self._worker.wait(timeout)
        except ProcessLookupError:
            return _UNKNOWN
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
        with contextlib.suppress(ProcessLookupError, TimeoutError):  # the next look will tell
            if self.ended is None and self._is_over(_END_SECONDS):
                with DeferredSignals():
                    self._worker.wait(_STATUS_SECONDS)

    def _is_over(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._worker.fileno(), select.POLLIN)
        return bool(poll.poll(seconds * 1000))
