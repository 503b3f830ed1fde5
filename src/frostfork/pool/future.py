# SPDX-License-Identifier: Apache-2.0
"""A submitted task: its future, and what the pool needs to run it."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, PENDING
from typing import TYPE_CHECKING, Any

from frostfork.pool.records import TaskRecord

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.link import Link
    from frostfork.pool.payload import Payload


class TaskFuture(Future[Any]):
    """A concurrent.futures.Future whose task can be cancelled until a worker has begun it."""

    # Set on the instance only where it differs: most tasks need none of them.
    _timeout: float | None = None
    _hard_timeout: float | None = None
    _retries = 0
    _attempts = 1
    _micros = 0
    _link: Link | None = None  # to which it was sent
    _last: Link | None = None  # which ran it
    _number = 0

    def __init__(self, engine: Engine, payload: bytes | Payload) -> None:
        super().__init__()
        self._engine = engine
        self._payload: bytes | Payload | None = payload

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
        self._invoke_callbacks()
        return True
