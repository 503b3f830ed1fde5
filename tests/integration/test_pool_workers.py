# SPDX-License-Identifier: Apache-2.0
"""How a pool looks after its workers: time limits, silence, early ends."""

from __future__ import annotations

import errno
import gc
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from frostfork import (
    ConfigurationError,
    ForkPool,
    LearningTemplate,
    PoolBroken,
    RecyclePolicy,
    TaskTimeout,
    Template,
    WorkerDied,
    Zygote,
    _worker,
)
from tests.integration import pool_work as work
from tests.integration.forking import run_script
from tests.integration.pool_work import WAIT, all_idle, pids, until


def test_a_soft_timeout_is_raised_in_the_task() -> None:
    with ForkPool(1) as pool:
        worker = pool.submit(work.pid).result(WAIT)
        future = pool.with_options(timeout=0.1).submit(work.sleep, WAIT)
        error = future.exception(WAIT)
        assert isinstance(error, TaskTimeout) and isinstance(error, TimeoutError) and "0.1 s" in str(error)
        assert "in sleep" in str(error.__cause__)
        assert pool.submit(work.pid).result(WAIT) == worker
        assert pool.with_options(timeout=5).submit(work.handled_timeout, 0.0).result(WAIT) == "done"


def test_a_hard_timeout_ends_the_worker_of_a_task_that_does_not_obey(tmp_path: Path) -> None:
    with ForkPool(1) as pool:
        worker = pool.submit(work.pid).result(WAIT)
        limited = pool.with_options(timeout=0.1, hard_timeout=0.4, retries=3)
        future = limited.submit(work.deaf, WAIT)
        behind = [limited.submit(work.double, each) for each in range(10)]
        error = future.exception(WAIT)
        assert isinstance(error, TaskTimeout) and "0.4 s" in str(error) and str(worker) in str(error)
        assert [each.result(WAIT) for each in behind] == [2 * each for each in range(10)]
        assert pool.stats().retried == 0


def test_a_task_may_answer_its_soft_timeout() -> None:
    with ForkPool(1, timeout=0.1) as pool:
        assert pool.submit(work.handled_timeout, WAIT).result(WAIT) == "in time"


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"hard_timeout": -1.0}, {"retries": -1}])
def test_options_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        ForkPool(1, **wrong)


@pytest.mark.parametrize("busy", [False, True])
def test_a_stopped_worker_is_found_and_replaced(busy: bool) -> None:
    with ForkPool(2, heartbeat=0.2) as pool:
        until(lambda: len(all_idle(pool)) == 2)
        future = pool.submit(work.sleep, 0.0 if not busy else WAIT)
        if busy:
            stopped = until(lambda: [each.pid for each in pool.stats().workers if each.state == "busy"])[0]
            until(future.running)
        else:
            future.result(WAIT)
            stopped = pool.stats().workers[0].pid
        os.kill(stopped, signal.SIGSTOP)
        if busy:
            error = future.exception(WAIT)
            assert isinstance(error, WorkerDied) and error.pid == stopped and "stopped" in str(error)
        until(lambda: stopped not in pids(pool) and len(all_idle(pool)) == 2)
        assert [pool.submit(work.double, each).result(WAIT) for each in range(10)] == list(range(0, 20, 2))


@pytest.mark.parametrize("why", ["refork", "recycle"])
def test_a_worker_that_is_stopped_when_it_is_to_end_is_killed_soon(why: str) -> None:
    recycle = RecyclePolicy(max_tasks=1 if why == "recycle" else None)
    with ForkPool(1, recycle=recycle) as pool:
        worker = pool.submit(work.stop_at_exit).result(WAIT)
        began = time.monotonic()
        if why == "refork":
            pool.refork()
        until(lambda: worker not in pids(pool))
        assert time.monotonic() - began < 8  # and not 10, or never
        assert pool.submit(work.pid).result(WAIT) != worker


def test_a_long_task_is_no_sign_of_trouble() -> None:
    with ForkPool(1, heartbeat=0.05) as pool:
        assert pool.submit(work.sleep, 0.5).result(WAIT) == 0.5
        assert pool.stats().died == 0


