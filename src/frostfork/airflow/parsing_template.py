# SPDX-License-Identifier: Apache-2.0
"""What the zygote of the DAG processor does: all that the manager does for its children where it is their parent.

    manager ──▶ root ──▶ zygote ──fork──▶ child: observe, parse one file
                            ▲                    │ journal
                            └── import ◀─ learn ◀┘

The manager's database, its connections to the children and their results are none of the zygote's.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import traceback
from socket import socket
from typing import TYPE_CHECKING, NoReturn

from frostfork.airflow.no_database import AskedDatabaseError, no_database
from frostfork.airflow.observed import run_observed
from frostfork.airflow.worker_name import WorkerName
from frostfork.fork import install
from frostfork.journal import Journal
from frostfork.zygote import Template

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from frostfork.airflow.learning import DagFileLearner, ParentReport
    from frostfork.airflow.secret_cache import CacheAddress
    from frostfork.airflow.settings import Settings

log = logging.getLogger("frostfork.airflow")

_TRIAL_SECONDS = 0.25


class ParsingTemplate(Template):
    """Learns from parsing children, imports and is warmed up for them."""

    current: ParsingTemplate | None = None  # of this process, if it is a zygote or a child of one

    def __init__(self, settings: Settings, plugins_folder: str | None) -> None:
        self._settings = settings
        self._plugins_folder = plugins_folder
        self._learner: DagFileLearner | None = None
        self._journals: dict[str, Journal] = {}  # of children that have not ended, by name
        self._files: dict[int, tuple[str, str]] = {}  # by number: the bundle's folder, and the path in it
        self._name = ""  # in a child: its own
        self._known = 0  # modules that are there, when something is forked
        self._read: dict[
            str, tuple[int, int]
        ] = {}  # files whose imports Airflow has looked at, by their state

    # --- in the zygote

    def begin(self) -> None:
        ParsingTemplate.current = self
        # As in the manager, whose children go over to "client".
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
        install()
        from frostfork.airflow import preparing
        from frostfork.airflow.learning import DagFileLearner

        preparing.lighten_children()
        preparing.build_decoders()
        preparing.initialize_stats()
        self._learner = DagFileLearner(self._settings, self._plugins_folder, is_manager=False)
        self._learner.begin()
        self._learner.warming.run_if_due()

    @property
    def learner(self) -> DagFileLearner:
        assert self._learner is not None  # begin() comes first
        return self._learner

    def before_fork(self, name: str) -> None:
        self._expect_no_child()
        known = self._file(name)
        if known is None:
            return  # a zygote that came in the place of a lost one: it is told of the file before its next parse
        folder, file = known
        self._pre_import(os.path.join(folder, file))
        self.learner.before_fork(file)
        self._journals[name] = Journal()
        self._known = len(sys.modules)
        self.learner.watching.expect(self.learner.wants_code(file))
        self.learner.judging.expect(True)

    def _file(self, name: str) -> tuple[str, str] | None:
        return self._files.get(WorkerName.read(name).number)

    def _expect_no_child(self) -> None:
        """What is forked from here on is a canary."""
        self.learner.watching.expect(None)
        self.learner.judging.expect(False)

    def _pre_import(self, path: str) -> None:
        """What Airflow does before each fork, [dag_processor] parsing_pre_import_modules: once for each edit."""
        with contextlib.suppress(OSError, AskedDatabaseError):
            status = os.stat(path)
            state = (status.st_mtime_ns, status.st_size)
            if self._read.get(path) == state:
                return
            self._read[path] = state
            from airflow.dag_processing import processor

            with no_database():
                processor._pre_import_airflow_modules(path, log)

    def descriptors(self, name: str) -> Collection[int]:
        journal = self._journals.get(name)
        return () if journal is None else (journal.fileno(),)

    def not_forked(self, name: str) -> None:
        if (journal := self._journals.pop(name, None)) is not None:
            journal.close()

    def ended(self, name: str, pid: int, code: int | None) -> None:
        self._expect_no_child()
        journal, known = self._journals.pop(name, None), self._file(name)
        if journal is not None and known is not None:
            try:
                self.learner.learn(journal, known[1])
            finally:
                journal.close()

    def idle(self) -> float | None:
        """Import what a canary says is good while nobody waits for a fork."""
        if self.learner.preloader.trial is None:
            return None
        self._expect_no_child()
        self.learner.catch_up()
        return _TRIAL_SECONDS

    # --- in the zygote, asked by the manager

    def tell(self, number: int, folder: str, file: str) -> None:
        """Of a file that is to be parsed: its number in the names of workers, its bundle's folder, its path there."""
        self._files[number] = folder, file
        self.learner.add_folder(folder)

    def report(self) -> ParentReport:
        return self.learner.report()

    def stale(self) -> set[str]:
        """Distributions that changed on disk, once nothing changes any more, if [frostfork] stale is "renew"."""
        freshness = self.learner.freshness
        return set(freshness.names) if freshness.wants_new_parent else set()

    def save(self, at_end: bool) -> ParentReport:
        """Write down what is new, and end a canary that still runs. at_end: no child runs any more.

        The owner's wishes come before the ends of children, so there may be some whose journals were not read yet.
        """
        for name, journal in self._journals.items() if at_end else ():
            known = self._file(name)
            if known is not None:
                self.learner.remember(journal, known[1])
        self.learner.close()
        return self.learner.report()

    # --- in a child

    def in_worker(self, name: str) -> None:
        self._name = name

    def observed(self, target: Callable[[], None]) -> Callable[[], None]:
        journal = self._journals.get(self._name)
        if journal is None:
            return target
        return functools.partial(
            run_observed, target, journal, self._known, self.learner.watching, self.learner.judging
        )


def parse(target: Callable[[], None], cache: CacheAddress | None, *, fds: Sequence[int]) -> NoReturn:
    """A child's life from here on: what Airflow's WatchedSubprocess.start does in a child of its own fork."""
    from airflow.sdk.execution_time import supervisor

    requests, stdout, stderr, logs = (socket(fileno=fd) for fd in fds)
    try:
        if cache is not None:
            from frostfork.airflow.secret_cache import use_cache

            use_cache(cache)
        template = ParsingTemplate.current
        entry = target if template is None else template.observed(target)
        supervisor._fork_main(requests, stdout, stderr, logs.fileno(), entry)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            print("Exception in child process, exiting with code 124", file=sys.stderr)  # noqa: T201
            traceback.print_exception(type(error), error, error.__traceback__, file=sys.stderr)
    os._exit(124)
