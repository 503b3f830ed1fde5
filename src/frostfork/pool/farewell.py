# SPDX-License-Identifier: Apache-2.0
"""Whether workers that were told to end do so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.link import Link

END_SECONDS = 10.0  # for a worker that was told to end
LOOK_SECONDS = 0.5


class Farewell:
    """Kills who takes too long, and who is stopped (SIGSTOP) and so will not end at all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def watch(self, link: Link) -> None:
        """From any thread, with no lock held; nothing happens before it was told to end."""
        if link.ended and not link.watched:
            link.watched = True
            self._engine.timers.add(LOOK_SECONDS, self._look, link, time.monotonic() + END_SECONDS, False)
            self._engine.ring()

    def _look(self, link: Link, end: float, was_stopped: bool) -> None:
        """Stopped at one look all may have been, by Ctrl-Z, which is over now: it takes two."""
        if link.dead:
            return
        stopped = link.is_stopped()
        if time.monotonic() >= end or (stopped and was_stopped):
            link.kill("it did not end when told to")
        else:
            self._engine.timers.add(LOOK_SECONDS, self._look, link, end, stopped)
