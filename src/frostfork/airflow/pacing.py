# SPDX-License-Identifier: Apache-2.0
"""How many children the manager has in flight.

Airflow fills every slot, stores the results of all children that are done, and fills the slots again. That is right for
children that take much longer than the manager needs for a result. Quick children are all done before the first result
is stored, wait for it in turn with their memory, and while new ones run the manager has nothing to do.

Here the manager starts a child before it stores a result, so that it parses meanwhile, and as many are in flight as
keep the manager busy: one more when it has waited for a moment; one less when a result waits for it, and now and then
to see whether that will do. Slow children fill every slot.

The moment is a quarter of what a result takes it: so much of its time may be lost, and that only if children take just
so much longer. It is the whole of that if another child would have no processor but the manager's.

A file of a hundred DAGs may take the manager ten times as long to store as others, and whoever is done meanwhile
would wait for all of it. So no child is started then, and what is ready with it, or just about to be, is stored before
it. As much as a quarter of that time may be lost for this.
"""

from __future__ import annotations

import os
import time
from collections import deque
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping

_SHARE = 0.25
_FIRST_SECONDS = 0.04
_RESULTS = 15
_NO_TIME = 0.1  # times what a result takes: who waited no longer for one had none to wait for
_LARGE = 3  # times the usual
_MOST_FILES = 100_000
_WITHOUT_WAIT = 8  # results, after which one child less is tried


class Pace:
    """How many children may be in flight, out of so many slots.

    Children are told by the seconds since their start, under their files.
    """

    def __init__(
        self, slots: int, processors: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = slots
        self._processors = len(os.sched_getaffinity(0)) if processors is None else processors
        self._clock = clock
        self._seconds = deque([_FIRST_SECONDS], maxlen=_RESULTS)  # that a result took the manager
        self._children = deque([_FIRST_SECONDS], maxlen=_RESULTS)  # from their start to their results
        self._stored_in: dict[Hashable, float] = {}  # by file, the last time
        self._limit = 1
        self._stored = 0  # results since it was changed
        self._since = clock()  # when the manager last had something to do

    def wait(self) -> float:
        """For how long nothing may happen before another child is started."""
        has_processor = self._limit + 1 < self._processors
        moment = median(self._seconds) * (_SHARE if has_processor else 1.0)
        return max(0.0, self._since + moment - self._clock())

    def waiting(self, in_flight: int) -> int:
        """So many children are in flight, and none is known to have ended. Returns how many may be."""
        if in_flight >= self._limit and self.wait() == 0.0:
            self._change(min(in_flight + 1, self._slots))
            self._since = self._clock()
        return self._limit

    def ready(self, results: Mapping[Hashable, float]) -> int:
        """These are to be stored. Returns how many children may be in flight meanwhile."""
        self._children.extend(results.values())
        self._stored += len(results)
        was_there = self._clock() - self._since < _NO_TIME * median(self._seconds)
        if len(results) > 1 or was_there or self._stored > _WITHOUT_WAIT:
            self._change(max(1, self._limit - 1))
        return 0 if median(self._children) <= self._may_lose(results) else self._limit

    def _change(self, limit: int) -> None:
        self._limit = limit
        self._stored = 0

    def stored(self, results: int, seconds: float) -> None:
        """They were, and that took so long."""
        self._seconds.append(seconds / results)
        self._since = self._clock()

    # --- large results

    def stored_one(self, file: Hashable, seconds: float) -> None:
        """So long of that was for this file."""
        if len(self._stored_in) >= _MOST_FILES:  # of folders that are long gone, most of them
            self._stored_in.clear()
        self._stored_in[file] = seconds

    def expected(self, file: Hashable) -> float:
        """For how many seconds the manager will be busy with this file's result."""
        return self._stored_in.get(file, median(self._seconds))

    def hold(self, results: Collection[Hashable], in_flight: Mapping[Hashable, float]) -> float:
        """For how many seconds to leave these results: others will be there by then."""
        usual = median(self._children)
        left = max((usual - seconds for seconds in in_flight.values()), default=0.0)
        return left if 0.0 < left <= self._may_lose(results) else 0.0

    def _may_lose(self, files: Collection[Hashable]) -> float:
        """So many seconds, for what comes before these results; 0 if they are not large."""
        seconds = sum(map(self.expected, files))
        return _SHARE * seconds if seconds > _LARGE * len(files) * median(self._seconds) else 0.0
