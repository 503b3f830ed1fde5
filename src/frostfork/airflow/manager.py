# SPDX-License-Identifier: Apache-2.0
"""Airflow's DAG processor over a shared parent.

    manager ──fork──▶ child: freeze, observe, parse one file
       ▲                        │ journal
       └── import ◀── learn ◀───┘

The manager's loop, its database work and the protocol with its children are Airflow's. Two classes add to it: one makes
the parent ready before the first fork and reports at the end, the other gives each child a journal and reads it when
Airflow closes the child's process, which it does for every child: finished, timed out, or parsing a deleted file.

With [frostfork] zygote the parent is a zygote, which does all this: see parsing_template. What is here is for the time
when there is none.
"""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow import settings as airflow_settings
from airflow.dag_processing import manager as airflow_manager
from airflow.dag_processing import processor as airflow_processor
from airflow.dag_processing.manager import DagFileProcessorManager

from frostfork._signals import DeferredSignals
from frostfork._zygote.handle import NoAnswer
from frostfork.airflow import preparing
from frostfork.airflow.command import replace_name
from frostfork.airflow.file_process import ObservedFileProcess
from frostfork.airflow.learning import DagFileLearner
from frostfork.airflow.log_locks import is_writing
from frostfork.airflow.pacing import Pace
from frostfork.airflow.polling import Poll
from frostfork.airflow.settings import Settings, load
from frostfork.airflow.zygote_parent import ALIKE, ZygoteParent
from frostfork.errors import ZygoteError
from frostfork.fork import install
from frostfork.warmup import warmup

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from frostfork.airflow.learning import ParentReport


log = logging.getLogger("frostfork.airflow")

_MOST_LOST = 3
_EARLY_STEPS = {"drain_heap", "immortalize", "freeze"}


