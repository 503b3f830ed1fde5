# SPDX-License-Identifier: Apache-2.0
"""What canaries have said of modules: one trial at a time, and the verdicts of all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from frostfork.preload.verdict import was_killed

if TYPE_CHECKING:
    from frostfork.canary import Canary, Trial
    from frostfork.preload.verdict import Verdict

_SECONDS_BETWEEN_PLANS = 0.25
# A trial that could not go on is no module's doing: the system may be short of processes, for a moment or for long.
_FRUITLESS_TRIALS = 5
_SECONDS_BETWEEN_TRIALS = 60.0


class Trials:
    """Begins trials, takes in what they say, and knows when the next is due."""

    def __init__(self, canary: Canary) -> None:
        self.canary = canary
        self.current: Trial | None = None
        self.verdicts: dict[str, Verdict] = {}
        self.failed: dict[str, str] = {}  # what no trial gave a verdict on, and why
        self._killed: dict[str, Trial] = {}  # in which trial something killed it for the first time
        self._next_look = 0.0
        self._fruitless = 0  # trials in a row
        self._next: float | None = None  # when it is due, after one that was none

    def is_due(self) -> bool:
        """Whether one that was put off can begin now."""
        return self._next is not None and time.monotonic() >= self._next

    def has_news(self) -> bool:
        """Take in what the canary says, and whether that is something new."""
        trial = self.current
        if trial is None:
            return False
        ended = trial.poll()
        if not ended and time.monotonic() < self._next_look:
            return False  # each module that passes would be a plan, and the last one is as good as all
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_PLANS
        before = len(self.verdicts)
        for name, verdict in trial.verdicts.items():
            # The kernel ends canaries first when memory is short, and that says nothing of the module: once more.
            if not was_killed(verdict) or self._killed.setdefault(name, trial) is not trial:
                self.verdicts.setdefault(name, verdict)
        if ended:
            self._end(trial)
        return ended or len(self.verdicts) > before

    def _end(self, trial: Trial) -> None:
        untried = [
            name for name in trial.names if name not in self.verdicts and self._killed.get(name) is not trial
        ]
        why = f"the canary ended without a verdict: {trial.error or 'its time was over'}"
        self._fruitless = self._fruitless + 1 if len(untried) == len(trial.names) else 0
        if self._fruitless and (trial.error is None or self._fruitless >= _FRUITLESS_TRIALS):
            self.failed.update((name, why) for name in untried)  # another trial would end like this one
            self._fruitless = 0
        elif self._fruitless:
            self._put_off()
        self.close()

    def begin(self, names: list[str], **conditions: Any) -> str:
        """Try these, unless a trial is under way or put off. Returns why none could be started, or ""."""
        if self.current is not None or not (self._next is None or self.is_due()):
            return ""
        self._next = None
        if names:
            try:
                self.current = self.canary.start(names, **conditions)
            except OSError as error:
                self._put_off()
                return f"no canary could be started: {error}"
        return ""

    def _put_off(self) -> None:
        self._next = time.monotonic() + _SECONDS_BETWEEN_TRIALS

    def close(self) -> None:
        """End a trial that is under way."""
        if self.current is not None:
            self.current.close()
            self.current = None
