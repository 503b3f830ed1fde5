# SPDX-License-Identifier: Apache-2.0
"""Let libraries with an allocator of their own take its first memory here, where children share it.

Such an allocator takes memory in large pieces when it is first asked for some, and asks the kernel for huge pages
there: a child that needs a few hundred bytes from each of two pieces gets 4 MB. In the parent it is 4 MB once, and of
those a child copies the small pages that it writes.

Only libraries that are loaded are asked, and only for memory that they get back at once: no code of users runs, and
nothing else of the library's is begun.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from frostfork.pages import PAGE_SIZE
from frostfork.steps.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

# mimalloc, pyarrow's own by default, has places of 64 KB for small blocks and of 512 KB for medium ones, the latter in
# another huge page. Not larger blocks: what it gives back of those takes a huge page apart, and saved nothing.
# Source: mimalloc's types.h, MI_SMALL_PAGE_SIZE and MI_MEDIUM_PAGE_SIZE.
_ARROW_BYTES = (64, 16 << 10)

_reserved: set[str] = set()


def reserve() -> Outcome:
    """Once for a library. count: libraries; bytes: by which resident memory has grown."""
    here = [
        (name, take)
        for name, take in _TAKERS.items()
        if name not in _reserved and _is_loaded(sys.modules.get(name))
    ]
    if not here:
        return Outcome(0, "libraries", idle="no library with an allocator of its own is new here")
    before = _resident()
    for name, take in here:
        _reserved.add(name)
        take(sys.modules[name])
    grown = max(0, _resident() - before)
    return Outcome(len(here), "libraries", bytes=grown, bytes_held=grown)


def _arrow(library: Any) -> None:
    pool = library.default_memory_pool()
    for size in _ARROW_BYTES:
        library.allocate_buffer(size, memory_pool=pool)


_TAKERS: dict[str, Callable[[Any], None]] = {"pyarrow.lib": _arrow}


def _is_loaded(module: object) -> bool:
    """Not one whose import is still under way."""
    return module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False)


def _resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE_SIZE
