# SPDX-License-Identifier: Apache-2.0
"""What the DAG processor's parent learns from its children, and what it must leave alone."""

from __future__ import annotations

import functools
import logging
import os
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from frostfork.airflow.folders import UserFolders
from frostfork.airflow.freshness import Freshness
from frostfork.airflow.judging import Judging
from frostfork.airflow.no_database import no_database
from frostfork.airflow.remembering import Remembering, ledger_path
from frostfork.airflow.warming import Warming
from frostfork.airflow.watching import Watching
from frostfork.canary import Canary
from frostfork.observe import Observation
from frostfork.preload import PreloadMode, PreloadPolicy
from frostfork.preloader import Preloader, find_installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostfork.airflow.settings import Settings
    from frostfork.journal import Journal

log = logging.getLogger("frostfork.airflow")


class ParentReport(NamedTuple):
    """What the parent of the parsing processes did, as plain data.

    preloaded: modules with seconds. refused: modules with reasons. warmups: each by step. lines: for a log, at the end.
    settled: whether nothing is left to learn from the files that children were forked for, as they are.
    """

    pid: int
    preloaded: dict[str, float]
    refused: dict[str, str]
    warmups: list[dict[str, dict[str, Any]]]
    lines: list[str]
    settled: bool


# While the parent imports it serves no child, and their time limit runs on.
_BUDGET_SECONDS = 5.0

# Before the first fork nobody waits yet, and each module that is there by then is one that no child imports. But a
# canary that hangs shall not hold up a start: what is left comes while children run.
_BEGIN_SECONDS = 20.0
_SECONDS_BETWEEN_LOOKS = 1.0

# To note which code runs costs a parse some milliseconds. It is done once the parent has all that a file imports, since
# an import runs much code that later parses will not; and now and then later.
CODE_EVERY = 50


