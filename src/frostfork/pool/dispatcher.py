# SPDX-License-Identifier: Apache-2.0
"""Which worker gets which task."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures._base import PENDING
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostfork._core import Desk
    from frostfork.pool.future import TaskFuture
    from frostfork.pool.link import Link

_STEAL_NANOS = 1_000_000  # a task that runs for longer keeps those behind it from an idle worker


class Dispatcher:
    """The queue, and the workers that tasks go to. Everything is called with the pool's lock held.

    It sends nothing itself but through links; large tasks it leaves in `large`, for whoever holds the lock to write
    once it has let it go.
    """

    def __init__(self, desk: Desk) -> None:
        self.pending: deque[TaskFuture] = desk.pending
        self.links: set[Link] = set()
        self.large: list[tuple[Link, TaskFuture]] = []
        self.idle: dict[Link, None] = desk.idle
        self.ahead: set[Link] = desk.ahead

    def submit(self, future: TaskFuture) -> None:
        """To an idle worker, if there is one."""
        if self.idle and not self.pending:
            self._send(self.idle.popitem()[0], future)
        else:
            self.pending.append(future)

    def refill(self, link: Link) -> None:
        """Give a worker that has room what is queued."""
        pending = self.pending
        accepts = link.accepts
        if not pending and accepts and not link.inflight:  # as in a round trip
            self.idle[link] = None
            if self.ahead:
                self.ahead.discard(link)
            return
        if pending and accepts:
            while pending and link.accepts_more():
                future = pending.popleft()
                if future._state == PENDING:
                    self._send(link, future, True)
            if link.unsent:
                link.flush()
            link.arm()
        if len(link.inflight) > 1:
            self.ahead.add(link)
        else:
            self.ahead.discard(link)
        if link.idle and link.accepts:
            self.idle[link] = None
        else:
            self.idle.pop(link, None)
            if link.retiring is not None and link.idle and not link.skips:
                link.end()

    def refill_all(self) -> None:
        while self.pending and self.idle:
            self.refill(self.idle.popitem()[0])

    def requeue(self, futures: Iterable[TaskFuture]) -> None:
        """Put what was taken back before everything else."""
        for future in futures:
            future._link = None
        self.pending.extendleft(reversed(list(futures)))

    def remove(self, link: Link) -> None:
        self.links.discard(link)
        self.idle.pop(link, None)
        self.ahead.discard(link)

    def retire(self, link: Link, why: str) -> None:
        """Send it no more, take back what it has not begun; it ends when it has done the rest."""
        if link.retiring is None and not link.dead:
            link.retiring = why
            self.requeue(link.withdraw())
            self.refill(link)
            self.refill_all()

    def steal(self) -> bool:
        """Give idle workers what waits behind long tasks. Whether there is something to look at again soon."""
        if not self.ahead or not self.idle or self.pending:
            return False
        now = time.monotonic_ns()
        for link in sorted(self.ahead, key=lambda each: -len(each.inflight)):
            since = link.board.look(link.slot)[3]
            if since and now - since > _STEAL_NANOS:
                back = link.withdraw()
                self.refill(link)
                if back:
                    link.depth = 1
                    self.requeue(back)
                    self.refill_all()
                    break
        return bool(self.ahead and self.idle)

    def _send(self, link: Link, future: TaskFuture, more: bool = False) -> None:
        payload = future._payload
        if isinstance(payload, bytes):
            link.assign(future, payload, future._flags, -1, more)
        else:
            link.reserved = True
            self.large.append((link, future))
