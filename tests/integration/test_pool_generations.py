# SPDX-License-Identifier: Apache-2.0
"""ForkPool: workers that are recycled, and generations that follow each other."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from pathlib import Path

import pytest

from frostfork import (
    ForkPool,
    RecyclePolicy,
    WorkerDied,
)
from tests.conftest import open_descriptors
from tests.integration import pool_work as work
from tests.integration.pool_work import WAIT, all_idle, pids, until


def test_workers_are_recycled_after_so_many_tasks() -> None:
    with ForkPool(1, recycle=RecyclePolicy(max_tasks=10, jitter=0)) as pool:
        found = [future.result(WAIT) for future in [pool.submit(work.pid) for _ in range(100)]]
        assert [found.count(each) for each in dict.fromkeys(found)] == [10] * 10
        assert pool.stats().died == pool.stats().failed == 0


def test_workers_are_recycled_for_private_bytes_and_not_for_shared_ones() -> None:
    with ForkPool(1, recycle=RecyclePolicy(max_private_bytes=40 << 20, jitter=0)) as pool:
        first = pool.submit(work.pid).result(WAIT)
        assert pool.submit(work.eat, 1 << 20).result(WAIT) == first
        assert pool.submit(work.eat, 1 << 20).result(WAIT) == first
        until(lambda: 2 << 20 < (pool.stats().workers[0].private_bytes or 0) < 40 << 20)
        assert pool.submit(work.eat, 64 << 20).result(WAIT) == first
        until(lambda: all_idle(pool) and first not in pids(pool))
        assert pool.stats().died == 0


def test_unshared_pages_are_counted_where_there_is_a_baseline() -> None:
    # In a process that has freed much, what is new for Python may lie on pages that were shared: a fresh one.
    with ForkPool(1, baseline=True, start="exec") as pool:
        until(lambda: pool.stats().workers and pool.stats().workers[0].unshared_pages is not None)
        pool.submit(work.eat, 64 << 20).result(WAIT)
        until(lambda: (pool.stats().workers[0].private_bytes or 0) > 64 << 20)
        unshared = pool.stats().workers[0].unshared_pages
        assert unshared is not None and 0 <= unshared < 8192  # what is new was never shared


def test_without_a_baseline_unshared_pages_are_not_known() -> None:
    with ForkPool(1) as pool:
        pool.submit(work.eat, 1 << 20).result(WAIT)
        until(lambda: pool.stats().workers[0].private_bytes is not None)
        assert pool.stats().workers[0].unshared_pages is None


def test_idle_workers_are_recycled_for_their_age() -> None:
    with ForkPool(1, recycle=RecyclePolicy(max_age=0.3), heartbeat=0.05) as pool:
        first = pool.submit(work.pid).result(WAIT)
        until(lambda: pids(pool) and first not in pids(pool))
        assert pool.stats().died == 0


_HELD = ["busy", "retiring"]


def test_a_new_generation_takes_over_one_by_one(tmp_path: Path) -> None:
    gates = [tmp_path / "one", tmp_path / "two"]
    with ForkPool(3) as pool:
        until(lambda: len(all_idle(pool)) == 3)
        busy = [pool.submit(work.wait_for, str(gate)) for gate in gates]
        until(lambda: all(future.running() for future in busy))
        pool.refork()
        until(lambda: pool.stats().generation == 2)
        # One may be missing: the idle one is replaced, one busy one takes no more, the other goes on as it was.
        until(
            lambda: sum(each.generation == 2 and each.state == "idle" for each in pool.stats().workers) == 1
        )
        assert pool.submit(work.double, 1).result(WAIT) == 2
        until(lambda: sorted(each.state for each in pool.stats().workers if each.generation == 1) == _HELD)
        for gate in gates:
            gate.touch()
        assert all(future.result(WAIT) for future in busy)
        until(lambda: {each.generation for each in pool.stats().workers} == {2} and len(pids(pool)) == 3)


def test_a_worker_that_is_to_go_goes_when_its_result_was_waited_for(tmp_path: Path) -> None:
    """The thread that waits in result() reads it itself, and has to see that it was the worker's last."""
    gate = tmp_path / "gate"
    with ForkPool(2) as pool:
        until(lambda: len(all_idle(pool)) == 2)
        last = pool.submit(work.wait_for, str(gate))

        def renew() -> None:
            until(lambda: len(all_idle(pool)) == 0)  # asking the future would make it wait in another way
            pool.refork()
            until(lambda: sorted(each.state for each in pool.stats().workers) == ["idle", "retiring"])
            assert [pool.submit(work.double, each).result(WAIT) for each in range(3)] == [0, 2, 4]
            gate.touch()

        thread = threading.Thread(target=renew)
        thread.start()
        old = last.result(WAIT)
        thread.join(WAIT)
        until(lambda: old not in pids(pool) and len(all_idle(pool)) == 2)
        assert {each.generation for each in pool.stats().workers} == {2}


def test_refork_tells_the_generation_that_comes() -> None:
    with ForkPool(1) as pool:
        assert pool.refork() == 2
        until(lambda: pool.stats().generation == 2)
        until(lambda: {each.generation for each in pool.stats().workers} == {2})
        os.kill(pool._zygote.pid, signal.SIGKILL)
        coming = pool.refork()
        assert coming == 3
        until(lambda: {each.generation >= coming for each in pool.stats().workers} == {True})
    assert pool.refork() == pool.stats().generation


@pytest.mark.parametrize("how", ["killed in it", "recycled"])
def test_a_kept_future_keeps_nothing_of_its_worker(how: str) -> None:
    with ForkPool(1, recycle=RecyclePolicy(max_tasks=1 if how == "recycled" else None)) as pool:
        until(lambda: all_idle(pool))
        (link,) = pool._engine.dispatcher.links
        worker, gone = link.pid, weakref.ref(link)
        del link
        if how == "recycled":
            future = pool.submit(work.pid)
            assert future.result(WAIT) == worker
        else:
            future = pool.submit(work.die, signal.SIGKILL)
            assert isinstance(future.exception(WAIT), WorkerDied)
        until(lambda: gc.collect() is None or gone() is None)
        record = future.record
        assert (record.pid, record.worker, record.generation) == (worker, "pool-1", 1)


def test_a_refork_leaves_no_descriptor_behind() -> None:
    with ForkPool(1) as pool:
        until(lambda: all_idle(pool))
        before = len(open_descriptors())
        generation = pool.refork()
        until(lambda: {each.generation for each in pool.stats().workers} == {generation})
        until(lambda: len(open_descriptors()) == before)


def test_refork_after_so_many_tasks() -> None:
    with ForkPool(2, refork_after=50) as pool:
        assert list(pool.map(work.double, range(60))) == [2 * each for each in range(60)]
        until(lambda: {each.generation for each in pool.stats().workers} == {2})
        assert list(pool.map(work.double, range(10))) == [2 * each for each in range(10)]
        assert pool.stats().died == 0
