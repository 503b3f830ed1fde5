# SPDX-License-Identifier: Apache-2.0
"""Imports in the parent what its policy allows, and survives whatever an import does."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frostfork._import_guard import ForbiddenImport, ImportGuard, described, drop_orphans
from frostfork._signals import DeferredSignals
from frostfork._trials import Trials
from frostfork.distributions import find_installed
from frostfork.observe import Observation
from frostfork.preload import Decision, Ledger, ModuleRecord, Plan, PreloadPolicy
from frostfork.preload.verdict import refusals
from frostfork.steps.report import Outcome

if TYPE_CHECKING:
    from frostfork.canary import Canary, Trial
    from frostfork.preload.verdict import Verdict

__all__ = ["PreloadReport", "Preloader", "find_installed", "preload"]

_FORBIDDEN = "would import "
_Facts = tuple[int, int, bool, bool, int, int]


@dataclass
class PreloadReport:
    """What the parent imported, with seconds, and what it did not, with reasons.

    A module that came along with another has 0 seconds, for its time is in the other's.
    """

    preloaded: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(self.preloaded.values())


class Preloader:
    """Learns from each child's observation and imports in this process what the policy allows.

    A module that failed here is refused from then on, with its reason, and not tried again. local_names is asked, only
    when there is something to import, for the top-level names that the user's own folders define. With a canary, only
    what a canary has imported well is imported here. around: a context in which all imports happen, the canary's too,
    for an adapter that has something to hide from them.
    """

    def __init__(
        self,
        policy: PreloadPolicy,
        ledger: Ledger | None = None,
        *,
        local_names: Callable[[], frozenset[str]] = frozenset,
        canary: Canary | None = None,
        around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.policy = policy
        self.canary = canary
        self.ledger = Ledger() if ledger is None else ledger
        self.report = PreloadReport()
        self.plan = Plan()  # the last one
        self._trials = None if canary is None else Trials(canary)
        self._local_names = local_names
        self._around = around
        self._distrusted: dict[str | None, str] = {}  # distributions, and why
        self._failed: dict[str, str] = {}
        self._ours: set[str] = set()  # what came into sys.modules through imports here
        self._seen: dict[str, _Facts] = {}  # what was known of a module at the last plan
        self._taken: frozenset[str] = frozenset()  # by the user's folders, when that was asked last
        self._left = False  # something that was to be imported waits for the next child

    @property
    def trial(self) -> Trial | None:
        """What the canary is at now; its fileno() is for a selector."""
        return None if self._trials is None else self._trials.current

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What canaries have said so far."""
        return {} if self._trials is None else self._trials.verdicts

    def learn(
        self, observation: Observation, source: str | None = None, *, budget_seconds: float = math.inf
    ) -> list[str]:
        """Record what a child used, then import what that allows. Returns the names imported now.

        No import begins once budget_seconds are over; what is left comes with the next child. With a canary, it begins
        to try what no canary has tried yet, does not wait for that, and imports what has passed by now.
        """
        news = [record for record in self.ledger.record(observation, source) if self._is_news(record)]
        wanted = [record for record in news if not self._is_refused(record)]
        return self._advance(bool(wanted), budget_seconds)

    def poll(self, *, budget_seconds: float = math.inf) -> list[str]:
        """Import what has passed the canary since. Returns the names imported now. For whenever there is time."""
        return self._advance(False, budget_seconds)

    def load(self, *, budget_seconds: float = math.inf) -> list[str]:
        """Import what the policy allows of the whole ledger. Returns the names imported now.

        It waits for the canary, as long as budget_seconds allow.
        """
        end = time.monotonic() + budget_seconds
        imported = self._advance(any(self._is_news(record) for record in self.ledger), budget_seconds)
        while self.trial is not None and (left := end - time.monotonic()) > 0:
            self.trial.wait(None if left == math.inf else left)
            imported += self._advance(False, end - time.monotonic())
        return imported

    def close(self) -> None:
        """End a trial that is under way. What was imported stays."""
        if self._trials is not None:
            self._trials.close()

    def _advance(self, news: bool, budget_seconds: float) -> list[str]:
        end = time.monotonic() + budget_seconds
        due = self._trials is not None and self._trials.is_due()
        if not (self._has_verdicts() or news or self._left or due):
            return []
        local_names = self._local_names()
        if self._taken - local_names:  # what was refused for the sake of these is free again
            for name, verdict in list(self.verdicts.items()):
                if any(finding.kind == "denied" for finding in verdict.findings):
                    del self.verdicts[name]
            self._failed = {name: why for name, why in self._failed.items() if not why.startswith(_FORBIDDEN)}
        self._taken = local_names
        self.plan = self._planned(local_names)
        deny = (*self.policy.forbidden, *refusals(self.verdicts.values(), self.policy.tolerates))
        imported: list[str] = []
        untried = []
        self._left = False
        for name in self.plan.order:
            if self._has(name):  # an earlier one brought it along
                continue
            if self.canary is not None and name not in self.verdicts:
                untried.append(name)
            elif time.monotonic() > end:
                self._left = True
            elif self._load(name, deny, local_names):
                imported.append(name)
        for name, decision in self.plan.decisions.items():
            if decision.preload and name in sys.modules:
                self.report.preloaded.setdefault(name, 0.0)
        self._try([name for name in untried if not self._has(name)], deny, local_names)
        return imported

    def _has_verdicts(self) -> bool:
        if self._trials is None or not self._trials.has_news():
            return False
        self._failed.update(self._trials.failed)
        self._trials.failed.clear()
        return True

    def _try(self, names: list[str], deny: tuple[str, ...], local_names: frozenset[str]) -> None:
        if self._trials is None:
            return
        conditions = {"deny": deny, "local_names": local_names, "tolerates": self.policy.tolerates}
        refused = self._trials.begin(names, **conditions, around=self._around)
        if refused:
            self.report.refused.update((name, refused) for name in names)

    def _planned(self, local_names: frozenset[str]) -> Plan:
        """Ask the policy, and note its refusals."""
        loaded = [record.name for record in self.ledger if self._has(record.name)]
        plan = self.policy.plan(
            self.ledger,
            loaded=loaded,
            preloaded=self._ours,
            local_names=local_names,
            verdicts=self.verdicts,
            refused={**self._failed, **self._changed()},
        )
        for record in self.ledger:
            self._seen[record.name] = self._facts(record)
            if self._has(record.name):
                continue
            decision = plan.decisions[record.name]
            if decision.preload:
                self.report.refused.pop(record.name, None)
            else:
                self._note_refusal(record, decision)
        return plan

    def _is_refused(self, record: ModuleRecord) -> bool:
        """Whether it is refused whatever else is known, as users' own modules are.

        Each DAG file may bring some new ones; to plan over all that is known for them would be a waste.
        """
        decision = self.policy.decide(record)
        if not decision.preload:
            self._seen[record.name] = self._facts(record)
            self.plan.decisions[record.name] = decision
            self._note_refusal(record, decision)
        return not decision.preload

    def _note_refusal(self, record: ModuleRecord, decision: Decision) -> None:
        if record.children > 0 or record.last_error != "ModuleNotFoundError":
            self.report.refused[record.name] = decision.reason  # what is not there was not refused

    def _changed(self) -> dict[str, str]:
        """What must not be imported any more, since its distribution changed on disk."""
        if not self._distrusted:
            return {}
        owners = {record.name: self.policy.installed.distribution(record.name) for record in self.ledger}
        return {name: self._distrusted[owner] for name, owner in owners.items() if owner in self._distrusted}

    def is_coming(self, name: str) -> bool:
        """Whether the parent has yet to import it, as far as is known: a canary is at it, or more children must."""
        record = self.ledger.get(name)
        if record is None or not record.children or self._has(name):
            return False
        decision = self.plan.decisions.get(name)
        return decision is None or decision.preload or record.children < self.policy.min_children

    def _has(self, name: str) -> bool:
        """Whether the parent has imported it; some modules take themselves out of sys.modules."""
        return name in sys.modules or name in self.report.preloaded

    def _is_news(self, record: ModuleRecord) -> bool:
        """Whether there is something to decide: a local helper comes again with every parse of its DAG file."""
        return not self._has(record.name) and self._seen.get(record.name) != self._facts(record)

    def _facts(self, record: ModuleRecord) -> _Facts:
        """What decisions depend on, but for the figures, which change with every child."""
        policy = self.policy
        return (
            min(record.children, policy.min_children),
            min(record.files, policy.min_files),
            record.children > 0,
            record.threads > 0,
            len(record.origins),
            len(record.importers),
        )

    def forget_local(self) -> list[str]:
        """Take out of sys.modules what is here under a name that the user's own folders have come to define.

        Children forked from now on find the user's module, or import the installed one as without a preload.
        Packages with extension modules stay: not all can be loaded twice in a process. Returns the names taken out.
        """
        if not self._ours:
            return []
        taken = {name.partition(".")[0] for name in self._ours} & self._local_names()
        return self._take_out(taken, "the DAG folder has a file or folder of this name")[0]

    def let_go(self, distribution: str | None, reason: str) -> tuple[list[str], list[str]]:
        """Import nothing of a distribution any more, and take out of sys.modules what is here of it.

        Returns the names taken out and those that stay: extension modules, of which not all can be loaded twice in a
        process, with whatever shares their top-level package; and what was here without a preload. None is the
        standard library, all of which stays.
        """
        self._distrusted[distribution] = reason
        if distribution is None:
            return [], []
        belongs = self.policy.installed.distribution
        held = [name for name in self.report.preloaded if belongs(name) == distribution]
        gone, _ = self._take_out({name.partition(".")[0] for name in held}, reason)
        return gone, [name for name in held if name in sys.modules]

    def _take_out(self, tops: Iterable[str], reason: str) -> tuple[list[str], list[str]]:
        """Forget these packages as far as that can be done; the names taken out, and those that stay."""
        gone: list[str] = []
        kept: list[str] = []
        for top in sorted(tops):
            family = [name for name in sys.modules if name.partition(".")[0] == top]
            if any(_is_extension(sys.modules[name]) for name in family) or not self._ours.issuperset(family):
                kept += family
                continue
            for name in family:
                del sys.modules[name]
                self.report.preloaded.pop(name, None)
                self.report.refused[name] = reason
            self._ours.difference_update(family)
            gone += family
        return gone, kept

    def _load(self, name: str, deny: tuple[str, ...], local_names: frozenset[str]) -> bool:
        before = time.perf_counter()
        known = len(sys.modules)
        with DeferredSignals() as signals:
            try:
                with self._around(), ImportGuard(deny, local_names):
                    importlib.import_module(name)
            except BaseException as error:  # SystemExit, KeyboardInterrupt and pytest's own included
                if error is signals.raised:
                    raise
                if isinstance(error, ForbiddenImport):
                    self._failed[name] = f"{_FORBIDDEN}{error}"
                else:
                    self._failed[name] = f"failed in the parent: {described(error)}"
                self.report.refused[name] = self._failed[name]
                drop_orphans(known)
                return False
            finally:
                # Newest first, and no further: to list all names would write the reference count of each.
                self._ours.update(itertools.islice(reversed(sys.modules), max(0, len(sys.modules) - known)))
        self.report.refused.pop(name, None)
        self.report.preloaded[name] = time.perf_counter() - before
        return True


def preload(ledger: Ledger | None) -> Outcome:
    """The step of a warmup: import what children used, from installed distributions. count: modules imported now.

    Whoever has a Preloader with a policy of their own has imported by then, and leaves nothing to do here.
    """
    if ledger is None or len(ledger) == 0:
        return Outcome(0, "modules", idle="no child has shown yet what it imports")
    from frostfork.canary import Canary

    preloader = Preloader(PreloadPolicy(installed=find_installed()), ledger, canary=Canary())
    imported = preloader.load()
    details = {"refused": len(preloader.report.refused)}
    return Outcome(
        len(imported), "modules", idle="" if imported else "nothing is left to import", details=details
    )


def _is_extension(module: object) -> bool:
    from importlib.machinery import EXTENSION_SUFFIXES

    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    return isinstance(origin, str) and origin.endswith(tuple(EXTENSION_SUFFIXES))
