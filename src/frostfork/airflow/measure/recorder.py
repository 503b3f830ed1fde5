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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def recorded(manager: type[Any], record: str) -> type[Any]:
    """Return a subclass of a DagFileProcessorManager class that appends to the file `record`."""

    class Recorded(manager):
        def before_run(self) -> None:
            _record_children(record)
            super().before_run()

        def handle_parsing_result(self, file: Any, proc: Any, **keywords: Any) -> None:
            # Airflow takes its own duration here too. Storing the result comes after and is not the child's.
            end = time.monotonic()
            own = resource.getrusage(resource.RUSAGE_SELF)
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
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
                    children_cpu=children.ru_utime + children.ru_stime,
                    children_faults=children.ru_minflt,
                    own_cpu=own.ru_utime + own.ru_stime,
                    dags=None if result is None else len(result.serialized_dags),
                )
                self._record_preloads()

        def after_run(self) -> None:
            self._record_preloads()
            super().after_run()

        def _record_preloads(self) -> None:
            # Not at the end alone, which a processor that is stopped may not reach.
            preloader = getattr(self, "preloader", None)
            if preloader is None:
                return
            report = preloader.report
            warmups = self.learner.warming.reports
            size = (len(report.preloaded), len(report.refused), len(warmups))
            if size == getattr(self, "_recorded_size", None):
                return
            self._recorded_size = size
            _append(
                record,
                event="preload",
                preloaded=dict(report.preloaded),
                refused={module: str(reason) for module, reason in report.refused.items()},
                warmups=[{name: step._asdict() for name, step in warmup.steps.items()} for warmup in warmups],
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
