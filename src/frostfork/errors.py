# SPDX-License-Identifier: Apache-2.0
"""The exceptions of frostfork: one base, so that one `except` catches all that is ours.

Refusals of the kernel are plain OSErrors with their errno, since callers of os.fork and readers of /proc
already handle those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostfork.pool.broken import PoolBroken as PoolBroken


class FrostforkError(Exception):
    """Base of all errors that frostfork raises of its own."""


class ConfigurationError(FrostforkError):
    """A setting that cannot be used; the message names it, its value and what is allowed."""


class LedgerError(FrostforkError):
    """A ledger that cannot be read, written or locked; the message says which and why."""


class ObservationError(FrostforkError):
    """Observed data that cannot be read: damaged, or written by something else."""


class UnsupportedAirflowError(FrostforkError):
    """This Airflow lacks a place that frostfork needs; the message names it."""


class BaselineError(FrostforkError):
    """There is no baseline to compare with."""


class UnsupportedStepError(FrostforkError):
    """A step of a warmup that this interpreter, C library or kernel cannot do; the message says why."""


class WorkerDied(FrostforkError):
    """A worker's process ended while it ran a task; the task may have had effects.

    code: as subprocess.returncode: an exit code, or below zero a signal; None if nobody could tell.
    signal: the signal's name, or None. stderr_tail: the last lines that the worker wrote there.
    """

    pid: int | None = None
    name: str | None = None
    code: int | None = None
    signal: str | None = None
    stderr_tail: str = ""


class TaskTimeout(FrostforkError, TimeoutError):
    """A task took longer than it may."""


class RemoteError(FrostforkError):
    """An exception of a task that could not be brought to this process as it is; the message has its type and text."""


class ZygoteError(FrostforkError):
    """A zygote that cannot be started, replaced or used; the message says why."""


def __getattr__(name: str) -> object:
    # Its other base is in concurrent.futures, which takes longer to import than all of this package's root.
    if name == "PoolBroken":
        from frostfork.pool.broken import PoolBroken

        globals()[name] = PoolBroken
        return PoolBroken
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
