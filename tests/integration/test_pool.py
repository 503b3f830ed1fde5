# SPDX-License-Identifier: Apache-2.0
"""ForkPool as an executor: what is submitted ends, right or with its reason."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import operator
import os
import pickle
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frostfork import ForkPool, FrostforkError, PoolBroken, RemoteError, WorkerDied
from tests.integration import pool_work as work
from tests.integration.forking import run_child
from tests.integration.pool_work import WAIT, until


@pytest.fixture
def pool() -> Iterator[ForkPool]:
    with ForkPool(2) as pool:
        yield pool


def test_submit_and_map(pool: ForkPool) -> None:
    assert pool.submit(work.add, 1, 2, more=3).result(WAIT) == 6
    assert list(pool.map(work.double, range(100))) == [2 * each for each in range(100)]
    assert list(pool.map(work.double, range(100), chunksize=7)) == [2 * each for each in range(100)]
    assert list(pool.map(work.add, [1, 2, 3], [10, 20])) == [11, 22]
    assert pool.submit(work.pid).result(WAIT) != os.getpid()
    stats = pool.stats()
    assert stats.done == stats.submitted and stats.failed == stats.queued == stats.running == 0
    assert sum(worker.tasks for worker in stats.workers) == stats.done


def test_many_small_tasks(pool: ForkPool) -> None:
    futures = [pool.submit(work.double, each) for each in range(5000)]
    assert [future.result(WAIT) for future in futures] == [2 * each for each in range(5000)]
    assert len({worker.tasks for worker in pool.stats().workers}) == 2


def test_functions_in_c_and_methods_of_objects(pool: ForkPool) -> None:
    for _ in range(2):  # the second time, functions are known on both sides
        assert pool.submit(operator.neg, 5).result(WAIT) == -5
        assert pool.submit(operator.add, "a", "b").result(WAIT) == "ab"
        assert pool.submit([1, 2, 1].count, 1).result(WAIT) == 2
        assert pool.submit([2, 2, 1].count, 1).result(WAIT) == 1
        assert pool.submit(int, "7", base=8).result(WAIT) == 7
        assert pool.submit(operator.truth, work.double).result(WAIT) is True
    error = pool.submit(operator.truediv, 1, 0).exception(WAIT)
    assert isinstance(error, ZeroDivisionError) and "_core" not in str(error.__cause__)


@pytest.mark.parametrize("times", [1, 70_000, 3_000_000])
def test_results_and_arguments_of_any_size(pool: ForkPool, times: int) -> None:
    for _ in range(2):
        assert pool.submit(operator.mul, "ab", times).result(WAIT) == "ab" * times
        assert pool.submit(len, "ab" * times).result(WAIT) == 2 * times
        assert pool.submit(operator.lshift, 1, 8 * times).result(WAIT) == 1 << 8 * times
        assert pool.submit(divmod, 1 << 8 * times, 1 << 4).result(WAIT) == (1 << 8 * times - 4, 0)


@pytest.mark.parametrize("seconds", [0, 0.02, 0.3])
def test_a_wait_ends_after_its_timeout(pool: ForkPool, tmp_path: Path, seconds: float) -> None:
    pool.submit(work.double, 1).result(WAIT)
    future = pool.submit(work.wait_for, str(tmp_path / "go"))
    start = time.monotonic()
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(seconds)
    assert seconds <= time.monotonic() - start < WAIT / 2
    (tmp_path / "go").touch()
    assert future.result(WAIT) > 0


def test_map_takes_no_more_than_its_buffer(pool: ForkPool) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for each in range(50):
            taken.append(each)
            yield each

    results = pool.map(work.double, numbers(), buffersize=3)
    assert len(taken) == 3
    assert next(results) == 0
    assert len(taken) == 4
    assert list(results) == [2 * each for each in range(1, 50)]
    with pytest.raises(ValueError, match="buffersize"):
        pool.map(work.double, [1], buffersize=0)


def test_map_is_over_after_its_timeout(pool: ForkPool) -> None:
    with pytest.raises(concurrent.futures.TimeoutError):
        list(pool.map(work.sleep, [0.5, 0.5], timeout=0.05))


@pytest.mark.parametrize("together", [True, False])
def test_who_expects_an_answer_soon_stays_awake_unless_that_delays_it(together: bool) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("there is one processor")

    def asleep(pool: ForkPool) -> int:
        def switches() -> int:
            usage = resource.getrusage(resource.RUSAGE_THREAD)
            return usage.ru_nvcsw + usage.ru_nivcsw

        before = switches()
        for at in range(500):
            assert pool.submit(operator.neg, at).result(WAIT) == -at
        return switches() - before

    try:
        os.sched_setaffinity(0, cpus[:1])
        with ForkPool(
            1, initializer=os.sched_setaffinity, initargs=(0, cpus[:1] if together else cpus[-1:])
        ) as pool:
            # Each answer comes from a process that has to run first; or, unless others use the processors, from one
            # that runs meanwhile.
            if together:
                assert asleep(pool) >= 500
            else:
                assert until(lambda: asleep(pool) < 250)
    finally:
        os.sched_setaffinity(0, cpus)


def test_who_waits_awake_is_interrupted_all_the_same() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with ForkPool(1) as pool:
            for micros in range(5, 125, 3):
                for at in range(20):  # the last of these waits was short, so the next one is awake
                    assert pool.submit(operator.neg, at).result(WAIT) == -at
                with pytest.raises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, micros / 1e6)
                    pool.submit(time.sleep, 0.05).result()
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_exception_arrives_with_its_traceback(pool: ForkPool) -> None:
    error = pool.submit(work.raise_it, KeyError("what")).exception(WAIT)
    assert isinstance(error, KeyError) and error.args == ("what",)
    assert "in raise_it" in str(error.__cause__) and "pool_work.py" in str(error.__cause__)
    assert not any(ours in str(error.__cause__) for ours in ("worker.py", "payload.py", "_runner", "_core"))
    limited = pool.with_options(timeout=WAIT).submit(work.raise_it, KeyError("what")).exception(WAIT)
    assert limited is not None and "worker.py" not in str(limited.__cause__)


def test_exceptions_that_cannot_travel_are_told(pool: ForkPool) -> None:
    error = pool.submit(work.raise_it, SystemExit(3)).exception(WAIT)
    assert isinstance(error, SystemExit) and error.code == 3
    error = pool.submit(_raise_awkward).exception(WAIT)
    assert isinstance(error, RemoteError) and "Awkward: 1 and 2" in str(error)
    assert "_raise_awkward" in str(error.__cause__)


def _raise_awkward() -> None:
    raise work.Awkward(1, 2)


def test_what_cannot_be_pickled_fails_its_own_task(pool: ForkPool) -> None:
    assert "not this one" in str(pool.submit(work.ignore, work.Unpicklable()).exception(WAIT))
    assert "not this one" in str(pool.submit(work.make, work.Unpicklable).exception(WAIT))
    assert "poisoned" in str(pool.submit(work.ignore, work.Poison()).exception(WAIT))
    assert "poisoned" in str(pool.submit(work.make, work.Poison).exception(WAIT))
    assert pool.submit(work.double, 4).result(WAIT) == 8
    assert pool.stats().failed == 4


def _successor() -> Callable[[int], int]:
    return lambda x: x + 1


def test_lambdas_go_by_cloudpickle(pool: ForkPool) -> None:
    pytest.importorskip("cloudpickle")
    assert pool.submit(lambda: 5).result(WAIT) == 5
    inner: Callable[[int], int] = pool.submit(_successor).result(WAIT)
    assert inner(1) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_fails_its_own_task_only(
    pool: ForkPool, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [pool.submit(work.double, each) for each in range(50)]
    death = pool.submit(work.die, number, "last words")
    after = [pool.submit(work.double, each) for each in range(50)]
    error = death.exception(WAIT)
    assert isinstance(error, WorkerDied)
    assert error.signal == number.name and error.code == -number and "last words" in error.stderr_tail
    assert number.name in str(error) and "last words" in str(error) and str(error.pid) in str(error)
    assert [future.result(WAIT) for future in before + after] == [2 * each for each in range(50)] * 2
    assert "last words" in capfd.readouterr().err
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.signal, again.pid) == (str(error), error.signal, error.pid)


def test_an_exit_code_is_told(pool: ForkPool) -> None:
    error = pool.submit(work.leave_by, 7).exception(WAIT)
    assert isinstance(error, WorkerDied) and error.code == 7 and error.signal is None
    assert "exited with code 7" in str(error)


def test_retries_run_a_task_elsewhere(pool: ForkPool, tmp_path: Path) -> None:
    future = pool.with_options(retries=1).submit(work.die_once, str(tmp_path / "died"), signal.SIGKILL)
    assert future.result(WAIT) in {worker.pid for worker in pool.stats().workers}
    assert pool.stats().retried == 1 and future.record.attempts == 2
    fatal = pool.with_options(retries=2).submit(work.die, signal.SIGKILL)
    assert isinstance(fatal.exception(WAIT), WorkerDied)
    assert pool.stats().retried == 3


def test_tasks_behind_a_long_one_go_elsewhere(pool: ForkPool, tmp_path: Path) -> None:
    """Short tasks are sent ahead; then one is long, and what lies behind it is taken back."""
    list(pool.map(work.double, range(1000)))
    gate = tmp_path / "gate"
    blocked = [pool.submit(work.wait_for, str(gate))]
    rest = [pool.submit(work.double, each) for each in range(300)]
    assert [future.result(WAIT) for future in rest] == [2 * each for each in range(300)]
    until(blocked[0].running)  # its worker may not have had a processor before all others were done
    gate.touch()
    assert blocked[0].result(WAIT)


def test_a_queued_task_can_be_cancelled_and_a_begun_one_cannot(pool: ForkPool, tmp_path: Path) -> None:
    gate, ran = tmp_path / "gate", tmp_path / "ran"
    list(pool.map(work.double, range(1000)))  # so that tasks are sent ahead
    begun = [pool.submit(work.wait_for, str(gate)) for _ in range(2)]
    until(lambda: all(future.running() for future in begun))
    queued = [pool.submit(work.leave, str(ran)) for _ in range(10)]
    assert not any(future.cancel() for future in begun)
    assert all(future.cancel() for future in queued) and all(future.cancel() for future in queued)
    assert concurrent.futures.wait(queued, timeout=WAIT).not_done == set()
    gate.touch()
    assert {future.result(WAIT) for future in begun}
    assert pool.submit(work.double, 1).result(WAIT) == 2
    assert not ran.exists() and pool.stats().cancelled == 10


def test_shutdown_does_what_was_submitted(tmp_path: Path) -> None:
    pool = ForkPool(2)
    futures = [pool.submit(work.double, each) for each in range(200)]
    pool.shutdown()
    assert [future.result(0) for future in futures] == [2 * each for each in range(200)]
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(work.double, 1)
    pool.shutdown()


def test_shutdown_can_cancel_what_is_queued(tmp_path: Path) -> None:
    pool = ForkPool(1)
    gate = tmp_path / "gate"
    first = pool.submit(work.wait_for, str(gate))
    until(first.running)
    rest = [pool.submit(work.double, each) for each in range(20)]
    pool.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in rest) and not first.done()
    gate.touch()
    assert first.result(WAIT)
    pool.shutdown()


def test_the_initializer_runs_in_each_worker() -> None:
    with ForkPool(2, initializer=work.set_variable, initargs=("FF_TEST", "set")) as pool:
        assert {pool.submit(work.variable, "FF_TEST").result(WAIT) for _ in range(20)} == {"set"}


def test_an_initializer_that_fails_breaks_the_pool() -> None:
    with ForkPool(2, initializer=work.raise_it, initargs=(ValueError("not today"),)) as pool:
        with pytest.raises(PoolBroken, match="not today"):
            pool.submit(work.double, 1).result(WAIT)
        until(lambda: _refuses(pool))
    assert issubclass(PoolBroken, concurrent.futures.BrokenExecutor)


def _refuses(pool: ForkPool) -> bool:
    try:
        pool.submit(work.double, 1)
    except PoolBroken as error:
        return "not today" in str(error)
    return False


def test_asyncio_runs_and_cancels(pool: ForkPool, tmp_path: Path) -> None:
    gate, ran = tmp_path / "gate", tmp_path / "ran"

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(pool, work.double, 21) == 42
        begun = [loop.run_in_executor(pool, work.wait_for, str(gate)) for _ in range(2)]
        while pool.stats().running != 2:
            await asyncio.sleep(0.005)
        queued = loop.run_in_executor(pool, work.leave, str(ran))
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        gate.touch()
        await asyncio.gather(*begun)
        assert await loop.run_in_executor(pool, functools.partial(work.add, 1, more=2)) == 3

    asyncio.run(run())
    assert not ran.exists()


def test_many_threads_submit_at_once(pool: ForkPool) -> None:
    found: dict[int, list[int]] = {}

    def use(number: int) -> None:
        futures = [pool.submit(work.double, number * 1000 + each) for each in range(50)]
        found[number] = [future.result(WAIT) for future in futures]

    threads = [threading.Thread(target=use, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert found == {n: [2 * (n * 1000 + each) for each in range(50)] for n in range(64)}


def test_submitting_while_it_shuts_down_runs_or_says_no() -> None:
    pool = ForkPool(2)
    futures: list[concurrent.futures.Future[int]] = []
    refused = threading.Event()

    def submit() -> None:
        try:
            while True:
                futures.append(pool.submit(work.double, 1))
        except RuntimeError:
            refused.set()

    thread = threading.Thread(target=submit)
    thread.start()
    until(lambda: len(futures) > 100)
    pool.shutdown()
    thread.join(WAIT)
    assert refused.is_set() and {future.result(0) for future in futures} == {2}


def test_in_a_fork_of_the_owner_the_pool_says_so(pool: ForkPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    pending = pool.submit(work.wait_for, str(gate))

    def try_it() -> list[str]:
        said = []
        for use in (lambda: pool.submit(work.double, 1), lambda: pending.result(1), pool.refork):
            try:
                use()
            except FrostforkError as error:
                said.append(str(error))
        pool.shutdown()
        return said

    said = run_child(try_it, os.fork)
    assert len(said) == 3 and all(str(os.getpid()) in each and "fork" in each for each in said)
    gate.touch()
    assert pending.result(WAIT)


def test_a_task_can_have_a_pool_of_its_own(pool: ForkPool) -> None:
    assert pool.submit(_with_a_pool, 5).result(WAIT) == [0, 2, 4, 6, 8]
    assert "cannot be sent" in str(pool.submit(work.ignore, pool).exception(WAIT))


def _with_a_pool(count: int) -> list[int]:
    with ForkPool(1) as pool:
        return list(pool.map(work.double, range(count)))


def test_a_callback_may_submit_and_may_not_wait(pool: ForkPool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    outcome: list[object] = []
    said = threading.Event()

    def callback(_: object) -> None:
        inner = pool.submit(work.double, 4)
        try:
            outcome.append(inner.result(WAIT))
        except RuntimeError as error:
            outcome.append(str(error))
        outcome.append(inner)
        said.set()

    future = pool.submit(work.wait_for, str(gate))
    future.add_done_callback(callback)
    gate.touch()
    assert said.wait(WAIT)
    assert outcome[0] == 8 or "wait for itself" in str(outcome[0])
    assert outcome[1].result(WAIT) == 8


def test_a_dropped_pool_ends(tmp_path: Path) -> None:
    pool = ForkPool(1)
    future = pool.submit(work.double, 1)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("pool-")]
    assert len(threads) == 2
    del pool
    gc.collect()
    assert future.result(WAIT) == 2
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