class DagFileLearner:
    """Feeds the children's journals to a Preloader; knows which folders hold the users' own code."""

    def __init__(
        self,
        settings: Settings,
        plugins_folder: str | None,
        *,
        asks_only: bool = False,
        is_manager: bool = True,
    ) -> None:
        """asks_only: its file stays as it is, see Remembering. is_manager: whether this process is, see Warming."""
        self._next_look = 0.0
        self._begun: set[str] = set()  # files that a child was forked for
        self._parses: Counter[str] = Counter()  # those of which there were results, and how many
        self._quiet: set[str] = set()  # those of which there was one since something was imported
        self._noted: dict[str, int] = {}  # by file: parses since its code was noted
        self._imported = False  # since the last result
        self.folders = UserFolders()
        self.remembering = Remembering(ledger_path(settings), settings.ledger_days, asks_only=asks_only)
        self.preloader = Preloader(
            _policy(settings),
            self.remembering.ledger,
            canary=_canary(settings),
            around=no_database,
            local_names=self.folders.names,
        )
        self.freshness = Freshness(settings.stale, self.preloader)
        self.warming = Warming(settings.steps, self.preloader.ledger, is_manager=is_manager)
        self.watching = Watching()
        self.judging = Judging(settings.blame)
        if plugins_folder:
            self.add_folder(plugins_folder)

    def add_folder(self, folder: str) -> None:
        """A folder of the users' code: nothing from there may be imported here."""
        if self.folders.add(folder):
            self.preloader.policy = replace(self.preloader.policy, excluded=self.folders.paths)

    def begin(self) -> None:
        """Before the first fork: import what an earlier run learned."""
        self._note_imports(self.preloader.load, _BEGIN_SECONDS)

    def before_fork(self, source: str) -> None:
        """source: the file that the child is for."""
        self._begun.add(source)
        self.catch_up()

    def catch_up(self) -> None:
        """Act on what came to pass since the last fork: a canary's verdicts, new files, changed distributions."""
        self._note_imports(self.preloader.poll, _BUDGET_SECONDS)
        # What is raised here would leave Airflow's loop, and end it.
        for act in (self._make_room, self.freshness.look):
            try:
                act()
            except Exception:
                log.exception("frostfork could not look at what changed on disk")
        self.warming.run_if_due()

    def _make_room(self) -> None:
        """Let go of installed modules whose names the folders have taken since."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        forgotten = self.preloader.forget_local()
        if forgotten:
            log.info(
                "frostfork let go of %s: the DAG folder has modules of this name now", ", ".join(forgotten)
            )

    def wants_code(self, source: str) -> bool:
        """Whether the next parse of this file is to note which code runs."""
        parses = self._noted.get(source)
        if parses is not None:
            return parses >= CODE_EVERY
        used = self.preloader.ledger.modules_of(source)
        return source in self._parses and not any(map(self.preloader.is_coming, used))

    def learn(self, journal: Journal, source: str) -> None:
        """Read what a child left behind, and import what that allows. Never raises: the processor goes on."""
        try:
            self._parses[source] += 1
            observed = self.remember(journal, source)
            self._note_imports(functools.partial(self.preloader.learn, observed, source), _BUDGET_SECONDS)
            if observed.hot_code:
                self._noted[source] = 0
            elif any(self.preloader.is_coming(module.name) for module in observed.modules):
                self._noted.pop(source, None)
            elif source in self._noted:
                self._noted[source] += 1
            self.judging.read(journal)
            imported, self._imported = self._imported, False
            if imported:
                self._quiet.clear()
            else:
                self._quiet.add(source)
            self.warming.parsed(imported, len(self._parses))
        except Exception:
            log.exception("frostfork could not learn from the parse of %s", source)

    def remember(self, journal: Journal, source: str) -> Observation:
        """Note for the file what a child left behind, and nothing else."""
        observed = Observation.from_journal(journal)
        observed.hot_code = [code for code in observed.hot_code if not self.folders.hold(code[0])]
        self.remembering.record(observed, source)
        return observed

    def _note_imports(self, importing: Callable[..., list[str]], budget_seconds: float) -> None:
        try:
            imported = importing(budget_seconds=budget_seconds)
        except Exception:
            log.exception("frostfork could not import for its children")
            return
        if imported:
            self._imported = True
            log.info("frostfork imported %d modules that children use", len(imported))

    def close(self) -> None:
        """At the end: write down what is new, and end a canary that still runs."""
        try:
            self.remembering.save()
        finally:
            self.preloader.close()

    def report(self) -> ParentReport:
        """What this process has done for its children up to now."""
        report = self.preloader.report
        return ParentReport(
            os.getpid(),
            dict(report.preloaded),
            {module: str(reason) for module, reason in report.refused.items()},
            [
                {name: step._asdict() for name, step in warmup.steps.items()}
                for warmup in self.warming.reports
            ],
            self._summary(),
            self._is_settled(),
        )

    def _is_settled(self) -> bool:
        """Each file was parsed often enough to count, and again since the last import; and no canary is at work."""
        least = self.preloader.policy.min_children
        under_way = self.preloader.trial is not None or not self._begun <= self._quiet
        counted = all(self._parses[source] >= least for source in self._begun)
        return counted and not under_way and self.warming.is_complete

    def _summary(self) -> list[str]:
        report = self.preloader.report
        preloaded = (
            f"frostfork imported {len(report.preloaded)} modules in the parent in {report.seconds:.1f} s"
            f" and left {len(report.refused)} to the children"
        )
        return [line for line in (preloaded, self.warming.summary(), self.judging.summary()) if line]


def _policy(settings: Settings) -> PreloadPolicy:
    return PreloadPolicy(
        installed=find_installed(),
        mode=PreloadMode(settings.preload),
        approved=settings.approved,
        deny=settings.deny,
        trusted=settings.trust,
        min_children=settings.min_children,
        min_files=settings.min_files,
        max_bytes=settings.max_bytes,
        max_seconds=settings.max_seconds,
    )


def _canary(settings: Settings) -> Canary | None:
    if not settings.canary:
        return None
    return Canary(seconds=settings.canary_seconds, memory=settings.canary_bytes)
