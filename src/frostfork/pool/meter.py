# SPDX-License-Identifier: Apache-2.0
"""A worker's private memory, measured by itself and seldom.

The kernel's figure costs 10 ns a page, too much for each of a hundred thousand tasks a second. No page becomes private
without a page fault, so where there was hardly any since the last look there is nothing to look at; and a look is not
repeated before a hundred times its own duration has passed.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import time

from frostfork._core import Board
from frostfork.pages import Baseline

_ROLLUP_BYTES = 2048  # it has some 700
_FAULTS = 64
_REST = 100
_REST_SECONDS = 0.05


def private_bytes() -> int:
    """Private_Clean + Private_Dirty of this process. OSError where the kernel does not tell."""
    # Without a file object, whose buffers would be a tenth of what is measured.
    fd = os.open("/proc/self/smaps_rollup", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, _ROLLUP_BYTES)
    finally:
        os.close(fd)
    total = 0
    for name in (b"Private_Clean:", b"Private_Dirty:"):
        at = text.find(name)
        if at >= 0:
            total += int(text[at + len(name) : text.find(b"kB", at)])
    return total << 10


class Meter:
    """Measures into the board: after tasks, if private bytes are limited; else when idle, for statistics."""

    def __init__(self, board: Board, slot: int, limit: int | None) -> None:
        self._board = board
        self._slot = slot
        self._limited = limit is not None
        self._fewest = 1 if self._limited else _FAULTS  # one fault may bring a huge page
        self.bytes: int | None = None  # as far as they are known
        self._baseline: Baseline | None = None
        self._faults = 0
        self._next = 0.0

    def begin(self, baseline: bool) -> None:
        """The worker is ready. baseline: count from here what it un-shares."""
        if baseline:
            with contextlib.suppress(OSError):
                self._baseline = Baseline.take()
        self._faults = -_FAULTS
        self.look()

    def look_if_limited(self) -> None:
        """After a task: only if there is a limit that is to be kept."""
        if self._limited:
            self.look()

    def look(self) -> float | None:
        """Measure, if memory may have grown. The seconds until it may be done, if it is too soon; else None."""
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        if faults - self._faults < self._fewest:
            return None
        start = time.monotonic()
        if start < self._next:
            return self._next - start
        self._faults = faults
        try:
            self.bytes = private_bytes()
            unshared = -1 if self._baseline is None else self._baseline.compare().unshared
        except OSError:
            self._next = math.inf
            self._faults = 1 << 62
            return None
        self._board.measured(self._slot, self.bytes, unshared)
        self._next = start + max(_REST_SECONDS, _REST * (time.monotonic() - start))
        return None