def test_workers_that_get_ready_too_slowly_break_the_pool() -> None:
    start = time.monotonic()
    with (
        ForkPool(1, initializer=work.sleep, initargs=(WAIT,), ready_timeout=0.05) as pool,
        pytest.raises(PoolBroken, match="not ready after"),
    ):
        pool.submit(work.double, 1).result(WAIT)
    assert time.monotonic() - start > 2  # it backs off: 0.05 + 0.1 + 0.2 + … s


def test_workers_that_die_at_birth_break_the_pool_with_their_last_words() -> None:
    with (
        ForkPool(2, initializer=work.die, initargs=(signal.SIGSEGV, "no luck")) as pool,
        pytest.raises(PoolBroken, match=r"SIGSEGV(.|\n)*no luck"),
    ):
        pool.submit(work.double, 1).result(WAIT)


def test_tasks_that_kill_their_workers_do_not_break_the_pool() -> None:
    with ForkPool(2) as pool:
        futures = [pool.submit(work.die, signal.SIGKILL) for _ in range(20)]
        assert all(isinstance(future.exception(WAIT), WorkerDied) for future in futures)
        assert pool.submit(work.double, 1).result(WAIT) == 2


def test_idle_workers_and_the_zygote_may_be_killed() -> None:
    with ForkPool(2) as pool:
        for _ in range(3):
            for each in until(lambda: all_idle(pool)):
                os.kill(each, signal.SIGKILL)
            assert [pool.submit(work.double, each).result(WAIT) for each in range(10)] == list(
                range(0, 20, 2)
            )
        os.kill(pool._zygote.pid, signal.SIGKILL)
        os.kill(next(iter(until(lambda: all_idle(pool)))), signal.SIGKILL)
        futures = [pool.submit(work.pid) for _ in range(100)]
        assert all(future.result(WAIT) for future in futures)
        until(lambda: len(all_idle(pool)) == 2)


def test_hooks_are_called() -> None:
    said: list[tuple[object, ...]] = []
    with ForkPool(
        1,
        name="crew",
        before_fork=lambda name: said.append(("before", name)),
        worker_ready=lambda pid, name: said.append(("ready", name, pid)),
        worker_exit=lambda pid, name, code: said.append(("exit", name, pid, code)),
        after_fork=_after_fork,
    ) as pool:
        first = pool.submit(work.pid).result(WAIT)
        assert pool.submit(work.variable, "FF_AFTER_FORK").result(WAIT) == str(first)
        pool.submit(work.die, signal.SIGKILL).exception(WAIT)
        second = pool.submit(work.pid).result(WAIT)
    lives = [[each for each in said if each[1] == name] for name in ("crew-1", "crew-2")]
    assert lives[0] == [("before", "crew-1"), ("ready", "crew-1", first), ("exit", "crew-1", first, -9)]
    assert lives[1] == [("before", "crew-2"), ("ready", "crew-2", second), ("exit", "crew-2", second, 0)]
    assert len(said) == 6


def _after_fork() -> None:
    os.environ["FF_AFTER_FORK"] = str(os.getpid())


def test_a_hook_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with ForkPool(1, worker_ready=work.fail) as pool:
        assert pool.submit(work.double, 1).result(WAIT) == 2
    assert "worker_ready" in caplog.text


def test_an_interrupt_is_the_tasks_and_not_the_workers() -> None:
    with ForkPool(1) as pool:
        worker = next(iter(until(lambda: all_idle(pool))))
        os.kill(worker, signal.SIGINT)
        assert pool.submit(work.pid).result(WAIT) == worker
        future = pool.submit(work.sleep, WAIT)
        until(future.running)
        os.kill(worker, signal.SIGINT)
        assert isinstance(future.exception(WAIT), KeyboardInterrupt)
        assert pool.submit(work.pid).result(WAIT) == worker


