# SPDX-License-Identifier: Apache-2.0
"""Whether workers answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from frostfork.pool import frames

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.link import Link


class Heart:
    """Looks at each worker every so many seconds, in the collector.

    An idle worker is sent a ping and has until the next look to answer. A busy one cannot answer, and a task may take
    as long as it likes: that worker is killed only if its process is stopped at two looks in a row, or if it does not
    begin what it was sent.
    """

    def __init__(self, engine: Engine, seconds: float) -> None:
        self._engine = engine
        self._seconds = seconds

    def begin(self) -> None:
        self._engine.timers.add(self._seconds, self._beat)

    def _beat(self) -> None:
        engine = self._engine
        engine.timers.add(self._seconds, self._beat)
        with engine.lock:
            for link in list(engine.dispatcher.links):
                if link.ready and not link.dead and not link.ended:
                    self._look_at(link)

    def _look_at(self, link: Link) -> None:
        begun, limit, tasks, since, *_ = link.board.look(link.slot)
        if since:
            link.asked = None
            stopped = link.is_stopped()
            self._judge(link, (begun, tasks) if stopped else None, "its process was stopped")
        elif link.asked is not None:
            self._end(link, f"it did not answer within {self._seconds:g} s")
        elif link.inflight:
            self._judge(link, (begun, tasks), "it did not begin what it was sent")
        elif link.max_age is not None and time.monotonic() - link.born >= link.max_age:
            self._engine.dispatcher.retire(link, f"is {time.monotonic() - link.born:.1f} s old")
            self._engine.on_retiring(link)
        else:
            link.seen = None
            link.asked = time.monotonic()
            link.say(frames.PING, b"")

    def _judge(self, link: Link, seen: tuple[int, int] | None, why: str) -> None:
        if seen is not None and link.seen == seen:
            self._end(link, f"{why} for {self._seconds:g} s")
        link.seen = seen

    def _end(self, link: Link, why: str) -> None:
        self._engine.dispatcher.requeue(link.withdraw())
        link.kill(why)
        self._engine.dispatcher.refill_all()
