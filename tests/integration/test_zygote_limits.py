# SPDX-License-Identifier: Apache-2.0
"""Many threads, many workers, and what happens where there can be no more of something."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from frostfork import Zygote, ZygoteError
from tests.integration import zygote_work as work

SECONDS = 60.0


@contextmanager
def limited(which: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(which)
    resource.setrlimit(which, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(which, (soft, hard))


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_64_threads_fork_at_once(start: str) -> None:
    with Zygote(work.Recorder(), start=start) as zygote:
        barrier = threading.Barrier(64)
        codes: list[list[int | None]] = []

        def use(number: int) -> None:
            barrier.wait(SECONDS)
            mine = [zygote.fork(work.code, (number,)).wait(SECONDS).code]
            mine.append(zygote.call("echo", number))
            mine += [worker.wait(SECONDS).code for worker in zygote.fork_many(2, work.code, (number,))]
            codes.append(mine)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert sorted(codes) == [[number] * 4 for number in range(64)]


def test_200_workers_and_their_ends() -> None:
    with Zygote(work.Recorder()) as zygote:
        is_open = zygote.call("descriptors_open")
        workers = zygote.fork_many(200, "signal:pause", names=[f"w{number}" for number in range(200)])
        assert len({worker.pid for worker in workers}) == 200
        for worker in reversed(workers):
            worker.terminate()
        assert {worker.wait(SECONDS).code for worker in workers} == {-15}
        assert zygote.call("descriptors_open") == is_open


def test_ends_of_workers_that_nobody_asks_for_do_not_stop_the_zygote() -> None:
    """More of them than fit into a socket."""
    with Zygote(work.Recorder()) as zygote:
        for _ in range(6):
            zygote.fork_many(100, work.code)
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3


def test_no_further_process() -> None:
    with Zygote(work.Recorder()) as zygote:
        zygote.call("limit", resource.RLIMIT_NPROC, 1)
        for fork in (
            lambda: zygote.fork("os:getpid", name="first"),
            lambda: zygote.fork_many(3, "os:getpid", names=["a", "b", "c"]),
        ):
            with pytest.raises(BlockingIOError) as found:
                fork()
            assert found.value.errno == errno.EAGAIN
        told = [each[1] for each in zygote.call("look") if each[0] == "not_forked"]
        assert told == ["first", "a", "b", "c"]
        assert zygote.alive
        assert zygote.replace() == 2
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3


def test_some_of_many_that_cannot_be_forked_take_the_others_along() -> None:
    if os.getuid() != 0:
        pytest.skip("an ordinary user's other processes count, too")
    with Zygote(work.Recorder()) as zygote:
        alone = len([each for each in psutil.process_iter(["uids"]) if each.info["uids"].real == 65534])
        if alone:
            pytest.skip("the user nobody has processes")
        zygote.call("limit", resource.RLIMIT_NPROC, 3)
        with pytest.raises(BlockingIOError):
            zygote.fork_many(10, "signal:pause")
        while len(seen := [each for each in zygote.call("look") if each[0] == "ended"]) < 2:
            pass
        assert {each[3] for each in seen} == {-9}


def test_zygote_may_open_no_more() -> None:
    with Zygote(work.Recorder()) as zygote:
        is_open = zygote.call("descriptors_open")
        assert isinstance(is_open, int)
        null = os.open(os.devnull, os.O_RDWR)
        for spare in range(-1, 6):
            zygote.call("limit", resource.RLIMIT_NOFILE, is_open + spare)
            for fds in ([], [null] * 3):
                try:
                    zygote.fork(work.code, (0,)) if not fds else zygote.fork("os:getpid", fds=fds)
                except OSError as error:
                    assert error.errno == errno.EMFILE
        zygote.call("limit", resource.RLIMIT_NOFILE, 256)
        assert zygote.call("descriptors_open") == is_open
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3
        os.close(null)


def test_descriptors_beyond_a_lowered_limit() -> None:
    """What was opened before the limit was lowered is no reason not to start."""
    high = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 900)
    try:
        with limited(resource.RLIMIT_NOFILE, 512), Zygote(start="fork") as zygote:
            assert zygote.fork(work.code, [4]).wait(SECONDS).code == 4
    finally:
        os.close(high)


def test_owner_may_open_no_more() -> None:
    with Zygote(work.Recorder()) as zygote:
        highest = max(map(int, os.listdir("/proc/self/fd")))
        fillers = [os.open(os.devnull, os.O_RDWR)]
        while fillers[-1] < highest:
            fillers.append(os.dup(fillers[0]))
        refused = 0
        for spare in range(4):
            with limited(resource.RLIMIT_NOFILE, fillers[-1] + 1 + spare):
                try:
                    zygote.fork_many(3, "signal:pause")
                except OSError as error:
                    assert error.errno == errno.EMFILE
                    refused += 1
        for fd in fillers:
            os.close(fd)
        assert refused >= 3  # those that were refused may still be open
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3
        while len(seen := [each for each in zygote.call("look") if each[0] == "ended"]) < 3 * refused + 1:
            pass
        assert {each[3] for each in seen} <= {-9, 3}


def test_long_result_for_an_owner_that_may_open_no_more() -> None:
    with Zygote(work.Recorder()) as zygote:
        value = b"x" * 100_000
        zygote.call("echo", value)  # what it takes is imported
        fillers: list[int] = []
        with limited(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) + 20):
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            with pytest.raises(OSError) as raised:
                zygote.call("repeat", b"x", 100_000)
            for fd in fillers:
                os.close(fd)
        assert raised.value.errno == errno.EMFILE
        assert zygote.call("repeat", b"x", 100_000) == value


def test_nobody_waits_longer_than_asked_for_a_zygote_that_does_not_read() -> None:
    zygote = Zygote(work.Recorder()).start()
    root = zygote._fleet._root.pid
    os.kill(zygote.pid, signal.SIGSTOP)
    began = time.monotonic()
    for _ in range(12):  # more than its socket holds
        with pytest.raises(ZygoteError, match="did not answer in time"):
            zygote.fork(work.length, (b"x" * 40_000,), timeout=0.05)
    zygote.close(0.0)
    assert time.monotonic() - began < 20.0
    assert not psutil.pid_exists(root)


@pytest.mark.slow
def test_replacing_a_zygote_that_does_not_read() -> None:
    with Zygote(work.Recorder()) as zygote:
        worker = zygote.fork("signal:pause")
        stopped = psutil.Process(zygote.pid)
        stopped.suspend()
        for _ in range(12):
            with pytest.raises(ZygoteError, match="did not answer in time"):
                zygote.fork(work.length, (b"x" * 40_000,), timeout=0.05)
        assert zygote.replace() == 2
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3
        stopped.wait(SECONDS)
        assert worker.poll() is None


INTERRUPTED = """
    import random, signal
    from frostfork import Zygote
    from tests.integration import zygote_work as work
    def interrupt(number, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, interrupt)
    random.seed(2)
    with Zygote(work.Recorder()) as zygote:
        done = 0
        for turn in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.004))
                if turn % 20:
                    zygote.fork(work.code, (3,), timeout=20).wait(20)
                else:
                    zygote.replace()
                signal.setitimer(signal.ITIMER_REAL, 0)
                done += 1
            except KeyboardInterrupt:
                pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert zygote.fork(work.code, (3,), timeout=20).wait(20).code == 3
        assert zygote.replace() and 0 < done < 400
"""


def test_interrupts_at_any_moment_leave_a_zygote_usable() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED)], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr


IDLE = """
    import os, sys, time
    import psutil
    from frostfork import Zygote
    from tests.integration import zygote_work as work
    with Zygote(work.Recorder()) as zygote:
        workers = zygote.fork_many(50, "signal:pause")
        me = psutil.Process()
        family = [me, *me.children(), *(each for child in me.children() for each in child.children())]
        zygote.call("echo", 0)
        def used():
            total = 0
            for each in family:
                with open(f"/proc/{each.pid}/schedstat") as file:
                    total += int(file.read().split()[0])
            return total
        before = used()
        time.sleep(2)
        print((used() - before) / 2e9)
"""


def test_idle_it_uses_no_processor() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(IDLE)], capture_output=True, text=True, timeout=60, check=True
    )
    assert float(done.stdout) < 0.001
