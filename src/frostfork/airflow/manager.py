# SPDX-License-Identifier: Apache-2.0
"""Airflow's DAG processor over a shared parent.

    manager ──fork──▶ child: freeze, observe, parse one file
       ▲                        │ journal
       └── import ◀── learn ◀───┘

The manager's loop, its database work and the protocol with its children are Airflow's. Two classes add to it: one makes
the parent ready before the first fork and reports at the end, the other gives each child a journal and reads it when
Airflow closes the child's process, which it does for every child: finished, timed out, or parsing a deleted file.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from airflow import settings as airflow_settings
from airflow.dag_processing import manager as airflow_manager
from airflow.dag_processing import processor as airflow_processor
from airflow.dag_processing.manager import DagFileProcessorManager
from airflow.dag_processing.processor import DagFileProcessorProcess, _parse_file_entrypoint
from airflow.sdk.execution_time import comms, supervisor

from frostfork._signals import DeferredSignals
from frostfork.airflow import child_logging
from frostfork.airflow.command import replace_name
from frostfork.airflow.decoder import ReadyTypeAdapter, warm_channel
from frostfork.airflow.learning import DagFileLearner
from frostfork.airflow.polling import Poll
from frostfork.airflow.settings import load
from frostfork.fork import install
from frostfork.journal import Journal
from frostfork.observe import observe

if TYPE_CHECKING:
    from types import FrameType

    from frostfork.airflow.judging import Judging
    from frostfork.airflow.watching import Watching
    from frostfork.preloader import Preloader


log = logging.getLogger("frostfork.airflow")


def _observed(
    target: Callable[[], None], journal: Journal, known: int, watching: Watching, judging: Judging
) -> None:
    """The child's entry: Airflow's, observed. known: how many modules the parent had when it forked."""
    # Between the fork and this entry Airflow sets up the child's logging, and imports modules for that in every child.
    # Newest first, and no further: to list all names would write the reference count of each, 1,200 pages of them.
    # A parse that cannot be observed is parsed all the same.
    with contextlib.suppress(Exception):
        newest = itertools.islice(reversed(sys.modules), max(0, len(sys.modules) - known))
        for name in reversed(list(newest)):
            origin = getattr(getattr(sys.modules[name], "__spec__", None), "origin", None)
            journal.write_import(name, origin or "")
    with contextlib.ExitStack() as stack:
        stack.callback(judging.finish, journal)
        stack.callback(watching.finish, journal)
        with contextlib.suppress(Exception):
            stack.enter_context(observe(journal, pages=False))
        target()


def _reseed() -> None:
    """Seed anew: numpy draws a seed once, when imported; the children of one parent would draw the same numbers.

    Before each fork, since for the child it would be the first use of numpy: 0.5 ms and 40 copied pages.
    """
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed(memoryview(os.urandom(32)).cast("I").tolist())  # a tenth of the time of seed()


@attrs.define(kw_only=True)
class ObservedFileProcess(DagFileProcessorProcess):
    """A child that parses one file and writes down what it imports."""

    learner: ClassVar[DagFileLearner | None] = None

    journal: Journal | None = None

    @classmethod
    def start(
        cls, *, target: Callable[[], None] = _parse_file_entrypoint, bundle_path: Any, **kwargs: Any
    ) -> ObservedFileProcess:
        if cls.learner is None:
            return super().start(target=target, bundle_path=bundle_path, **kwargs)
        cls.learner.add_folder(os.fspath(bundle_path))
        cls.learner.before_fork()
        with contextlib.suppress(Exception):
            _reseed()
        try:
            journal = Journal()
        except OSError:
            log.exception("frostfork cannot learn from this parse")
            return super().start(target=target, bundle_path=bundle_path, **kwargs)
        code = cls.learner.wants_code(kwargs["dag_file_rel_path"])
        watching, judging = cls.learner.watching, cls.learner.judging
        observed = functools.partial(_observed, target, journal, len(sys.modules), watching, judging)
        try:
            with watching.next_fork(code), judging.next_fork():
                process: ObservedFileProcess = super().start(
                    target=observed, bundle_path=bundle_path, **kwargs
                )
        except BaseException:
            journal.close()
            raise
        process.journal = journal
        return process

    def close(self) -> None:
        journal, self.journal = self.journal, None
        with contextlib.closing(journal) if journal is not None else contextlib.nullcontext():
            super().close()
            if journal is not None and self.learner is not None:
                self.learner.learn(journal, self.dag_file_rel_path)


class SharedParentManager(DagFileProcessorManager):
    """Airflow's manager, whose process holds what its children would each import."""

    learner: DagFileLearner | None = None
    begin_again: ClassVar[bool] = False  # it ended for a parent that has what is installed now

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._callbacks, self._requests, self._warnings = Poll(), Poll(), Poll()
        self._asked_to_end = False

    @property
    def preloader(self) -> Preloader | None:
        return self.learner.preloader if self.learner else None

    def before_run(self) -> None:
        settings = load()
        install()
        for module in (airflow_processor, comms):
            replace_name(module, "TypeAdapter", ReadyTypeAdapter)
        child_logging.prepare(supervisor)
        replace_name(airflow_manager, "DagFileProcessorProcess", ObservedFileProcess)
        self.learner = DagFileLearner(settings, airflow_settings.PLUGINS_FOLDER)
        ObservedFileProcess.learner = self.learner
        super().before_run()
        self.learner.begin()

    def prepare_process_context(self) -> None:
        super().prepare_process_context()
        # Airflow makes its client at the first fork, behind its gc.freeze() at the end of before_run: 76 modules and
        # 72,000 objects that every child would then copy.
        _ = self.client
        for messages in (airflow_processor.ToDagProcessor, comms.ToTask):
            ReadyTypeAdapter.prepare(messages)
        warm_channel(comms, airflow_processor)

    # The three methods that Airflow documents as places to get these from elsewhere: here, from there, but less often.

    def fetch_callbacks(self) -> list[Any]:
        if not self._callbacks.is_due():
            return []
        found: list[Any] = super().fetch_callbacks()
        if len(found) >= self.max_callbacks_per_loop:
            self._callbacks.again()
        return found

    def claim_priority_files(self) -> list[Any]:
        return super().claim_priority_files() if self._requests.is_due() else []

    def purge_inactive_dag_warnings(self) -> None:
        if self._warnings.is_due():
            super().purge_inactive_dag_warnings()

    def _exit_gracefully(self, signum: int, frame: FrameType | None) -> None:
        # It ends with SystemExit, which Python drops if the signal came inside a __del__, a weak reference's callback
        # or a hook: the children are ended then, and the loop goes on (Airflow 3.3.2, stock as well). See below.
        self._asked_to_end = True
        super()._exit_gracefully(signum, frame)

    def _start_new_processes(self) -> None:
        if self._asked_to_end:
            raise SystemExit(os.EX_OK)
        if self.learner is not None and self.learner.freshness.wants_new_parent:
            # Children that still parse have their time limit, and the loop comes here again until the last has ended.
            if not self._processors:
                type(self).begin_again = True
                raise SystemExit(
                    os.EX_OK
                )  # Airflow takes that for a good end of the job, and its command returns
            return
        # Airflow's handlers raise SystemExit. Python runs them in the at-fork hooks if a signal comes during a fork,
        # and drops what a hook raises; or they leave a child that no list has yet.
        with DeferredSignals():
            super()._start_new_processes()

    # Airflow's handlers also read from the children until those have ended, through the generators that forward their
    # log lines. A signal that comes inside such a generator enters it a second time: "ValueError: generator already
    # executing" and exit code 1, or no exit at all where something catches that (Airflow 3.3.2, stock as well). So in
    # the three places that read, a signal may come while they wait for a child, and waits while they read.

    def _service_processor_sockets(self, timeout: float | None = 1.0) -> None:
        self.selector.select(timeout)
        with DeferredSignals():
            super()._service_processor_sockets(timeout=0)

    def _kill_timed_out_processors(self) -> None:
        with DeferredSignals():
            super()._kill_timed_out_processors()

    def terminate_orphan_processes(self, present: set[Any]) -> None:
        with DeferredSignals():
            super().terminate_orphan_processes(present)

    def after_run(self) -> None:
        if self.learner is not None:
            for line in self.learner.summary():
                self.log.info(line)
        super().after_run()

    def end(self) -> None:
        # Airflow calls it at every end, after_run() at that of a counted run alone.
        super().end()
        if self.learner is not None:
            self.learner.close()
