# SPDX-License-Identifier: Apache-2.0
"""ForkPool is what a ProcessPoolExecutor is."""

from __future__ import annotations

import concurrent.futures.process

import frostfork


class ProcessPoolExecutor(frostfork.ForkPool):
    """With the parameters of the one that it stands for; the context makes no difference to ours."""

    def __init__(self, max_workers=None, mp_context=None, initializer=None, initargs=(), *, max_tasks_per_child=None):
        recycle = frostfork.RecyclePolicy(max_tasks=max_tasks_per_child, jitter=0.0)
        super().__init__(max_workers, initializer=initializer, initargs=initargs, recycle=recycle)


concurrent.futures.process.ProcessPoolExecutor = ProcessPoolExecutor
concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor
