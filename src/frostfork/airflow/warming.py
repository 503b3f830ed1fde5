# SPDX-License-Identifier: Apache-2.0
"""When the DAG processor's parent is warmed up.

1. Before its first fork.
2. When it has imported what a child used, and when children have shown code that they run: at the next fork.
3. Once, when every file has been parsed again without a new import: then the manager's caches are full, and its own
   hot code is known, which imports would bury in code that runs once.

The third is for the manager's own sake, where it is the parent. What it writes, it copies away from its children, and
that was 8 MB for each result that it stores. With its own code in one place and its caches immortal it is 6 MB.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from frostfork.observe import watch_code
from frostfork.warmup import warmup

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostfork.observe import CodeName
    from frostfork.preload import Ledger
    from frostfork.steps.report import WarmupReport

log = logging.getLogger("frostfork.airflow")

# While the parent warms up it serves no child. A few functions more are not worth that at once.
_MANY_FUNCTIONS = 200
_SECONDS_BETWEEN = 60.0

_RENEWED = ("drain_heap", "drain_pools")  # each run gives back what the one before held

# The manager runs the same code for every result. While it is watched its children copy more, so that is kept short.
_WATCHED_RESULTS = 12


class Warming:
    """Warms this process up when it is worth it.

    is_manager: whether the process does the manager's work as well. run, watch and clock are what does it: a test has
    others.
    """

    def __init__(
        self,
        steps: tuple[str, ...],
        ledger: Ledger,
        *,
        is_manager: bool = True,
        run: Callable[..., WarmupReport] = warmup,
        watch: watch_code | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps = (*steps, "reserve", "freeze")
        self._ledger = ledger
        self._warmup = run
        self._clock = clock
        self._imported = True
        self._functions = 0  # how many were known at the last warmup
        self._last = 0.0
        self._watch = watch_code() if watch is None else watch
        self._watched: int | None = None  # results since it began
        moves_own = is_manager and "compact_code" in steps
        self._own_code: list[CodeName] | None = None if moves_own else []
        self._complete = False
        self._quiet = 0  # results since something was imported
        self.reports: list[WarmupReport] = []

    def parsed(self, imported: bool, files: int) -> None:
        """After each result. imported: whether it made the parent import something; files: how many are known."""
        self._imported = self._imported or imported
        self._quiet = 0 if imported else self._quiet + 1
        if self._complete:
            return
        if self._own_code is None:
            self._look_at_manager(files)
        if self._own_code is not None and self._quiet > max(files, _WATCHED_RESULTS):
            for code in self._own_code:
                self._ledger.hot_code.setdefault(code, 0)  # behind what children run, and so apart from it
            self._complete = True
            self._run(afresh=True)

    def _look_at_manager(self, files: int) -> None:
        if self._quiet == 0 and self._watched is not None:
            self._watch.finish()  # what an import runs, it runs once: begin again later
            self._watched = None
        if self._watched is None:
            if self._quiet > files // 4:
                self._watched = 0
                if not self._watch.start():  # another tool has the place
                    self._own_code = []
            return
        self._watched += 1
        if self._watched >= _WATCHED_RESULTS:
            self._own_code = self._watch.finish()

    @property
    def is_complete(self) -> bool:
        """Whether it was once warmed up afresh with all that it learned."""
        return self._complete

    def run_if_due(self) -> None:
        """Before a fork."""
        if self._watched is not None and self._own_code is None:
            return  # code that is watched is not moved: what is due stays so for the few results
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
            self.reports.append(report)
            log.debug("frostfork warmed up: %s", report)
            for step in report.steps.values():
                if step.status == "failed":
                    log.warning("frostfork could not %s: %s", step.name, step.reason)
        self._last = self._clock()

    def summary(self) -> str:
        """One sentence for the log at the end."""
        seconds = sum(report.seconds for report in self.reports)
        steps = [step for report in self.reports for step in report.steps.values()]
        last = {step.name: step for step in steps}
        did = ", ".join(
            f"{name} {sum(each.count for each in steps if each.name == name)} {step.unit}"
            if step.unit
            else f"{name} {step.status}"
            for name, step in last.items()
        )
        held = sum(step.bytes_held for step in steps if step.name not in _RENEWED or step is last[step.name])
        return (
            f"frostfork warmed up {len(self.reports)} times in {seconds:.1f} s ({did});"
            f" {held >> 20} MB of it will stay in memory until the end"
        )
