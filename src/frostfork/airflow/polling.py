# SPDX-License-Identifier: Apache-2.0
"""How often the manager asks the database whether somebody wants something of it.

Airflow's manager asks three times in each turn of its loop: for callbacks, for files to parse first, for warnings of
DAGs that are gone. While it waits for slow children a turn takes up to a second. With quick children it turns thirty
times a second and more, and a quarter of its time goes into these questions; then it, and no longer the children, is
what every file waits for. Four times a second is more often than an idle Airflow asks.
"""

from __future__ import annotations

import time

POLL_SECONDS = 0.25


class Poll:
    """One question, and when it is due again."""

    def __init__(self, seconds: float = POLL_SECONDS) -> None:
        self._seconds = seconds
        self._next = 0.0

    def is_due(self) -> bool:
        """Whether to ask now; if so, the next time is `seconds` later."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True

    def again(self) -> None:
        """There was more than one answer could hold: ask in the next turn."""
        self._next = 0.0
