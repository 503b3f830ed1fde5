# SPDX-License-Identifier: Apache-2.0
"""Hold the free memory between this process's objects, so that children allocate on pages of their own.

Held are glibc's free chunks of up to a page, below the top of the heap. A child that filled one would copy a page that
it shares. Larger chunks are left to the parent: most of their pages are shared with nothing, and to a child they cost
no more than new ones. Free blocks in pymalloc's pools are for drain_pools.
"""

from __future__ import annotations

import errno

from frostfork import _core
from frostfork.errors import UnsupportedStepError
from frostfork.pages import PAGE_SIZE
from frostfork.steps.report import Outcome

_MOST = 1  # percent of resident memory; a parent of 95 MB has half of it to hold
_LARGE = 64 << 10
_MOST_OF_A_ZYGOTE = 4


def drain_heap(*, most: int | None = None) -> Outcome:
    """Give back what an earlier run holds, then hold what is free now: memory held does not add up over runs.

    most: bytes that may be held; None means 1 % of resident memory.
    details: capped is 1 if there was more to hold than `most`: the largest were then given back.
    Raises UnsupportedStepError where malloc is not glibc's.
    """
    if other := _core.heap_allocator():
        raise UnsupportedStepError(
            f"drain_heap knows the heap of glibc only, and memory comes from {other} here."
        )
    if most is None:
        most = _resident() * _MOST // 100
    try:
        chunks, held, capped = _core.heap_drain(PAGE_SIZE, most)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise UnsupportedStepError(
                "drain_heap knows glibc's main heap only, and this thread allocates elsewhere: "
                "warm up in the main thread."
            ) from error
        if error.errno == errno.ENOTSUP:
            raise UnsupportedStepError(
                "drain_heap needs mallinfo, which this glibc does not offer."
            ) from error
        raise
    return Outcome(chunks, "free chunks", held, held, details={"capped": int(capped)})


def _resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_SIZE


def again() -> None:
    """The last thing before a zygote's first fork, if anything is held: what was freed since, and larger chunks.

    A zygote does no work for which it would need them. A worker that takes a piece of one writes at both ends of it.
    """
    if _core.heap_held():
        _core.heap_drain(_LARGE, _resident() * _MOST_OF_A_ZYGOTE // 100)


def release() -> None:
    """Give back all that is held. Its use: before a large import, which then fills the holes."""
    _core.heap_release()
