# SPDX-License-Identifier: Apache-2.0
"""A worker's private memory, measured by itself and seldom.

The kernel's figure costs 10 ns a page, too much for each of a hundred thousand tasks a second. No page becomes private
without a page fault, so where there was hardly any since the last look there is nothing to look at; and a look is not
repeated before a hundred times its own duration has passed.
"""

from __future__ import annotations

import resource
import time

from frostfork._core import Board

_FAULTS = 64
_REST = 100
_REST_SECONDS = 0.05


def private_bytes() -> int:
    """Private_Clean + Private_Dirty of this process. OSError where the kernel does not tell."""
    with open("/proc/self/smaps_rollup", "rb") as file:
        text = file.read()
    return sum(
        int(line.split()[1]) << 10
        for line in text.splitlines()
        if line.startswith((b"Private_Clean:", b"Private_Dirty:"))
    )


class Meter:
    """Measures into the board. `limited`: the policy has a limit on private bytes, so each task is followed by a look
    at whether to measure; else only an idle worker measures, for statistics."""

    def __init__(self, board: Board, slot: int, limit: int | None) -> None:
        self._board = board
        self._slot = slot
        self._limited = limit is not None
        self._fewest = 1 if self._limited else _FAULTS  # one fault may bring a huge page
        self._bytes: int | None = None
        self._faults = 0
        self._next = 0.0

    def begin(self) -> None:
        self._faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - _FAULTS

    def grown(self) -> int | None:
        """After a task: the private bytes, as far as they are known."""
        if self._limited:
            self.idle()
        return self._bytes

    def idle(self) -> None:
        """Measure, if that is due."""
        start = time.monotonic()
        if start < self._next:
            return
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        if faults - self._faults < self._fewest:
            if not self._limited:
                self._next = start + _REST_SECONDS
            return
        self._faults = faults
        try:
            self._bytes = private_bytes()
        except OSError:
            self._next = float("inf")
            return
        self._board.measured(self._slot, self._bytes, -1)
        self._next = start + _REST * (time.monotonic() - start)
