# SPDX-License-Identifier: Apache-2.0
"""What the DAG processor does when a distribution that its parent imported from changes on disk.

In stock Airflow each child imports what is there by then. A parent that holds the old modules would hand them to all
its children, which import whatever else they need from the new files.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from frostfork.staleness import PYTHON, InstalledWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostfork.preloader import Preloader

log = logging.getLogger("frostfork.airflow")

# An installer takes its time, and a start amid its work would meet half of a distribution.
_SETTLE_SECONDS = 15.0


class Freshness:
    """action: one of provider.STALE. clock and watch are what a test replaces."""

    def __init__(
        self,
        action: str,
        preloader: Preloader,
        *,
        watch: InstalledWatch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._action = action
        self._preloader = preloader
        self._watch = InstalledWatch() if watch is None else watch
        self._clock = clock
        self._known = 0
        self._changed: float | None = None
        self.names: set[str] = set()  # of what changed; PYTHON is one

    def look(self) -> None:
        """Before a fork: take in what was imported since, and act on what changed. Mostly it does nothing."""
        preloaded = self._preloader.report.preloaded
        if len(preloaded) != self._known:
            self._known = len(preloaded)
            distribution = self._preloader.policy.installed.distribution
            self._watch.add({distribution(name) for name in preloaded})
        for change in self._watch.changes():
            log.warning("%s after the DAG processor had imported from it", change)
            self._changed = self._clock()
            self.names.add(change.name)
            if self._action == "stop":
                self._stop(None if change.name == PYTHON else change.name, str(change))

    def _stop(self, distribution: str | None, reason: str) -> None:
        gone, kept = self._preloader.let_go(distribution, reason)
        if gone:
            log.warning(
                "frostfork let go of %d modules of %s: children import them anew", len(gone), distribution
            )
        if kept:
            log.warning(
                "%d modules of %s stay as they were in the DAG processor and its children, since a process cannot load"
                " their extension modules twice: start it again to use what is installed now",
                len(kept),
                distribution,
            )

    @property
    def wants_new_parent(self) -> bool:
        """Whether the process is to be started again: it is asked for, and nothing changed for a while."""
        return (
            self._action == "renew"
            and self._changed is not None
            and self._clock() - self._changed > _SETTLE_SECONDS
        )
