# SPDX-License-Identifier: Apache-2.0
"""Workers of a large template: 64 started at once against as many os.fork(), and one replaced.

The zygote and the process that forks by itself hold 300 MB of small objects each, so both copy as many page tables.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import statistics
import threading
import time
from typing import TYPE_CHECKING

from pairs import Figure, figure, fresh, in_turn, medians, progress, ratios, small_objects

from frostfork import ForkPool, RecyclePolicy, Template, Zygote

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostfork import Worker

NAME = "pool_start"
_MEGABYTES = 300
_WORKERS = 64
_TIMEOUT = 120


class Large(Template):
    """Holds small objects, as many as fill the memory."""

    def begin(self) -> None:
        gc.disable()
        self.held = small_objects(_MEGABYTES << 20)


def run(*, quick: bool) -> list[Figure]:
    progress(f"{NAME}: {_WORKERS} workers of a template of {_MEGABYTES} MB")
    started = fresh(__file__, "--measure", "started", "--pairs", 2 if quick else 15)
    progress(f"{NAME}: a worker replaced")
    replaced = fresh(__file__, "--measure", "replaced", "--pairs", 3 if quick else 100)
    return [
        figure(
            NAME,
            f"{_WORKERS} workers, by as many os.fork()",
            ratios(started),
            1.3,
            detail=medians(started, ("os.fork", "fork_many"), 1e3, "ms"),
        ),
        figure(
            NAME,
            "a worker replaced, less the time of a fork",
            [(there - fork) * 1e3 for fork, there in replaced],
            2.0,
            unit="ms",
            detail=medians(replaced, ("os.fork", "from the end of one to the next that is ready"), 1e3, "ms"),
        ),
    ]


def _forks(count: int) -> float:
    """Seconds of so many forks, until the last has returned. The children wait for all, and end."""
    gate, key = os.pipe()
    pids = []
    start = time.perf_counter()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(key)
            os.read(gate, 1)
            os._exit(0)
        pids.append(pid)
    seconds = time.perf_counter() - start
    os.close(gate)
    os.close(key)
    for pid in pids:
        os.waitpid(pid, 0)
    return seconds


def wait_for_end(*, fds: list[int]) -> None:
    os.read(fds[0], 1)


def _started(zygote: Zygote) -> float:
    gate, key = os.pipe()
    start = time.perf_counter()
    workers: list[Worker] = zygote.fork_many(_WORKERS, wait_for_end, fds=[[gate]] * _WORKERS)
    seconds = time.perf_counter() - start
    os.close(gate)
    os.close(key)
    for worker in workers:
        worker.wait(_TIMEOUT)
    return seconds


def _measure_started(pairs: int) -> list[tuple[float, float]]:
    with Zygote(Large()) as zygote:
        held = Large()
        held.begin()
        return in_turn(functools.partial(_forks, _WORKERS), functools.partial(_started, zygote), pairs)


def _has_more_than(times: list[float], count: int) -> bool:
    return len(times) > count


def _measure_replaced(pairs: int) -> list[tuple[float, float]]:
    """Each task ends its worker; the pool's own hooks tell when one had gone and when the next was ready."""
    ended: list[float] = []
    ready: list[float] = []
    came = threading.Condition()

    def note(times: list[float]) -> Callable[..., None]:
        def noted(*_: object) -> None:
            with came:
                times.append(time.perf_counter())
                came.notify()

        return noted

    pool = ForkPool(
        1,
        template=Large(),
        recycle=RecyclePolicy(max_tasks=1, jitter=0.0),
        worker_ready=note(ready),
        worker_exit=note(ended),
    )
    with pool:
        for at in range(pairs):
            assert pool.submit(abs, -at).result(_TIMEOUT) == at
            with came:
                assert came.wait_for(functools.partial(_has_more_than, ready, at + 1), _TIMEOUT)
    held = Large()
    held.begin()
    fork = statistics.median(_forks(1) for _ in range(pairs))
    return [(fork, max(0.0, there - gone)) for gone, there in zip(ended, ready[1:], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description="One measurement; prints seconds pair by pair as JSON.")
    parser.add_argument("--measure", choices=("started", "replaced"), required=True)
    parser.add_argument("--pairs", type=int, required=True)
    options = parser.parse_args()
    measure = _measure_started if options.measure == "started" else _measure_replaced
    print(json.dumps(measure(options.pairs)))


if __name__ == "__main__":
    main()
