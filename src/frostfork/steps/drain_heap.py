# SPDX-License-Identifier: Apache-2.0
"""Hold the free memory between this process's objects, so that children allocate on pages of their own.

Held are glibc's free chunks of up to a page, below the top of the heap, and free blocks in pymalloc's pools that are
partly in use. A child that filled one would copy a page that it shares. Larger chunks are left to the parent: most of
their pages are shared with nothing, and to a child they cost no more than new ones.
"""

from __future__ import annotations

import errno

from frostfork import _core
from frostfork.errors import UnsupportedStepError
from frostfork.pages import PAGE_SIZE
from frostfork.steps.report import Outcome

# Of each kind, in percent of resident memory. A parent of 95 MB has half of it to hold.
_MOST = 1


def drain_heap(*, most: int | None = None, pools: bool = False) -> Outcome:
    """Give back what an earlier run holds, then hold what is free now: memory held does not add up over runs.

    most: bytes of each kind that may be held; None means 1 % of resident memory.
    pools: hold pymalloc's blocks too. They save a child a quarter of their size to twice their size, so they pay from
    the fourth child that lives at the same time, or from the first; glibc's chunks save twice to three times theirs.
    details: pool_blocks and pool_bytes are pymalloc's share of the counts (0 where another allocator serves objects),
    capped is 1 if there was more to hold of one kind than `most`: the largest were then given back.
    Raises UnsupportedStepError where malloc is not glibc's.
    """
    if other := _core.heap_allocator():
        raise UnsupportedStepError(
            f"drain_heap knows the heap of glibc only, and memory comes from {other} here."
        )
    if most is None:
        most = _resident() * _MOST // 100
    if not pools:
        _core.pools_release()
    # pymalloc first: its own tables lie in the heap.
    blocks, block_bytes, blocks_capped = (_core.pools_drain(most) if pools else None) or (0, 0, False)
    try:
        chunks, chunk_bytes, chunks_capped = _core.heap_drain(PAGE_SIZE, most)
    except OSError as error:
        _core.pools_release()
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
    held = chunk_bytes + block_bytes
    details = {
        "pool_blocks": blocks,
        "pool_bytes": block_bytes,
        "capped": int(blocks_capped or chunks_capped),
    }
    return Outcome(chunks + blocks, "free chunks", held, held, details=details)


def _resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_SIZE


def release() -> None:
    """Give back all that is held. Its use: before a large import, which then fills the holes."""
    _core.heap_release()
    _core.pools_release()
