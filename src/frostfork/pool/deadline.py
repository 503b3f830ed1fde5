# SPDX-License-Identifier: Apache-2.0
"""The hard timeouts of tasks."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.link import Link


class Deadlines:
    """Ends the workers whose task is beyond its hard timeout.

    There is one timer for all: no task that begins after a look can be due before the shortest timeout has passed. A
    timer for each task would hold it, and its result, for as long as the task might have taken.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shortest = math.inf
        self._due = math.inf  # of the next look

    def watch(self, hard: float) -> None:
        """A task with this hard timeout was submitted."""
        self._shortest = min(self._shortest, hard)
        self._look_in(hard)

    def _look_in(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        if due < self._due:
            self._due = due
            self._engine.timers.add(seconds, self._look, due)
            self._engine.ring()

    def _look(self, due: float) -> None:
        if due != self._due:
            return  # another one came before it
        self._due = left = math.inf
        engine = self._engine
        with engine.lock:
            waits = bool(engine.dispatcher.pending or engine.dispatcher.large)
            for link in engine.dispatcher.links:
                if link.inflight and not link.dead:
                    waits = True
                    left = min(left, self._left(link))
        if waits:
            self._look_in(max(0.001, min(left, self._shortest)))
        else:
            self._shortest = math.inf

    def _left(self, link: Link) -> float:
        """Seconds that the task which a worker runs still has. If none, the worker is killed."""
        begun, _, _, since, *_ = link.board.look(link.slot)
        future = next((each for each in link.inflight if each._number == begun), None)
        hard = future._hard_timeout if future is not None else None
        if future is None or hard is None or not since:
            return math.inf
        left = hard - link.seconds_since(since)
        if left > 0:
            return left
        if link.timed_out is None:
            # What is behind it goes elsewhere first: then the kill can meet no other task.
            self._engine.dispatcher.requeue(link.withdraw())
            if link.inflight and link.inflight[-1] is future and link.has_begun(future):
                link.timed_out = future
                link.kill(f"a task took more than {hard:g} s, so its worker {link.pid} was killed")
        return math.inf
