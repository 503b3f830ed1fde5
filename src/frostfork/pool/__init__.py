# SPDX-License-Identifier: Apache-2.0
"""Pools of workers that a zygote forks."""

from frostfork.pool.executor import ForkPool
from frostfork.pool.records import PoolStats, TaskRecord, WorkerStats

__all__ = ["ForkPool", "PoolStats", "TaskRecord", "WorkerStats"]
