# SPDX-License-Identifier: Apache-2.0
"""ForkPool against the standard library's pools, all of two workers: small tasks, one at a time, and large ones.

All pools live in one process, which uses them in turn; a pool that is not used sleeps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import operator
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from pairs import Figure, figure, fresh, in_turn, medians, progress, ratios
from pool_tasks import same

from frostfork import ForkPool

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "pool_speed"
_WORKERS = 2
_TASKS = 20_000
_TRIPS = 500
_BYTES = 100_000_000
_TIMEOUT = 120

# By side of the comparison: what it is called, its goal, pairs, scale and unit of the detail.
_COMPARISONS = {
    "apply_async": (f"{_TASKS:,} small tasks, by multiprocessing.Pool.apply_async", 1 / 1.5, 10, 1.0, "s"),
    "submit": (f"{_TASKS:,} small tasks, by ProcessPoolExecutor.submit", 1 / 3, 10, 1.0, "s"),
    "pipe": ("a round trip, by that of a raw pipe", 4.0, 40, 1e6 / _TRIPS, "us"),
    "pipe-together": ("the same, both ends on one processor", 4.0, 40, 1e6 / _TRIPS, "us"),
    "pipe-apart": ("the same, on two processors", 4.0, 40, 1e6 / _TRIPS, "us"),
    "array": ("an array of 100 MB there and back, by ProcessPoolExecutor", 1 / 2, 8, 1e3, "ms"),
}


def missing() -> str:
    try:
        import numpy  # noqa: F401 - whether it is there
    except ImportError:
        return f"{NAME} is left out: it needs numpy"
    return ""


def run(*, quick: bool) -> list[Figure]:
    found = []
    for side, (name, goal, pairs, scale, unit) in _COMPARISONS.items():
        if side == "pipe-apart" and len(os.sched_getaffinity(0)) < 2:
            continue
        progress(f"{NAME}: {name}")
        measured = fresh(__file__, "--side", side, "--pairs", 2 if quick else pairs)
        detail = medians(measured, (side, "ForkPool"), scale, unit)
        found.append(figure(NAME, name, ratios(measured), goal, detail=detail))
    return found


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def measure() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measure


def _submit_all(pool: Any) -> Callable[[], object]:
    def work() -> None:
        futures = [pool.submit(operator.neg, at) for at in range(_TASKS)]
        for at, future in enumerate(futures):
            assert future.result(_TIMEOUT) == -at

    return work


def _apply_all(pool: Any) -> Callable[[], object]:
    def work() -> None:
        results = [pool.apply_async(operator.neg, (at,)) for at in range(_TASKS)]
        for at, result in enumerate(results):
            assert result.get(_TIMEOUT) == -at

    return work


def _round_trips(pool: Any) -> Callable[[], object]:
    def work() -> None:
        for at in range(_TRIPS):
            assert pool.submit(operator.neg, at).result(_TIMEOUT) == -at

    return work


class _Pipes:
    """A child that sends back each byte it gets; the least that a round trip between two processes can be."""

    def __init__(self, cpus: set[int]) -> None:
        there, self._to = os.pipe()
        self._back, back = os.pipe()
        if os.fork() == 0:
            os.sched_setaffinity(0, cpus)
            os.close(self._to)
            while byte := os.read(there, 1):
                os.write(back, byte)
            os._exit(0)
        os.close(there)
        os.close(back)

    def round_trips(self) -> None:
        for _ in range(_TRIPS):
            os.write(self._to, b"x")
            os.read(self._back, 1)

    def close(self) -> None:
        os.close(self._to)
        os.close(self._back)
        os.wait()


def _processors(side: str) -> tuple[set[int], set[int]]:
    """Those for this process, and those for who answers it."""
    all_of_them = os.sched_getaffinity(0)
    if side == "pipe":  # as the scheduler has it
        return all_of_them, all_of_them
    return {min(all_of_them)}, {max(all_of_them) if side == "pipe-apart" else min(all_of_them)}


def _array(pool: Any) -> Callable[[], object]:
    import numpy

    sent = numpy.arange(_BYTES // 8, dtype=numpy.int64)

    def work() -> None:
        got = pool.submit(same, sent).result(_TIMEOUT)
        assert got[-1] == sent[-1] and got.nbytes == _BYTES

    return work


def _measured(side: str, pairs: int) -> list[tuple[float, float]]:
    fork = multiprocessing.get_context("fork")
    # Whoever forks by itself does so before there are threads.
    if side.startswith("pipe"):
        here, there = _processors(side)
        os.sched_setaffinity(0, here)
        pipes = _Pipes(there)
        with ForkPool(_WORKERS, initializer=os.sched_setaffinity, initargs=(0, there)) as pool:
            measured = in_turn(_timed(pipes.round_trips), _timed(_round_trips(pool)), pairs)
        pipes.close()
        return measured
    if side == "apply_async":
        with fork.Pool(_WORKERS) as other, ForkPool(_WORKERS) as pool:
            return in_turn(_timed(_apply_all(other)), _timed(_submit_all(pool)), pairs)
    work = _submit_all if side == "submit" else _array
    with ProcessPoolExecutor(_WORKERS, mp_context=fork) as executor:
        executor.submit(operator.neg, 1).result(_TIMEOUT)
        with ForkPool(_WORKERS) as pool:
            return in_turn(_timed(work(executor)), _timed(work(pool)), pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description="One comparison; prints seconds pair by pair as JSON.")
    parser.add_argument("--side", choices=_COMPARISONS, required=True)
    parser.add_argument("--pairs", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(_measured(options.side, options.pairs)))


if __name__ == "__main__":
    main()
