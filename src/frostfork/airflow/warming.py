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
    from collections.abc import Callable

    from frostfork.preload import Ledger
    from frostfork.steps.report import StepReport, WarmupReport

log = logging.getLogger("frostfork.airflow")

# While the parent warms up it serves no child. A few functions more are not worth that at once.
_MANY_FUNCTIONS = 200
_SECONDS_BETWEEN = 10.0

_FEW_RESULTS = 10  # less says nothing of what the manager runs


class Warming:
    """Warms this process up when it is worth it.

    run, watch and clock are what does it: a test has others.
    """

    def __init__(
        self,
        steps: tuple[str, ...],
        ledger: Ledger,
        *,
        run: Callable[..., WarmupReport] = warmup,
        watch: watch_code | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps = (*steps, "freeze")
        self._ledger = ledger
        self._warmup = run
        self._watch = watch_code() if watch is None else watch
        self._clock = clock
        self._imported = True
        self._functions = 0  # how many were known at the last warmup
        self._last = 0.0
        self._quiet = 0  # results since something was imported
        self._watched = False  # or tried to
        self._watching = False
        self._settled = False  # 3. is behind us
        self._sums = _Sums()

    def parsed(self, imported: bool, files: int) -> None:
        """After each result. imported: whether it made the parent import something; files: how many are known."""
        self._imported = self._imported or imported
        self._quiet = 0 if imported else self._quiet + 1
        if self._settled or self._quiet < max(_FEW_RESULTS, files // 4):
            return
        if not self._watched and "compact_code" in self._steps:
            self._watched = True
            self._watching = self._watch.start()
        if self._quiet >= max(2 * _FEW_RESULTS, files):
            self._settle()

    def _settle(self) -> None:
        self._settled = True
        if self._watching:
            self._watching = False
            for code in self._watch.finish():
                self._ledger.hot_code.setdefault(code, 0)  # behind what children run, and so apart from it
        self._run(afresh=True)

    def run_if_due(self) -> None:
        """Before a fork."""
        new = len(self._ledger.hot_code) - self._functions
        waited = self._clock() - self._last
        if self._imported or new >= _MANY_FUNCTIONS or (new and waited > _SECONDS_BETWEEN):
            self._run(afresh=False)

    def _run(self, *, afresh: bool) -> None:
        """Never raises: the processor goes on with a parent that shares less."""
        self._imported = False
        self._functions = len(self._ledger.hot_code)
        try:
            report = self._warmup(self._ledger, steps=self._steps, afresh=afresh)
        except Exception:
            log.exception("frostfork could not warm up")
        else:
            self._sums.add(report)
            log.debug("frostfork warmed up: %s", report)
            for step in report.steps.values():
                if step.status == "failed":
                    log.warning("frostfork could not %s: %s", step.name, step.reason)
        self._last = self._clock()

    def summary(self) -> str:
        """One sentence for the log at the end."""
        return str(self._sums)


class _Sums:
    """What all warmups did together. A processor lives for months: only the last report of each step is kept."""

    def __init__(self) -> None:
        self._count = 0
        self._seconds = 0.0
        self._held = 0
        self._did: dict[str, int] = {}
        self._last: dict[str, StepReport] = {}

    def add(self, report: WarmupReport) -> None:
        self._count += 1
        self._seconds += report.seconds
        for name, step in report.steps.items():
            self._did[name] = self._did.get(name, 0) + step.count
            self._last[name] = step
            if name != "drain_heap":  # each run gives back what the one before held
                self._held += step.bytes_held

    def __str__(self) -> str:
        steps = ", ".join(
            f"{name} {self._did[name]} {step.unit}" if step.unit else f"{name} {step.status}"
            for name, step in self._last.items()
        )
        drained = self._last["drain_heap"].bytes_held if "drain_heap" in self._last else 0
        return (
            f"frostfork warmed up {self._count} times in {self._seconds:.1f} s ({steps});"
            f" {(self._held + drained) >> 20} MB of it will stay in memory until the end"
        )
