# SPDX-License-Identifier: Apache-2.0
"""Memory of a DAG processor's manager and its children, seen from outside and alike for every variant.

A child's last sample before its end stands for it, so what it takes in its last milliseconds is missed.
Sampling costs the sampled processes time, which is why no round that is timed is sampled.
"""

from __future__ import annotations

import time

from frostfork.airflow.measure.processes import Descendants, rollup
from frostfork.airflow.measure.summary import ChildMemory, TreeMemory
from frostfork.pages import Baseline

_GONE = (FileNotFoundError, ProcessLookupError)


class Sampler:
    """Samples one manager. What it has seen is in `children`, `trees`, `manager_rss` and `notes`."""

    def __init__(self, manager: int) -> None:
        self.manager = manager
        self.trees: list[TreeMemory] = []
        self.manager_rss: list[int] = []
        self.notes: set[str] = set()
        self._children: dict[int, ChildMemory] = {}
        self._seen: set[int] = set()
        self._ended: list[ChildMemory] = []
        self._baselines: dict[int, Baseline] = {}
        self._descendants = Descendants(manager)

    @property
    def children(self) -> list[ChildMemory]:
        """Every child that was seen, ended or not."""
        return [*self._ended, *self._children.values()]

    def has_seen(self, pid: int) -> bool:
        """Say whether a process of this number was sampled."""
        return pid in self._seen

    def sample_manager(self) -> None:
        """Note the manager's resident bytes."""
        try:
            own = rollup(self.manager)
        except PermissionError as error:
            self._refused(error)
            return
        if own is not None:
            self.manager_rss.append(own.rss)

    def sample(self) -> None:
        """Look at all processes once."""
        living = self._descendants.find()
        for pid in self._children.keys() - set(living):
            self._ended.append(self._children.pop(pid))
            self._baselines.pop(pid, None)
        try:
            own = rollup(self.manager)
            if own is None:
                return
            total = own.pss + sum(self._child(pid) for pid in living)
        except PermissionError as error:
            self._refused(error)
            return
        self.manager_rss.append(own.rss)
        self.trees.append(TreeMemory(time.monotonic(), total))

    def _child(self, pid: int) -> int:
        now = rollup(pid)
        if now is None:
            return 0
        seen = self._children.get(pid)
        if seen is None:
            seen = self._children[pid] = ChildMemory(pid, 0.0, 0, 0)
            self._seen.add(pid)
        seen.seen, seen.private, seen.pss = time.monotonic(), now.private, max(now.pss, seen.pss)
        try:
            self._count_unshared(pid, seen)
        except _GONE:
            pass
        except PermissionError as error:
            self._refused(error)
        return now.pss

    def _count_unshared(self, pid: int, seen: ChildMemory) -> None:
        baseline = self._baselines.get(pid)
        if baseline is None:
            self._baselines[pid] = Baseline.take(pid)
        else:
            seen.unshared = baseline.compare().unshared

    def _refused(self, error: PermissionError) -> None:
        self.notes.add(f"memory could not be read: {error.strerror or error}")
