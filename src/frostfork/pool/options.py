# SPDX-License-Identifier: Apache-2.0
"""How tasks are run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from frostfork import _settings

if TYPE_CHECKING:
    from frostfork.pool.future import TaskFuture

_KILL_AFTER = 5.0  # seconds that a task has to obey its soft timeout
_LONGEST = 4_000_000.0  # the milliseconds of a soft timeout have 32 bits in a frame


class Options(NamedTuple):
    """How tasks are run.

    timeout: seconds after which TaskTimeout is raised in the task, math.inf for never. hard_timeout: seconds after
    which its worker is killed; 5 more than timeout unless given, math.inf for never. retries: how often the task may be
    run again elsewhere when its worker dies.
    """

    timeout: float | None = None
    hard_timeout: float | None = None
    retries: int = 0

    def checked(self) -> Options:
        _settings.seconds("timeout", self.timeout, or_none=True, most=_LONGEST)
        _settings.seconds("hard_timeout", self.hard_timeout, or_none=True)
        _settings.whole("retries", self.retries, 0)
        soft, hard = _finite(self.timeout), self.hard_timeout
        if hard is None and soft is not None:
            hard = soft + _KILL_AFTER
        found = self._replace(timeout=soft, hard_timeout=_finite(hard))
        return PLAIN if found == PLAIN else found

    def apply(self, future: TaskFuture) -> None:
        """To a task that is yet to be submitted."""
        future._timeout, future._hard_timeout, future._retries = self


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else seconds


PLAIN = Options()  # the one object that says so
