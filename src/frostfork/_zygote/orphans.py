# SPDX-License-Identifier: Apache-2.0
"""How a worker ended whose zygote had gone before."""

from __future__ import annotations

import time
from collections.abc import Callable

from frostfork import _core
from frostfork._zygote.adopted import reap
from frostfork._zygote.handle import ended
from frostfork._zygote.root_handle import RootHandle
from frostfork._zygote.worker import Ended, Worker

_SECONDS = 5.0  # for somebody to tell
_TICK_SECONDS = 0.02


def how_orphan_ended(
    worker: Worker, root_now: Callable[[], RootHandle | None], deadline: float
) -> Ended | None:
    """Asked until `deadline` (of time.monotonic); None: it cannot be told yet.

    Whoever adopted it waits for it. That may be this process. If it is the root, it says what it saw; then, or if it is
    another, the kernel knows (Linux 6.15), and does not say when.
    """
    now = time.monotonic()
    if worker.given_up_at is None:
        worker.given_up_at = now + _SECONDS
    until = min(deadline, worker.given_up_at)
    while True:
        if (code := reap(worker.fileno())) is not None:
            return Ended(code, None)
        root = root_now()
        if root is not None:
            root.link.wait_until(worker.is_known, min(until, now + _TICK_SECONDS))
            root.link.drain()
        status = None if worker.is_known() else _core.exit_status(worker.fileno())
        now = time.monotonic()
        if worker.is_known() or status is not None:
            return worker.poll() if worker.is_known() else ended(status, None)
        if now >= until:
            return Ended(None, None) if now >= worker.given_up_at else None
        if root is None or root.link.gone:
            time.sleep(_TICK_SECONDS)
