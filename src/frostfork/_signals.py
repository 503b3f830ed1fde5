# SPDX-License-Identifier: Apache-2.0
"""Signals that wait while someone else's code runs under a catch-all."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class DeferredSignals:
    """Hold back SIGINT and SIGTERM during an import, a fork or a read from children, and deliver them afterwards.

    Their handlers raise: KeyboardInterrupt by default, SystemExit in Airflow. Raised inside the guarded import of a
    module, it would be taken for the module's own failure; raised inside an at-fork hook, Python would drop it; and
    Airflow's handlers read from the children, in generators that cannot be entered twice. A second signal means it: it
    is handled at once, and `raised` is what its handler raised, for the guard to let pass.
    Handlers that the import changed are put back. In a thread other than the main one, where no handler runs, it does
    nothing.
    """

    def __init__(self) -> None:
        self.raised: BaseException | None = None
        self._waiting: list[int] = []
        self._handlers: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if handler is not None:  # None: set outside Python, and not ours to put back
                    self._handlers[number] = handler
                    signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number not in self._waiting:
            self._waiting.append(number)
            return
        self._waiting.remove(number)
        handler = self._handlers[number]
        if not callable(handler):  # the kernel's own doing: to end the process, or nothing
            signal.signal(number, handler)
            os.kill(os.getpid(), number)
            return
        try:
            handler(number, frame)
        except BaseException as error:
            self.raised = error
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for number in self._waiting:
            os.kill(os.getpid(), number)
