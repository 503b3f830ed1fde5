# SPDX-License-Identifier: Apache-2.0
"""A submitted task: its future, and what the pool needs to run it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import TYPE_CHECKING, Any

from frostfork.pool.records import TaskRecord

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.link import Link
    from frostfork.pool.payload import Payload


_making = threading.Lock()


class TaskFuture(Future[Any]):
    """A concurrent.futures.Future whose task can be cancelled until a worker has begun it.

    Its condition, which takes longer to make than everything else, is made when somebody waits or wants to be called.
    Until then its end needs no lock: who makes the condition looks at the state afterwards, and who ends it sets the
    state and looks for a condition afterwards.
    """

    # Set on the instance only where it differs: most tasks need none of them.
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _cond: threading.Condition | None = None
    _waiters: Any = ()
    _done_callbacks: Any = ()
    _flags = 0
    _timeout: float | None = None
    _hard_timeout: float | None = None
    _retries = 0
    _attempts = 1
    _micros = 0
    _link: Link | None = None  # to which it was sent
    _last: Link | None = None  # which ran it
    _number = 0

    def __init__(self, engine: Engine, payload: bytes | Payload | None, flags: int = 0) -> None:
        # Not the base's, which makes all of what is above.
        self._engine = engine
        self._payload = payload
        if flags:
            self._flags = flags

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        if self._cond is None:
            with _making:
                if self._cond is None:
                    self._waiters = []
                    self._done_callbacks = []
                    self._cond = threading.Condition()
        assert self._cond is not None
        return self._cond

    def _wake(self) -> None:
        """Its state was set without the condition: the rest of what set_result does."""
        with self._condition:
            for waiter in self._waiters:
                waiter.add_result(self)
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]

    def result(self, timeout: float | None = None) -> Any:
        if self._state == PENDING:
            timeout = self._lead(timeout)
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state == PENDING:
            timeout = self._lead(timeout)
        return super().exception(timeout)

    def _lead(self, timeout: float | None) -> float | None:
        """Wait, if this thread can do so nearer to the worker than by a condition; what is left of the timeout."""
        engine = self._engine
        engine.check_waiter()
        link = self._link
        if link is None or self._cond is not None:
            return timeout
        if timeout is None:
            engine.lead(self, link, None)
            return None
        end = time.monotonic() + timeout
        engine.lead(self, link, timeout)
        return max(0.0, end - time.monotonic())

    @property
    def record(self) -> TaskRecord | None:
        """Who ran it and how long it took; None before its end, and if it never ran."""
        link = self._last
        if link is None:
            return None
        return TaskRecord(link.pid, link.name, link.generation, self._micros / 1e6, self._attempts)

    def running(self) -> bool:
        return super().running() or (self._state == PENDING and self._engine.has_begun(self))

    def cancel(self) -> bool:
        if not self._engine.cancel(self):
            return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)
        # Whoever waits for several futures need not wait until the queue comes to this one.
        self.set_running_or_notify_cancel()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True