class SharedParentManager(DagFileProcessorManager):
    """Airflow's manager, whose children share what each of them would import."""

    _parallelism: int  # Airflow's: how many children there may be
    learner: DagFileLearner | None = None  # here, where the manager is the parent
    zygote_parent: ZygoteParent | None = None
    begin_again: ClassVar[bool] = False  # it ended for a parent that has what is installed now

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._callbacks, self._requests, self._warnings = Poll(), Poll(), Poll()
        self._pace = Pace(self._parallelism)
        self._held = 0.0  # seconds for which results are left, for others to be stored first
        self._lost = 0  # how often in a row children that were asked for never came
        self._asked_to_end = False
        # One that came in the middle of a log line, and is still to be handled.
        self._signal_left: int | None = None
        self._settings: Settings | None = None
        self._is_stale = False  # it has itself imported what changed on disk
        self._finishes = False  # it ends as soon as no child is left

    def report(self) -> ParentReport | None:
        """What the parent of the parsing processes has done; None if there is none, or if it died young."""
        if self.learner is not None:
            return self.learner.report()
        return self.zygote_parent.report() if self.zygote_parent is not None else None

    def before_run(self) -> None:
        self._settings = load()
        install()
        replace_name(airflow_manager, "DagFileProcessorProcess", ObservedFileProcess)
        if self._settings.zygote:
            # Before all else, for it is to begin without what the manager alone needs. What is immortal and frozen by
            # then is written neither by the manager nor there, and is in memory once and not three times.
            warmup(steps=tuple(_EARLY_STEPS & {*self._settings.steps, "freeze"}), afresh=True)
            self.zygote_parent = ZygoteParent.start(self._settings, airflow_settings.PLUGINS_FOLDER)
        ObservedFileProcess.parent = self.zygote_parent
        ObservedFileProcess.on_loss = self._become_parent
        if self.zygote_parent is not None:
            self._spare_pre_import()
        else:
            self._make_learner()
        super().before_run()
        if self.learner is not None:
            self.learner.begin()

    def _make_learner(self) -> None:
        assert self._settings is not None
        preparing.lighten_children()
        self.learner = DagFileLearner(self._settings, airflow_settings.PLUGINS_FOLDER)
        ObservedFileProcess.learner = self.learner

    def _spare_pre_import(self) -> None:
        """Airflow reads each file and imports what that imports of Airflow before it forks: for the parent to do."""
        pre_import = airflow_processor._pre_import_airflow_modules

        def unless_from_zygote(*arguments: Any) -> None:
            if ObservedFileProcess.parent is None:
                pre_import(*arguments)

        airflow_processor._pre_import_airflow_modules = unless_from_zygote

    def _become_parent(self, error: ZygoteError) -> None:
        """For good, once there is no zygote and none can be had."""
        log.warning("%s from now on: %s", ALIKE, error)
        ObservedFileProcess.parent = None
        if self.zygote_parent is not None:
            self.zygote_parent.lose()
        self._make_learner()
        preparing.build_decoders()
        assert self.learner is not None
        self.learner.begin()

    def prepare_process_context(self) -> None:
        super().prepare_process_context()
        # Airflow makes its client at the first fork, behind its gc.freeze() at the end of before_run: 76 modules and
        # 72,000 objects that every collection would then look at, and every child of the manager copy.
        _ = self.client
        if self.zygote_parent is None:
            preparing.build_decoders()

    # The three methods that Airflow documents as places to get these from elsewhere: here, from there, but less often.

    def fetch_callbacks(self) -> list[Any]:
        if self._finishes or not self._callbacks.is_due():
            return []
        found: list[Any] = super().fetch_callbacks()
        if len(found) >= self.max_callbacks_per_loop:
            self._callbacks.again()
        return found

    def claim_priority_files(self) -> list[Any]:
        return [] if self._finishes or not self._requests.is_due() else super().claim_priority_files()

    def purge_inactive_dag_warnings(self) -> None:
        if self._warnings.is_due():
            super().purge_inactive_dag_warnings()

    def _exit_gracefully(self, signum: int, frame: FrameType | None) -> None:
        # It ends with SystemExit, which Python drops if the signal came inside a __del__, a weak reference's callback
        # or a hook: the children are ended then, and the loop goes on (Airflow 3.3.2, stock as well). See below.
        self._asked_to_end = True
        self._signal_left = signum if is_writing() else None
        if self._signal_left is None:
            super()._exit_gracefully(signum, frame)

    def _start_new_processes(self) -> None:
        if self._signal_left is not None:
            super()._exit_gracefully(self._signal_left, None)
        if self._asked_to_end:
            raise SystemExit(os.EX_OK)
        self._finishes = self._wants_new_process()
        if self._finishes:
            self._finish()
        elif not self._held:
            self._fill(self._pace.waiting(len(self._processors)))
            self._settle()

    def _finish(self) -> None:
        """Start no more children, but for the callbacks that were fetched: the database has them no longer.

        Children that still parse have their time limit, and the loop comes here until the last has ended.
        """
        if self._callback_to_execute:
            self._file_queue = OrderedDict.fromkeys(self._callback_to_execute)
            self._fill(self._parallelism)
            self._settle()
        elif not self._processors:
            type(self).begin_again = True
            # Airflow takes that for a good end of the job, and its command returns.
            raise SystemExit(os.EX_OK)

    def _in_flight(self, files: Iterable[Any]) -> dict[Any, float]:
        """How long ago their children were started."""
        now = time.monotonic()
        return {file: now - self._processors[file].start_time for file in files}

    def _fill(self, slots: int) -> None:
        all_slots = self._parallelism
        # Airflow's handlers raise SystemExit. Python runs them in the at-fork hooks if a signal comes during a fork,
        # and drops what a hook raises; or they leave a child that no list has yet.
        with DeferredSignals():
            self._parallelism = slots
            try:
                super()._start_new_processes()
            finally:
                self._parallelism = all_slots

    def _settle(self) -> None:
        """Wait for the forks that were asked for. Files whose children never came are the next to be parsed.

        OSError: the kernel refused one, which ends Airflow's manager as well.
        """
        lost: ZygoteError | None = None
        for file, process in list(self._processors.items()):
            if process.is_settled:
                continue
            try:
                process.settle()
                self._lost = 0
            except ZygoteError as error:
                lost = error
                with DeferredSignals():  # close() reads
                    del self._processors[file]
                    process.close()
                    self._add_files_to_queue([file], mode="frontprio")
        if lost is not None:
            self._lost += 1
            if ObservedFileProcess.parent is not None and (
                isinstance(lost, NoAnswer) or self._lost == _MOST_LOST
            ):
                with DeferredSignals():
                    self._become_parent(lost)

    def _collect_results(self) -> None:
        ready = [file for file, process in self._processors.items() if process.is_ready]
        self._held = 0.0
        if not ready:
            return
        ages = self._in_flight(ready)
        held = self._pace.hold(ready, self._in_flight(self._processors.keys() - set(ready)))
        if held and max(ages.values()) + held < self.processor_timeout:
            self._held = held
            return
        for file in sorted(ready, key=self._pace.expected):  # to the end, and so in this order
            self._processors[file] = self._processors.pop(file)
        began = time.monotonic()
        if not (self._asked_to_end or self._finishes):
            # They have their slots until they are stored. Who asked for one of them meanwhile wants it parsed again.
            again = [file for file in self._file_queue if file in ages]
            for file in again:
                del self._file_queue[file]
            self._fill(self._pace.ready(ages) + len(ready))
            if again:
                self._add_files_to_queue(again[::-1], mode="frontprio")
        super()._collect_results()
        self._settle()  # what was asked for has been forked meanwhile
        self._pace.stored(len(ready), time.monotonic() - began)

    def handle_parsing_result(self, file: Any, proc: Any, **options: Any) -> None:
        began = time.monotonic()
        super().handle_parsing_result(file, proc, **options)
        self._pace.stored_one(file, time.monotonic() - began)

    def _wants_new_process(self) -> bool:
        if self.learner is not None:
            return self._is_stale or self.learner.freshness.wants_new_parent
        if self.zygote_parent is not None and not self._is_stale:
            stale = self.zygote_parent.stale()
            self._is_stale = bool(stale) and not self.zygote_parent.renew(stale)
        return self._is_stale

    # Airflow's handlers also read from the children until those have ended, through the generators that forward their
    # log lines. A signal that comes inside such a generator enters it a second time: "ValueError: generator already
    # executing" and exit code 1, or no exit at all where something catches that (Airflow 3.3.2, stock as well). So in
    # the places that read, a signal may come while they wait for a child, and waits while they read.

    def _service_processor_sockets(self, timeout: float | None = 1.0) -> None:
        if self._held:
            timeout = _sooner(timeout, self._held)
        elif not self._finishes and self._file_queue and len(self._processors) < self._parallelism:
            timeout = _sooner(timeout, self._pace.wait())
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
        report = self.report()
        for line in report.lines if report is not None else ():
            self.log.info(line)
        super().after_run()

    def end(self) -> None:
        # Airflow calls it at every end, and after_run() before or after it.
        self.report()  # of a zygote that hangs its children have to be freed, before Airflow waits for them
        super().end()
        if self.learner is not None:
            self.learner.close()
        if self.zygote_parent is not None:
            self.zygote_parent.close()


def _sooner(timeout: float | None, seconds: float) -> float:
    return seconds if timeout is None else min(timeout, seconds)
