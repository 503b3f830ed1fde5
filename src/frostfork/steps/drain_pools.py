# SPDX-License-Identifier: Apache-2.0
"""Hold the free blocks between this process's objects, so that children make theirs on pages of their own.

What drain_heap does for memory from malloc, done for objects of up to 512 bytes, which Python's own allocator keeps
in pools of 16 KB. After an import most pools have free blocks. A child that made an object in one copied its page, and
the page of the pool's header. The next pool that Python takes is an empty one, where blocks lie beside the header.

It comes last, after the collector has freed what was garbage.
"""

from __future__ import annotations

import errno

from frostfork import _core
from frostfork.errors import UnsupportedStepError
from frostfork.pages import PAGE_SIZE
from frostfork.steps.report import Outcome

_MOST = 2  # percent of resident memory


def drain_pools(*, most: int | None = None) -> Outcome:
    """Give back what an earlier run holds, then hold what is free now. most: bytes; None means 2 % of resident memory.

    Raises UnsupportedStepError where Python's objects come from another allocator, or where the kernel refuses to read
    them.
    """
    if most is None:
        with open("/proc/self/statm") as statm:
            most = int(statm.read().split()[1]) * PAGE_SIZE * _MOST // 100
    try:
        blocks, held = _core.pool_drain(most)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            raise UnsupportedStepError(
                "drain_pools knows pymalloc only, and Python's objects come from another allocator here."
            ) from error
        if error.errno in (errno.EPERM, errno.ENOSYS):
            raise UnsupportedStepError(
                "drain_pools reads this process's memory by process_vm_readv, which is not allowed here."
            ) from error
        raise
    return Outcome(blocks, "free blocks", held, held, details={"capped": int(held >= most)})


def again() -> None:
    """What was freed since, if anything is held: the last thing before the first fork."""
    if _core.pool_held():
        drain_pools()


def release() -> None:
    """Give back all that is held."""
    _core.pool_release()
