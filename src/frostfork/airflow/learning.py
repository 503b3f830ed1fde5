# SPDX-License-Identifier: Apache-2.0
"""What the DAG processor's parent learns from its children, and what it must leave alone."""

from __future__ import annotations

import logging
import os
import time
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

from frostfork.airflow.judging import Judging
from frostfork.airflow.warming import Warming
from frostfork.airflow.watching import Watching
from frostfork.observe import Observation
from frostfork.preload import PreloadMode, PreloadPolicy
from frostfork.preloader import Preloader, find_installed

if TYPE_CHECKING:
    from frostfork.airflow.settings import Settings
    from frostfork.journal import Journal

log = logging.getLogger("frostfork.airflow")

# While the parent imports it serves no child, and their time limit runs on.
_BUDGET_SECONDS = 5.0

# To note which code runs costs a parse some milliseconds. It is done in a file's second parse, since the first one
# imports, which runs much code that later parses will not; and now and then later.
CODE_EVERY = 50


class DagFileLearner:
    """Feeds the children's journals to a Preloader; knows which folders hold the users' own code."""

    def __init__(self, settings: Settings, plugins_folder: str | None) -> None:
        self._next_look = 0.0
        self._folders: set[str] = set()
        # By file: parses since one that made the parent import something, and that one.
        self._parses: dict[str, int] = {}
        policy = PreloadPolicy(
            installed=find_installed(),
            mode=PreloadMode(settings.preload),
            approved=settings.approved,
            deny=settings.deny,
        )
        self.preloader = Preloader(policy, local_names=self.local_names)
        self.warming = Warming(settings.steps, self.preloader.ledger)
        self.watching = Watching()
        self.judging = Judging(settings.blame)
        if plugins_folder:
            self.add_folder(plugins_folder)

    def add_folder(self, folder: str) -> None:
        """A folder of the users' code: nothing from there may be imported here, by path or by name."""
        if folder not in self._folders:
            self._folders.add(folder)
            excluded = {folder, os.path.realpath(folder), *self.preloader.policy.excluded}
            self.preloader.policy = replace(self.preloader.policy, excluded=tuple(sorted(excluded)))

    def local_names(self) -> frozenset[str]:
        """Names that `import` could find in the users' folders, at any depth, since DAG files extend sys.path.

        A parent that had an installed module of such a name would hide the user's from all children.
        """
        names: set[str] = set()
        for folder in self._folders:
            seen: set[str] = set()
            # Links are followed, as Airflow does: git-sync shows a repository through one. A link may lead back up.
            for parent, folders, files in os.walk(folder, followlinks=True):
                real = os.path.realpath(parent)
                if real in seen:
                    folders.clear()
                    continue
                seen.add(real)
                names.update(folders)
                for file in files:
                    if file.endswith(".zip"):
                        names.update(_names_in_zip(os.path.join(parent, file)))
                names.update(
                    file.partition(".")[0] for file in files if file.endswith((".py", ".pyc", ".so"))
                )
        return frozenset(names)

    def make_room(self) -> None:
        """Before a fork: let go of installed modules whose names the folders have taken since.

        At most once a second, and in large folders less often: to look takes no more than a fiftieth of the time.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        forgotten = self.preloader.forget_local()
        done = time.monotonic()
        self._next_look = done + max(1.0, 50 * (done - now))
        if forgotten:
            log.info(
                "frostfork let go of %s: the DAG folder has modules of this name now", ", ".join(forgotten)
            )

    def wants_code(self, source: str) -> bool:
        """Whether the next parse of this file is to note which code runs."""
        return self._parses.get(source, 0) % CODE_EVERY == 1

    def learn(self, journal: Journal, source: str) -> None:
        """Read what a child left behind, and import what that allows. Never raises: the processor goes on."""
        try:
            observed = Observation.from_journal(journal)
            observed.hot_code = [code for code in observed.hot_code if not self._is_local(code[0])]
            imported = self.preloader.learn(observed, source, budget_seconds=_BUDGET_SECONDS)
            if imported:
                log.info("frostfork imported %d modules that %s uses", len(imported), source)
            self._parses[source] = 1 if imported else self._parses.get(source, 0) + 1
            self.judging.read(journal)
            self.warming.parsed(bool(imported), len(self._parses))
        except Exception:
            log.exception("frostfork could not learn from the parse of %s", source)

    def _is_local(self, file: str) -> bool:
        return any(file.startswith(folder + os.sep) for folder in self.preloader.policy.excluded)

    def summary(self) -> list[str]:
        """What to say at the end."""
        report = self.preloader.report
        preloaded = (
            f"frostfork imported {len(report.preloaded)} modules in the parent in {report.seconds:.1f} s"
            f" and left {len(report.refused)} to the children"
        )
        return [line for line in (preloaded, self.warming.summary(), self.judging.summary()) if line]


def _names_in_zip(path: str) -> set[str]:
    """Top-level names in an archive, which Airflow puts first on sys.path when it parses it."""
    try:
        with zipfile.ZipFile(path) as archive:
            tops = {name.partition("/")[0] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()
    return {top.partition(".")[0] for top in tops}
