# SPDX-License-Identifier: Apache-2.0
"""What a pool tells about itself."""

from __future__ import annotations

from typing import NamedTuple


class Who(NamedTuple):
    """A worker, as long as somebody wants to know of it."""

    pid: int
    worker: str
    generation: int


class TaskRecord(NamedTuple):
    """How a task was run: by which worker, for how many seconds, at which attempt."""

    pid: int
    worker: str
    generation: int
    seconds: float
    attempts: int


class WorkerStats(NamedTuple):
    """A worker. seconds: spent in tasks. private_bytes, unshared_pages: as last measured, None before and if unknown.

    unshared_pages are known only of a pool with baseline=True.
    state: "starting", "idle", "busy", "retiring".
    """

    pid: int
    name: str
    generation: int
    tasks: int
    seconds: float
    private_bytes: int | None
    unshared_pages: int | None
    state: str


class PoolStats(NamedTuple):
    """A pool at one moment; its counts are of tasks, `started` and `died` of workers since the pool began.

    submitted = done + failed + cancelled + queued + running. failed: ended with an exception.
    """

    workers: tuple[WorkerStats, ...]
    generation: int
    submitted: int
    done: int
    failed: int
    cancelled: int
    retried: int
    queued: int
    running: int
    started: int
    died: int
