# SPDX-License-Identifier: Apache-2.0
"""When the DAG processor's parent is warmed up: before its first fork, and again once there is something new."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from frostfork.warmup import warmup

if TYPE_CHECKING:
    from frostfork.preload import Ledger
    from frostfork.steps.report import WarmupReport

log = logging.getLogger("frostfork.airflow")

# While the parent warms up it serves no child. A few functions more are not worth that at once.
_MANY_FUNCTIONS = 200
_SECONDS_BETWEEN = 10.0


class Warming:
    """Warms this process up when it is worth it."""

    def __init__(self, steps: tuple[str, ...], ledger: Ledger) -> None:
        self._steps = (*steps, "freeze")
        self._ledger = ledger
        self._imported = True
        self._functions = 0  # how many were known at the last warmup
        self._last = 0.0
        self.reports: list[WarmupReport] = []

    def imported(self) -> None:
        """The parent has new modules."""
        self._imported = True

    def run_if_due(self) -> None:
        """Before a fork. Never raises: the processor goes on with a parent that shares less."""
        new = len(self._ledger.hot_code) - self._functions
        waited = time.monotonic() - self._last
        if not (self._imported or new >= _MANY_FUNCTIONS or (new and waited > _SECONDS_BETWEEN)):
            return
        self._imported = False
        self._functions += new
        try:
            report = warmup(self._ledger, steps=self._steps)
        except Exception:
            log.exception("frostfork could not warm up")
        else:
            self.reports.append(report)
            log.debug("frostfork warmed up: %s", report)
        self._last = time.monotonic()

    def summary(self) -> str:
        """One sentence for the log at the end."""
        seconds = sum(report.seconds for report in self.reports)
        held = sum(report.bytes_held for report in self.reports)
        return (
            f"frostfork warmed up {len(self.reports)} times in {seconds:.1f} s;"
            f" {held >> 20} MB that modules hold will stay until the end"
        )
