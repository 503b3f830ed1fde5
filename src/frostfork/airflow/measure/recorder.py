# SPDX-License-Identifier: Apache-2.0
"""Writes one JSON line for each file that a DAG processor has parsed.

Beside it each child writes a line when its own work ends: the parse's line says when the manager got round to the
result, which may be much later. Airflow's manager and frostfork's are recorded alike. The file is opened for each line:
a descriptor that stays open would be inherited by every child.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from frostfork.airflow.measure.processes import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable


_SECONDS_BETWEEN_REPORTS = 1.0


class _Usage(NamedTuple):
    cpu: float = 0.0  # seconds
    faults: int = 0

    @classmethod
    def of(cls, usage: Any) -> _Usage:
        return cls(usage.ru_utime + usage.ru_stime, usage.ru_minflt)

    def plus(self, other: _Usage) -> _Usage:
        return _Usage(self.cpu + other.cpu, self.faults + other.faults)


def recorded(manager: type[Any], record: str) -> type[Any]:
    """Return a subclass of a DagFileProcessorManager class that appends to the file `record`."""

    class Recorded(manager):
        def before_run(self) -> None:
            _record_children(record)
            super().before_run()

        def handle_parsing_result(self, file: Any, proc: Any, **keywords: Any) -> None:
            # Airflow takes its own duration here too. Storing the result comes after and is not the child's.
            end = time.monotonic()
            own, children = self._usage(proc)
            result = proc.parsing_result
            try:
                super().handle_parsing_result(file, proc, **keywords)
            finally:
                _append(
                    record,
                    event="parse",
                    path=str(file.rel_path),
                    pid=proc.pid,
                    start=proc.start_time,
                    end=end,
                    seconds=end - proc.start_time,
                    children_cpu=children.cpu,
                    children_faults=children.faults,
                    own_cpu=own.cpu,
                    dags=None if result is None else len(result.serialized_dags),
                )
                self._record_preloads()

        def after_run(self) -> None:
            self._next_record = 0.0
            self._record_preloads()
            super().after_run()

        def _usage(self, proc: Any) -> tuple[_Usage, _Usage]:
            """Of the manager with its zygote, if it has one, and of all children that have ended."""
            own = _Usage.of(resource.getrusage(resource.RUSAGE_SELF))
            children = _Usage.of(resource.getrusage(resource.RUSAGE_CHILDREN))
            ended = getattr(
                proc._process, "ended", None
            )  # of a zygote's worker, which is none of the manager's
            if ended is not None and ended.rusage is not None:
                self._workers = getattr(self, "_workers", _Usage()).plus(_Usage.of(ended.rusage))
            parent = getattr(self, "zygote_parent", None)
            if parent is not None:
                own = own.plus(_Usage(cpu_seconds(parent.zygote.pid)))
            return own, children.plus(getattr(self, "_workers", _Usage()))

        def _record_preloads(self) -> None:
            # Not at the end alone, which a processor that is stopped may not reach; but not at each parse, since a
            # zygote has to be asked.
            if not hasattr(self, "report") or time.monotonic() < getattr(self, "_next_record", 0.0):
                return
            self._next_record = time.monotonic() + _SECONDS_BETWEEN_REPORTS
            report = self.report()
            if report is None:
                return
            size = (len(report.preloaded), len(report.refused), len(report.warmups), report.settled)
            if size == getattr(self, "_recorded_size", None):
                return
            self._recorded_size = size
            _append(
                record,
                event="preload",
                preloaded=report.preloaded,
                refused=report.refused,
                warmups=report.warmups,
                settled=report.settled,
            )

    return Recorded


def _record_children(record: str) -> None:
    """Let each child that parses a file note its end, whatever its class adds to Airflow's."""
    from airflow.dag_processing.processor import DagFileProcessorProcess, _parse_file_entrypoint

    start = vars(DagFileProcessorProcess)["start"].__func__

    def recorded_start(
        cls: type[Any], /, *, target: Callable[[], None] = _parse_file_entrypoint, **options: Any
    ) -> Any:
        return start(cls, target=functools.partial(_until_end, target, record), **options)

    setattr(DagFileProcessorProcess, "start", classmethod(recorded_start))  # noqa: B010 - mypy forbids the assignment


def _until_end(target: Callable[[], None], record: str) -> None:
    try:
        target()
    finally:
        _append(record, event="child", pid=os.getpid(), end=time.monotonic())


def _append(record: str, **line: object) -> None:
    descriptor = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)
