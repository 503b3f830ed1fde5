# SPDX-License-Identifier: Apache-2.0
"""What is to be done at a given time."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from typing import Any

from frostfork._zygote.patience import LONGEST_SECONDS


class Timers:
    """Calls that one thread makes when they are due. Any thread may add; the GIL makes each heap operation whole."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = itertools.count()

    def add(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """In so many seconds."""
        heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._count), call, args))

    def wait_seconds(self) -> float | None:
        """Until the next call, or as long as poll() can wait; None for ever."""
        if not self._heap:
            return None
        return min(max(0.0, self._heap[0][0] - time.monotonic()), LONGEST_SECONDS)

    def run(self) -> None:
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            _, _, call, args = heapq.heappop(self._heap)
            call(*args)

    def clear(self) -> None:
        self._heap.clear()
