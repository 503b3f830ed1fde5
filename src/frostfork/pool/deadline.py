# SPDX-License-Identifier: Apache-2.0
"""The hard timeout of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.future import TaskFuture


def check_time(engine: Engine, future: TaskFuture) -> None:
    """End the worker of a task that is beyond its hard timeout; look again when it can be."""
    hard = future._hard_timeout
    if hard is None or future.done():
        return
    left = hard
    with engine.lock:
        link = future._link
        if link is not None and not link.dead:
            begun, _, _, since, *_ = link.board.look(link.slot)
            if begun == future._number and since:
                left = hard - link.seconds_since(since)
                if left <= 0:
                    # What is behind it goes elsewhere first: then the kill can meet no other task.
                    engine.dispatcher.requeue(link.withdraw())
                    if link.has_begun(future) and link.inflight and link.inflight[-1] is future:
                        link.timed_out = future
                        link.kill(f"a task took more than {hard:g} s, so its worker {link.pid} was killed")
                        return
    engine.timers.add(max(left, 0.001), check_time, engine, future)
