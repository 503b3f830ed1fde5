# SPDX-License-Identifier: Apache-2.0
"""When the DAG processor's parent is warmed up.

1. Before its first fork.
2. When it has imported what a child used, and when children have shown code that they run: at the next fork.
3. Once, when every file has been parsed again without a new import: then the manager's caches are full, and its own
   hot code is known, which imports would bury in code that runs once.

The third is for the manager's own sake. What it writes, it copies away from its children, and that was 8 MB for each
result that it stores. With its own code in one place and its caches immortal it is 6 MB.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from frostfork.observe import watch_code
from frostfork.warmup import warmup

if TYPE_CHECKING:
    from frostfork.preload import Ledger
    from frostfork.steps.report import WarmupReport

log = logging.getLogger("frostfork.airflow")

# While the parent warms up it serves no child. A few functions more are not worth that at once.
_MANY_FUNCTIONS = 200
_SECONDS_BETWEEN = 10.0

_FEW_RESULTS = 10  # less says nothing of what the manager runs


class Warming:
    """Warms this process up when it is worth it."""

    def __init__(self, steps: tuple[str, ...], ledger: Ledger) -> None:
        self._steps = (*steps, "freeze")
        self._ledger = ledger
        self._imported = True
        self._functions = 0  # how many were known at the last warmup
        self._last = 0.0
        self._own_code: watch_code | None = watch_code()
        self._watching = False
        self._quiet = 0  # results since something was imported
        self.reports: list[WarmupReport] = []

    def parsed(self, imported: bool, files: int) -> None:
        """After each result. imported: whether it made the parent import something; files: how many are known."""
        self._imported = self._imported or imported
        self._quiet = 0 if imported else self._quiet + 1
        if self._own_code is None or self._quiet < max(_FEW_RESULTS, files if self._watching else files // 4):
            return
        if self._watching:
            for code in self._own_code.finish():
                self._ledger.hot_code.setdefault(code, 0)  # behind what children run, and so apart from it
            self._own_code = None
            self._run(afresh=True)
        elif "compact_code" in self._steps and self._own_code.start():
            self._watching = True
        else:
            self._own_code = None

    def run_if_due(self) -> None:
        """Before a fork."""
        new = len(self._ledger.hot_code) - self._functions
        waited = time.monotonic() - self._last
        if self._imported or new >= _MANY_FUNCTIONS or (new and waited > _SECONDS_BETWEEN):
            self._run(afresh=False)

    def _run(self, *, afresh: bool) -> None:
        """Never raises: the processor goes on with a parent that shares less."""
        self._imported = False
        self._functions = len(self._ledger.hot_code)
        try:
            report = warmup(self._ledger, steps=self._steps, afresh=afresh)
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