def test_what_the_owner_ignores_workers_ignore() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ForkPool(1) as pool:
            worker = next(iter(until(lambda: all_idle(pool))))
            future = pool.submit(work.sleep, 0.5)
            until(future.running)
            os.kill(worker, signal.SIGINT)
            assert future.exception(WAIT) is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_shutdown_that_was_interrupted_can_be_had_again() -> None:
    """And waits then: before Python 3.13 a thread whose join was interrupted may count as ended."""
    answer = run_script(
        """
        import json, signal, time
        from frostfork import ForkPool
        from tests.integration import pool_work as work

        def interrupt(number, frame):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        interrupts, pool = 0, ForkPool(2)
        futures = [pool.submit(work.sleep, 0.05) for _ in range(40)]
        for _ in range(10):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            try:
                pool.shutdown()
            except KeyboardInterrupt:
                interrupts += 1
        pool.shutdown()
        print(json.dumps([interrupts, sum(future.done() for future in futures)]))
        """
    )
    assert answer == [10, 40]


def test_an_interrupt_in_the_owner_leaves_the_pool_usable() -> None:
    """Ctrl-C a thousand times, wherever it meets the main thread; each task that was submitted ends."""
    answer = run_script(
        """
        import json, os, signal, threading, time
        from frostfork import ForkPool
        from tests.integration import pool_work as work

        armed = [False]  # no Event: its lock may be held when the handler runs

        def interrupt(number, frame):
            if armed[0]:
                armed[0] = False  # once: none comes while the last one is being handled
                raise KeyboardInterrupt

        def main():
            stop, hits = threading.Event(), 0
            signal.signal(signal.SIGINT, interrupt)
            def shoot():
                while not stop.is_set():
                    time.sleep(0.0007)
                    if armed[0]:
                        os.kill(os.getpid(), signal.SIGINT)
            with ForkPool(2) as pool:
                thread = threading.Thread(target=shoot)
                thread.start()
                futures, end, wrong = [], time.monotonic() + 4, 0
                while time.monotonic() < end:
                    try:
                        armed[0] = True
                        for each in range(1000):
                            future = pool.submit(work.double, each)
                            futures.append((each, future))
                            wrong += future.result(20) != 2 * each
                    except KeyboardInterrupt:
                        hits += 1
                    armed[0] = False
                stop.set()
                thread.join()
                wrong += sum(future.result(20) != 2 * each for each, future in futures)
                end = time.monotonic() + 5
                while time.monotonic() < end and {worker.state for worker in pool.stats().workers} != {"idle"}:
                    time.sleep(0.01)
                idle = sum(worker.state == "idle" for worker in pool.stats().workers)
                print(json.dumps([hits, wrong, idle, len(futures)]))

        main()
        """
    )
    hits, wrong, idle, count = answer
    assert hits > 100 and count > hits / 2 and wrong == 0 and idle == 2


def test_nothing_is_left_of_a_pool_whose_owner_is_killed() -> None:
    left = run_script(
        """
        import json, os, signal, subprocess, sys, time
        script = '''
        import sys
        from frostfork import ForkPool
        from tests.integration import pool_work as work
        pool = ForkPool(2)
        future = pool.submit(work.sleep, 60)
        print(pool.submit(work.pid).result(), pool._zygote.pid, *[w.pid for w in pool.stats().workers], flush=True)
        future.result()
        '''
        import textwrap
        owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
        pids = list(map(int, owner.stdout.readline().split()))
        owner.kill()
        owner.wait()
        def is_alive(pid):
            try:
                with open(f"/proc/{pid}/stat") as file:
                    return file.read().rpartition(")")[2].split()[0] != "Z"
            except OSError:
                return False
        end = time.monotonic() + 20
        while time.monotonic() < end and any(map(is_alive, pids)):
            time.sleep(0.01)
        print(json.dumps([len(pids), sum(map(is_alive, pids))]))
        """
    )
    assert left == [4, 0]


def test_a_full_table_of_descriptors_costs_no_task() -> None:
    """New workers cannot be had for a while; those there do the work, and later there are new ones."""
    import resource

    with ForkPool(2) as pool:
        until(lambda: len(all_idle(pool)) == 2)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        own = psutil.Process().num_fds()
        resource.setrlimit(resource.RLIMIT_NOFILE, (own, hard))
        try:
            os.kill(next(iter(all_idle(pool))), signal.SIGKILL)
            futures = [pool.submit(work.double, each) for each in range(100)]
            assert [future.result(WAIT) for future in futures] == [2 * each for each in range(100)]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        until(lambda: len(all_idle(pool)) == 2)


