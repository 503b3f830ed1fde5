# SPDX-License-Identifier: Apache-2.0
"""A submitted task: its future, and what the pool needs to run it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import TYPE_CHECKING, Any

from frostfork._core import Task
from frostfork.pool.records import TaskRecord, Who

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.link import Link


_making = threading.Lock()


class TaskFuture(Task, Future[Any]):
    """A concurrent.futures.Future whose task can be cancelled until a worker has begun it.

    Its condition, which takes longer to make than everything else, is made when somebody waits or wants to be called.
    Until then its end needs no lock: who makes the condition looks at the state afterwards, and who ends it sets the
    state and looks for a condition afterwards.
    """

    _cond: threading.Condition | None
    _engine: Engine
    _link: Link | None
    _last: Who | None

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        if self._cond is None:
            with _making:
                if self._cond is None:
                    self._waiters = []
                    self._done_callbacks = []
                    self._cond = threading.Condition()
                    if (link := self._link) is not None:
                        link.arm()
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
        if self._state is PENDING:
            timeout = self._engine.bring(self, timeout)
        if self._state is FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state is PENDING:
            timeout = self._engine.bring(self, timeout)
        return super().exception(timeout)

    @property
    def record(self) -> TaskRecord | None:
        """Who ran it and how long it took; None before its end, and if it never ran."""
        if self._last is None:
            return None
        return TaskRecord(*self._last, self._micros / 1e6, self._attempts)

    def running(self) -> bool:
        return super().running() or (self._state == PENDING and self._engine.has_begun(self))

    def cancel(self) -> bool:
        if not self._engine.cancel(self):
            return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)
        # Whoever waits for several futures need not wait until the queue comes to this one.
        self.set_running_or_notify_cancel()
        self._invoke_callbacks()  # type: ignore[attr-defined]
        return True
