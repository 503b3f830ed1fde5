# SPDX-License-Identifier: Apache-2.0
"""How a process ended that is nobody's child here: asked of the kernel through its pidfd."""

from __future__ import annotations

import select
import time

from frostfork import _core


def status_of(pidfd: int, timeout: float) -> int | None:
    """Its wait status, once whoever adopted it has waited for it; None if not known in time, or never.

    A pidfd hangs up when its process has been waited for: from then on Linux 6.15 and newer tell its status.
    """
    poll = select.poll()
    poll.register(pidfd, 0)
    deadline = time.monotonic() + max(0.0, timeout)
    left = timeout
    while True:
        poll.poll(max(0, int(left * 1000 + 0.999)))
        status = _core.exit_status(pidfd)
        left = deadline - time.monotonic()
        if status is not None or left <= 0:
            return status
        return None
