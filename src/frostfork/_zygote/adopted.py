# SPDX-License-Identifier: Apache-2.0
"""Processes that lost their parents, where the owner is who adopts them: as the first process of a container does."""

from __future__ import annotations

import os


def reap(pidfd: int) -> int | None:
    """Wait for it, if it has ended and has become a child of this process: else it would stay as a zombie.

    Its code as subprocess.returncode; None if it has not, or if it is not ours to wait for.
    """
    try:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except OSError:  # it is another's child; before Linux 5.4, any
        return None
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
