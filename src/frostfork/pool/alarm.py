# SPDX-License-Identifier: Apache-2.0
"""The soft timeout of a task: an exception in the middle of it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from frostfork.errors import TaskTimeout


class Alarm:
    """Raises TaskTimeout in the main thread. It takes SIGALRM, but only while a task with a timeout runs."""

    def __init__(self) -> None:
        self._seconds: float | None = None

    @contextlib.contextmanager
    def set(self, seconds: float) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, self._ring)
        self._seconds = seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            self._seconds = None
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before if before is not None else signal.SIG_DFL)

    def _ring(self, number: int, at: FrameType | None) -> None:
        if self._seconds is not None:
            raise TaskTimeout(f"the task took more than {self._seconds:g} s")
