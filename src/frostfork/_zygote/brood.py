# SPDX-License-Identifier: Apache-2.0
"""The workers of a zygote: waited for by number, since other children are the template's to wait for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, NamedTuple


class Child(NamedTuple):
    serial: int
    name: str


class Brood(dict[int, Child]):
    """By pid, those that have not been waited for. report: told of each end, with status and rusage, None if not known.

    reap() may be called from a signal handler, also in the middle of itself.
    """

    def __init__(self, report: Callable[[int, Child, int | None, tuple[Any, ...] | None], None]) -> None:
        super().__init__()
        self._report = report
        self._reaping = self._again = False

    def kill(self, which: Callable[[Child], bool] = lambda _: True) -> None:
        for pid, child in self.items():
            if which(child):
                os.kill(pid, signal.SIGKILL)

    def reap(self) -> None:
        """Report each one that has ended."""
        self._again = True
        if self._reaping:
            return
        while self._again:
            self._reaping, self._again = True, False
            try:
                self._reap_all()
            finally:
                self._reaping = False

    def _reap_all(self) -> None:
        while self:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                self._reap_each()  # the template waited for all, or had SIGCHLD ignored
                return
            if found is None:
                return
            if found.si_pid not in self:  # it is always the first that is shown
                self._reap_each()
                return
            self._reap_one(found.si_pid)

    def _reap_each(self) -> None:
        for pid in list(self):
            self._reap_one(pid)

    def _reap_one(self, pid: int) -> None:
        try:
            ended, status, rusage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            self._report(pid, self.pop(pid), None, None)
            return
        if ended:
            self._report(pid, self.pop(pid), status, tuple(rusage))
