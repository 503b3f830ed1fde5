# SPDX-License-Identifier: Apache-2.0
"""Tasks of the pool benchmarks: here, so that every kind of worker finds them by name."""

from __future__ import annotations

import os
from typing import TypeVar

import workload

T = TypeVar("T")


def same(value: T) -> T:
    return value


def worked(meeting: str, workers: int) -> int:
    """Do the work once, and wait until all others have, so that each worker does it once; the worker's pid."""
    workload.work()
    with open(os.path.join(meeting, str(os.getpid())), "x"):
        pass
    while len(os.listdir(meeting)) < workers:
        os.sched_yield()
    return os.getpid()