def test_a_pool_of_a_process_with_threads_starts_afresh() -> None:
    """The zygote is executed; what the program's file does not define goes by value."""
    answer = run_script(
        """
        import json, sys, threading
        from frostfork import ForkPool
        from tests.integration import pool_work as work

        stop = threading.Event()
        threading.Thread(target=stop.wait, daemon=True).start()

        class Here:
            def __init__(self, value):
                self.value = value

        def here(thing):
            return Here(thing.value + 1)

        with ForkPool(2) as pool:
            found = [pool.submit(work.double, 4).result(20)]
            try:
                import cloudpickle
            except ImportError:
                error = pool.submit(here, Here(1)).exception(20)
                found.append(2 if "__main__" in str(error) else str(error))
            else:
                back = pool.submit(here, Here(1)).result(20)
                found.append(back.value if type(back) is Here else str(type(back)))
        print(json.dumps(found))
        """
    )
    assert answer == [8, 2]


def test_a_pool_can_have_a_template_that_learns() -> None:
    _learn()
    gc.collect()  # the template has a file, which goes with it


def _learn() -> None:
    with ForkPool(2, template=LearningTemplate(["json"], canary=None)) as pool:
        assert "json" in pool.submit(work.modules).result(WAIT)
        assert list(pool.map(work.double, range(50))) == [2 * each for each in range(50)]
        pool.refork()
        until(lambda: {each.generation for each in pool.stats().workers} == {2})
        assert pool.submit(work.double, 3).result(WAIT) == 6


def test_a_zygote_can_serve_several_pools() -> None:
    with Zygote() as zygote:
        with ForkPool(1, zygote=zygote) as one, ForkPool(1, zygote=zygote) as two:
            assert one.submit(work.double, 1).result(WAIT) == 2
            assert two.submit(work.double, 2).result(WAIT) == 4
        assert zygote.alive


def test_without_descriptors_a_large_result_is_an_error_of_its_own() -> None:
    import resource

    with ForkPool(1) as pool:
        assert len(pool.submit(work.make_bytes, 1 << 20).result(WAIT)) == 1 << 20
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [os.dup(0) for _ in range(5)]  # so that no number below the limit is free
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held), hard))
        try:
            lost = pool.submit(work.make_bytes, 1 << 20).exception(WAIT)
            unsent = pool.submit(len, bytearray(1 << 20)).exception(WAIT)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in held:
                os.close(each)
        assert isinstance(lost, OSError) and lost.errno == errno.EMFILE
        assert isinstance(unsent, OSError) and unsent.errno == errno.EMFILE
        assert pool.submit(len, bytearray(1 << 20)).result(WAIT) == 1 << 20
        assert pool.stats().died == 0


def test_the_zygote_may_take_long_to_be_replaced() -> None:
    """Workers that die meanwhile are replaced by the old one."""
    with ForkPool(1, template=SlowTemplate()) as pool:
        first = pool.submit(work.pid).result(WAIT)
        pool.refork()
        os.kill(first, signal.SIGKILL)
        assert until(lambda: all_idle(pool)) and pool.submit(work.pid).result(WAIT) != first
        assert pool.stats().generation == 1
        until(lambda: {each.generation for each in pool.stats().workers} == {2})


@pytest.mark.slow
def test_a_zygote_that_is_stopped_is_replaced() -> None:
    with ForkPool(1, ready_timeout=1.0) as pool:
        first = pool.submit(work.pid).result(WAIT)
        zygote = psutil.Process(first).ppid()
        os.kill(zygote, signal.SIGSTOP)
        os.kill(first, signal.SIGKILL)
        last = pool.submit(work.pid).result(WAIT)
        assert last != first
        assert psutil.Process(last).ppid() != zygote
    assert until(lambda: not psutil.pid_exists(zygote))


class SlowTemplate(Template):
    """The second zygote begins slowly."""

    def begin(self) -> None:
        if _worker.identity().generation > 1:
            time.sleep(1)
