# SPDX-License-Identifier: Apache-2.0
"""When workers that end without having worked are no longer replaced."""

from __future__ import annotations

_FIRST_DELAY = 0.05
_LONGEST_DELAY = 5.0


class Breaker:
    """Counts failures in a row: workers that ended or could not be had before any did something.

    A worker that dies in a task is no failure here: that is the task's.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self.failures = 0
        self.reason = ""

    def failed(self, reason: str) -> None:
        self.failures += 1
        self.reason = reason

    def worked(self) -> None:
        self.failures = 0

    @property
    def is_open(self) -> bool:
        """Whether to give up."""
        return self.failures >= self._most

    @property
    def delay(self) -> float:
        """Seconds to wait before the next try: none after the first failure, then twice as long each time."""
        if self.failures < 2:
            return 0.0
        return min(_LONGEST_DELAY, _FIRST_DELAY * float(2 ** (self.failures - 2)))
