# SPDX-License-Identifier: Apache-2.0
"""Airflow's supervised process, forked by a zygote.

Airflow's WatchedSubprocess.start makes four pairs of sockets, forks, runs _fork_main on its ends in the child and wraps
the rest in an object. Here the child's ends go to a worker of the zygote, which runs the same _fork_main on them; the
object is Airflow's, around another ProcessTracker. It need not wait for the fork: settle() does, when the manager has
done what it has to do anyway.
"""

from __future__ import annotations

import inspect
import time
from contextlib import ExitStack, closing
from socket import socketpair
from typing import TYPE_CHECKING, Any, cast

from airflow.dag_processing import processor as airflow_processor
from airflow.dag_processing.processor import _parse_file_entrypoint
from airflow.sdk.execution_time import supervisor
from airflow.sdk.execution_time.supervisor import WatchedSubprocess

from frostfork.airflow.parsing_template import parse
from frostfork.airflow.secret_cache import cache_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostfork.airflow.zygote_parent import ZygoteParent


class ZygoteChild(WatchedSubprocess):
    """The start of a process from a zygote; stands between DagFileProcessorProcess and WatchedSubprocess."""

    __slots__ = ()

    @classmethod
    def start(
        cls,
        *,
        target: Callable[[], None] = _parse_file_entrypoint,
        parent: ZygoteParent | None = None,
        folder: str = "",
        wait: bool = True,
        logger: Any = None,
        **options: Any,
    ) -> Any:
        """parent: the zygote; without one it is Airflow's own start. folder: the bundle's. wait: for the fork."""
        if parent is None:
            return super().start(target=target, logger=logger, **options)
        with ExitStack() as child, ExitStack() as ours:
            pairs = [socketpair() for _ in range(4)]
            for theirs, own in pairs:
                child.enter_context(closing(theirs))
                ours.enter_context(closing(own))
            (requests, stdin), (stdout, read_stdout), (stderr, read_stderr), (logs, read_logs) = pairs
            fds = [end.fileno() for end in (requests, stdout, stderr, logs)]
            file = options["dag_file_rel_path"]
            worker = parent.fork(parse, (target, cache_address()), fds, folder, file, wait=wait)
            from frostfork.airflow.worker_tracker import NO_PID, WorkerTracker

            tracker = WorkerTracker(worker)
            process = cls(
                pid=NO_PID,
                stdin=stdin,
                process=tracker,
                process_log=logger,
                # Airflow's clock, by which a file is slow or out of time, starts when its own fork has returned.
                start_time=tracker.forked_at if tracker.is_settled else time.monotonic(),
                **options,
            )
            ours.pop_all()
            process._register_pipe_readers(read_stdout, read_stderr, stdin, read_logs, data={})
        return process

    @property
    def pid(self) -> int:
        return cast("int", self._process.pid)

    @pid.setter
    def pid(self, pid: int) -> None:
        """It is the tracker's to know."""

    @property
    def is_settled(self) -> bool:
        """Whether it is known if there is a process."""
        return getattr(self._process, "is_settled", True)

    def settle(self) -> None:
        """Wait until it is forked. ZygoteError, OSError: it is not, and nobody parses this file."""
        if not self.is_settled:
            self._process.settle()
            self.start_time = self._process.forked_at  # type: ignore[misc]  # Airflow's class has it

    def _check_subprocess_exit(self, *arguments: Any, **options: Any) -> int | None:
        if not self.is_settled:
            return None
        if self._exit_code is None and not self._open_sockets:
            wait = getattr(self._process, "await_status", None)
            if wait is not None:
                wait()
        return super()._check_subprocess_exit(*arguments, **options)


def missing_from_airflow() -> str:
    """What this Airflow lacks, or has otherwise, of the names that a start from a zygote needs; "" if nothing."""
    expected = {
        "supervisor._fork_main": ("requests", "child_stdout", "child_stderr", "log_fd", "target"),
        "supervisor.WatchedSubprocess.start": ("target", "logger"),
        "supervisor.WatchedSubprocess._register_pipe_readers": (
            *("self", "stdout", "stderr", "requests", "logs", "data"),
        ),
        "supervisor.WatchedSubprocess._check_subprocess_exit": ("self",),
        "supervisor.WatchedSubprocess.__init__": (*("pid", "stdin", "process", "process_log", "start_time"),),
        "supervisor.ProcessTracker.wait": ("self", "timeout"),
        "supervisor.ProcessTracker.send_signal": ("self", "s"),
        "processor._pre_import_airflow_modules": ("file_path", "log"),
        "processor._parse_file_entrypoint": (),
    }
    modules = {"supervisor": supervisor, "processor": airflow_processor}
    for name, parameters in expected.items():
        first, *rest = name.split(".")
        found: Any = modules[first]
        for part in rest:
            found = getattr(found, part, None)
        if not callable(found):
            return f"it has no {name}"
        if not set(parameters) <= inspect.signature(found).parameters.keys():
            return f"its {name} takes other arguments"
    if "_open_sockets" not in dir(WatchedSubprocess):
        return "its WatchedSubprocess has no _open_sockets"
    return ""
