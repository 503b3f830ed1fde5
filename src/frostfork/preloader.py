# SPDX-License-Identifier: Apache-2.0
"""Imports in the parent what its policy allows, and survives whatever an import does."""

from __future__ import annotations

import importlib
import itertools
import math
import os
import site
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from frostfork._import_guard import ForbiddenImport, ImportGuard, described, drop_orphans
from frostfork._signals import DeferredSignals
from frostfork.observe import Observation
from frostfork.preload import Installed, Ledger, ModuleRecord, Plan, PreloadPolicy
from frostfork.steps.report import Outcome

if TYPE_CHECKING:
    from importlib.metadata import Distribution

    from frostfork.preload.verdict import Verdict

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
    when there is something to import, for the top-level names that the user's own folders define.
    """

    def __init__(
        self,
        policy: PreloadPolicy,
        ledger: Ledger | None = None,
        *,
        local_names: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self.policy = policy
        self.ledger = Ledger() if ledger is None else ledger
        self.report = PreloadReport()
        self.plan = Plan()  # the last one
        self.verdicts: dict[str, Verdict] = {}
        self._local_names = local_names
        self._failed: dict[str, str] = {}
        self._ours: set[str] = set()  # what came into sys.modules through imports here
        self._seen: dict[str, _Facts] = {}  # what was known of a module at the last plan
        self._left = False  # something that was to be imported waits for the next child

    def learn(
        self, observation: Observation, source: str | None = None, *, budget_seconds: float = math.inf
    ) -> list[str]:
        """Record what a child used, then import what that allows. Returns the names imported now.

        No import begins once budget_seconds are over; what is left comes with the next child.
        """
        touched = self.ledger.record(observation, source)
        if not self._left and not any(self._is_news(record) for record in touched):
            return []
        return self.load(budget_seconds=budget_seconds)

    def load(self, *, budget_seconds: float = math.inf) -> list[str]:
        """Import what the policy allows of the whole ledger. Returns the names imported now."""
        end = time.monotonic() + budget_seconds
        if not any(self._is_news(record) for record in self.ledger) and not self._left:
            return []
        local_names = self._local_names()
        self.plan = self._planned(local_names)
        imported = []
        self._left = False
        for name in self.plan.order:
            if self._has(name):  # an earlier one brought it along
                continue
            if time.monotonic() > end:
                self._left = True
                break
            if self._load(name, local_names):
                imported.append(name)
        for name, decision in self.plan.decisions.items():
            if decision.preload and name in sys.modules:
                self.report.preloaded.setdefault(name, 0.0)
        return imported

    def _planned(self, local_names: frozenset[str]) -> Plan:
        """Ask the policy, and note its refusals."""
        loaded = [record.name for record in self.ledger if self._has(record.name)]
        plan = self.policy.plan(
            self.ledger,
            loaded=loaded,
            preloaded=self._ours,
            local_names=local_names,
            verdicts=self.verdicts,
            refused=self._failed,
        )
        for record in self.ledger:
            self._seen[record.name] = self._facts(record)
            if self._has(record.name):
                continue
            decision = plan.decisions[record.name]
            if decision.preload:
                self.report.refused.pop(record.name, None)
            elif record.children > 0 or record.last_error != "ModuleNotFoundError":
                self.report.refused[record.name] = decision.reason  # what is not there was not refused
        return plan

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
        forgotten = []
        for top in sorted(taken):
            family = [name for name in sys.modules if name.partition(".")[0] == top]
            if any(_is_extension(sys.modules[name]) for name in family) or not self._ours.issuperset(family):
                continue
            for name in family:
                del sys.modules[name]
                self.report.preloaded.pop(name, None)
                self.report.refused[name] = "the DAG folder has a file or folder of this name"
            self._ours.difference_update(family)
            forgotten += family
        return forgotten

    def _load(self, name: str, local_names: frozenset[str]) -> bool:
        before = time.perf_counter()
        known = len(sys.modules)
        with DeferredSignals() as signals:
            try:
                with ImportGuard(self.policy.deny, local_names):
                    importlib.import_module(name)
            except BaseException as error:  # SystemExit, KeyboardInterrupt and pytest's own included
                if error is signals.raised:
                    raise
                if isinstance(error, ForbiddenImport):
                    self._failed[name] = f"would import {error}"
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
    preloader = Preloader(PreloadPolicy(installed=find_installed()), ledger)
    imported = preloader.load()
    details = {"refused": len(preloader.report.refused)}
    return Outcome(
        len(imported), "modules", idle="" if imported else "nothing is left to import", details=details
    )


def _is_extension(module: object) -> bool:
    from importlib.machinery import EXTENSION_SUFFIXES

    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    return isinstance(origin, str) and origin.endswith(tuple(EXTENSION_SUFFIXES))


def find_installed() -> Installed:
    """Ask this interpreter where its installed code lies. Takes some 100 ms: once in a parent's life."""
    from importlib.metadata import distributions  # 40 ms of imports that nobody else here needs

    paths = sysconfig.get_paths()
    folders = {
        paths["purelib"],
        paths["platlib"],
        paths["stdlib"],
        paths["platstdlib"],
        *site.getsitepackages(),
    }
    if site.ENABLE_USER_SITE:
        folders.add(site.getusersitepackages())
    # A virtual environment lends its standard library from the interpreter that made it.
    folders.add(os.path.dirname(os.__file__))
    real = {os.path.realpath(folder) for folder in folders}
    names = set(sys.stdlib_module_names)
    for distribution in distributions():
        names |= _top_level_names(distribution)
    return Installed(tuple(sorted(folders | real)), frozenset(names))


def _top_level_names(distribution: Distribution) -> set[str]:
    """Importable names of a distribution, from top_level.txt or else from the paths in RECORD.

    importlib.metadata.packages_distributions does the same from 3.11 on; in 3.10 it knows top_level.txt alone.
    """
    declared = distribution.read_text("top_level.txt")
    if declared:
        return set(declared.split())
    names = set()
    for line in (distribution.read_text("RECORD") or "").splitlines():
        first = line.partition(",")[0].partition("/")[0]
        names.add(first.partition(".")[0])  # a module file loses its suffix; a folder has none
    return {name for name in names if name.isidentifier()}
