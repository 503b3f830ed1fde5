# SPDX-License-Identifier: Apache-2.0
"""Whoever dies, however and when: nothing is left, and the others say what happened."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from frostfork import Zygote, ZygoteError, _core
from tests.integration import zygote_work as work

SECONDS = 30.0


@contextlib.contextmanager
def owner(script: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """An owner of its own: it prints a line of JSON and then waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:  # not waited for yet, so that the group is its own
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def said(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], SECONDS)[0], "the owner says nothing"
    return json.loads(process.stdout.readline())


class Watched:
    """Processes by pidfd: their numbers may be used again."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.fds = {os.pidfd_open(pid): pid for pid in pids}

    def left(self, seconds: float = SECONDS) -> list[int]:
        """Those that have not ended by then; the others are forgotten."""
        end = time.monotonic() + seconds
        while self.fds and (
            ready := select.select(list(self.fds), [], [], max(0.0, end - time.monotonic()))[0]
        ):
            for fd in ready:
                os.close(fd)
                del self.fds[fd]
        return list(self.fds.values())

    def end(self) -> None:
        for fd in self.fds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        self.left()


@pytest.fixture
def watch() -> Iterator[Any]:
    made: list[Watched] = []

    def make(pids: Sequence[int]) -> Watched:
        made.append(Watched(pids))
        return made[-1]

    yield make
    for watched in made:
        watched.end()


FAMILY = """
    import json, os, signal, sys
    import psutil
    from frostfork import Zygote
    from tests.integration import zygote_work as work
    start, on_death, when = sys.argv[1:]
    zygote = Zygote(work.Recorder(), start=start, on_owner_death=on_death).start()
    first = zygote.fork("signal:pause")
    if when == "replaced":
        zygote.replace()
    stuck = zygote.fork("signal:pthread_sigmask", (signal.SIG_BLOCK, range(1, 32)))  # ends
    reader, writer = os.pipe()
    workers = [first, zygote.fork(work.wait_for_end, fds=[reader]), zygote.fork("time:sleep", (600,))]
    stuck.wait(30)
    root = [child.pid for child in psutil.Process().children()]
    zygotes = [child.pid for pid in root for child in psutil.Process(pid).children()]
    print(json.dumps([root, zygotes, [worker.pid for worker in workers]]), flush=True)
    if when == "spinning":
        zygote.call("spin", 60)
    sys.stdin.read()
"""


@pytest.mark.parametrize("when", ["at rest", "replaced", "spinning"])
@pytest.mark.parametrize("start", ["fork", "exec"])
def test_owner_is_killed(watch: Any, start: str, when: str) -> None:
    with owner(FAMILY, start, "kill", when) as process:
        root, zygotes, workers = said(process)
        assert (len(root), len(zygotes)) == (1, 2 if when == "replaced" else 1)
        family = watch([*root, *zygotes, *workers])
        assert family.left(0) == [*root, *zygotes, *workers]
        process.kill()
        assert family.left(5) == []


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_owner_root_and_zygotes_are_killed_together(watch: Any, start: str) -> None:
    with owner(FAMILY, start, "kill", "replaced") as process:
        root, zygotes, workers = said(process)
        family = watch(workers)
        for pid in (*root, *zygotes, process.pid):
            os.kill(pid, signal.SIGKILL)
        assert family.left(5) == []


OTHERS = """
    import json, os, resource, signal, sys, time
    import psutil
    from frostfork import Zygote
    from tests.integration import zygote_work as work
    start, what = sys.argv[1:]
    zygote = Zygote(work.Recorder(), start=start).start()
    if what == "execute":
        worker = zygote.fork("os:execv", ("/bin/sleep", ["sleep", "600"]))
        end = time.monotonic() + 30
        while psutil.Process(worker.pid).name() != "sleep" and time.monotonic() < end:
            time.sleep(0.005)
    else:
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        zygote.call("limit", resource.RLIMIT_NPROC, hard)
        reader, ready = os.pipe()
        worker = zygote.fork(work.announce_and_sleep, fds=[ready])
        os.read(reader, 1)
    root = [child.pid for child in psutil.Process().children()]
    print(json.dumps([[*root, zygote.pid], worker.pid]), flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("start", ["fork", "exec"])
@pytest.mark.parametrize(
    "what",
    [
        "execute",
        pytest.param(
            "be nobody", marks=pytest.mark.skipif(os.getuid() != 0, reason="it cannot become another user")
        ),
    ],
)
def test_a_worker_that_became_something_else_ends_with_the_others(watch: Any, start: str, what: str) -> None:
    with owner(OTHERS, start, what) as process:
        others, worker = said(process)
        left = watch([worker])
        for pid in (*others, process.pid):
            os.kill(pid, signal.SIGKILL)
        assert left.left(5) == []


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_owner_is_killed_and_workers_drain(watch: Any, start: str) -> None:
    with owner(FAMILY, start, "drain", "replaced") as process:
        root, zygotes, workers = said(process)
        rest = watch([*root, *zygotes, workers[0], workers[2]])
        drained = watch([workers[1]])
        process.kill()
        assert drained.left(5) == []  # it sees its own end close
        assert len(rest.left(0.2)) == len(root) + len(zygotes) + 2
        for pid in (workers[0], workers[2]):
            os.kill(pid, signal.SIGTERM)
        assert rest.left(5) == []


def test_a_fork_of_the_owner_does_not_keep_the_others_alive(watch: Any) -> None:
    script = FAMILY.replace(
        "    sys.stdin.read()",
        "    child = os.fork()\n    child and print(child, flush=True)\n    signal.pause()",
    )
    with owner(script, "fork", "kill", "at rest") as process:
        root, zygotes, workers = said(process)
        family = watch([*root, *zygotes, *workers])
        child = watch([said(process)])
        process.kill()
        assert family.left(5) == []
        assert len(child.left(0)) == 1
        child.end()


def begun(zygote: Zygote, count: int) -> list[Any]:
    """Workers whose target runs, and what they wait for to be closed."""
    gate, writer = os.pipe()
    reader, ready = os.pipe()
    workers = zygote.fork_many(count, work.announce_and_wait, fds=[[gate, ready]] * count)
    for _ in workers:
        assert os.read(reader, 1)
    for fd in (gate, reader, ready):
        os.close(fd)
    return [*workers, writer]


@pytest.mark.parametrize("start", ["fork", "exec"])
@pytest.mark.parametrize("root_too", [False, True])
def test_workers_outlive_their_zygote_and_their_end_is_known(start: str, root_too: bool) -> None:
    with Zygote(work.Recorder(), start=start) as zygote:
        (root,) = psutil.Process().children()
        worker, killed, writer = begun(zygote, 2)
        old = zygote.pid
        if root_too:
            root.kill()
        os.kill(old, signal.SIGKILL)
        killed.kill()
        assert worker.poll() is None
        new = zygote.fork(work.code, (3,))
        assert (new.generation, new.wait(SECONDS).code) == (2, 3)
        assert zygote.pid != old
        os.close(writer)
        codes = (worker.wait(SECONDS).code, killed.wait(SECONDS).code)
        known = worker._ended is not None and worker._ended.rusage is not None
        assert known is not root_too
        assert codes == (0, -9) or (root_too and codes == (None, None) and os.uname().release < "6.15")
        assert worker.poll() == worker.wait()


def test_end_of_an_orphan_is_told_by_poll_alone() -> None:
    with Zygote() as zygote:
        worker, writer = begun(zygote, 1)
        os.kill(zygote.pid, signal.SIGKILL)
        assert worker.poll() is None
        os.close(writer)
        assert select.select([worker], [], [], SECONDS)[0] == [worker]
        end = time.monotonic() + SECONDS
        while worker.poll() is None and time.monotonic() < end:
            select.select([], [], [], 0.01)
        assert worker.wait(0).code == 0


@contextlib.contextmanager
def another_thread() -> Iterator[None]:
    before = _core.threads()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        end = time.monotonic() + SECONDS
        while _core.threads() != before and time.monotonic() < end:
            time.sleep(0.001)  # who was joined may not have left the kernel yet


def kill_root(zygote: Zygote) -> None:
    ends = Watched([zygote.pid, *(child.pid for child in psutil.Process().children())])
    ends.end()


def test_a_root_is_not_forked_from_threads_when_it_was_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even if fork was asked for: when it was, there were none."""
    monkeypatch.setattr(work, "mark", 7)
    with Zygote(work.Recorder(), start="fork") as zygote:
        assert zygote.fork(work.tell_mark).wait(SECONDS).code == 7
        kill_root(zygote)
        assert zygote.fork(work.tell_mark).wait(SECONDS).code == 7
        assert not caplog.records
        with another_thread():
            kill_root(zygote)
            assert zygote.fork(work.tell_mark).wait(SECONDS).code == 0
        assert [record.name for record in caplog.records] == ["frostfork.zygote"]
        assert "this process has threads now" in caplog.text


def test_a_root_that_can_only_be_forked_is_not_replaced_under_threads() -> None:
    with Zygote(work.Unpicklable(), start="fork") as zygote:
        with another_thread():
            kill_root(zygote)
            for _ in range(2):
                with pytest.raises(ZygoteError, match="cannot be pickled"):
                    zygote.fork(work.code)
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3


def test_zygote_that_dies_in_the_middle_of_a_call() -> None:
    with Zygote(work.Recorder()) as zygote:
        with pytest.raises(ZygoteError, match="ended before"):
            zygote.call("end_oneself")
        assert zygote.fork(work.code, (4,)).wait(SECONDS).code == 4


@pytest.mark.slow
@pytest.mark.parametrize("start", ["auto", "exec"])
def test_forks_while_zygotes_and_roots_are_killed(start: str) -> None:
    """No worker is lost: each that is said to have ended well has done its work."""
    stop = threading.Event()
    reader, writer = os.pipe()
    began = 0
    with Zygote(work.Recorder(), start=start) as zygote:

        def kill() -> None:
            kills = 0
            while not stop.wait(0.02):
                kills += 1
                with contextlib.suppress(ProcessLookupError, ZygoteError, psutil.NoSuchProcess):
                    os.kill(zygote.pid, signal.SIGKILL)
                    if kills % 4 == 0:
                        for root in psutil.Process().children():
                            root.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            refused = 0
            for _ in range(40):
                try:
                    workers = zygote.fork_many(3, work.write, (b"x",), fds=[[writer]] * 3)
                except ZygoteError as error:
                    assert "ended" in str(error)
                    refused += 1
                    continue
                codes = [worker.wait(SECONDS).code for worker in workers]
                assert set(codes) <= {0, -9}
                began += codes.count(0)
        finally:
            stop.set()
            killer.join()
        os.close(writer)
        parts = []
        while part := os.read(reader, 65536):
            parts.append(part)
        os.close(reader)
        assert began <= len(b"".join(parts))
        assert refused < 40
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3


@pytest.mark.slow
def test_close_while_all_are_stopped(watch: Any) -> None:
    zygote = Zygote().start()
    (root,) = psutil.Process().children()
    workers = zygote.fork_many(20, "signal:pause")
    pids = [zygote.pid, root.pid, *(worker.pid for worker in workers)]
    family = watch(pids)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    zygote.close(timeout=0.5)
    assert time.monotonic() - began < 10
    assert family.left(0) == []


def test_ctrl_c_leaves_an_owner_that_handles_it_everything_it_needs(watch: Any) -> None:
    script = """
        import json, os, select, sys
        from frostfork import Zygote
        from tests.integration import zygote_work as work
        with Zygote(work.Recorder(), start=sys.argv[1]) as zygote:
            reader, writer = os.pipe()
            worker = zygote.fork(work.wait_for_end, fds=[reader])
            try:
                print(json.dumps([zygote.pid]), flush=True)
                while True:  # a signal that Python has noted just before a wait does not end it
                    select.select([], [], [], 0.05)
            except KeyboardInterrupt:
                pass
            code = worker.wait(30).code  # it got the signal, too
            print(json.dumps([code, zygote.pid, zygote.fork(work.code, (3,)).wait(30).code]), flush=True)
    """
    for start in ("fork", "exec"):
        with owner(script, start) as process:
            (pid,) = said(process)
            os.killpg(process.pid, signal.SIGINT)
            assert said(process) == [1, pid, 3]
            assert process.wait(SECONDS) == 0


def test_close_that_was_interrupted_can_be_had_again() -> None:
    script = """
        import json, os, signal, threading
        import psutil
        from frostfork import Zygote
        from tests.integration import zygote_work as work
        zygote = Zygote(work.Recorder(), on_owner_death="drain").start()
        caller = threading.Thread(target=zygote.call, args=("spin", 2.0))
        caller.start()
        interrupts = [threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)) for after in (0.5, 1.0)]
        for each in interrupts:
            each.start()
        interrupted = 0
        for _ in range(3):
            try:
                zygote.close()
                break
            except KeyboardInterrupt:
                interrupted += 1
        for each in interrupts:
            each.join()
        print(json.dumps([interrupted, len(psutil.Process().children(recursive=True))]), flush=True)
    """
    with owner(script) as process:
        assert said(process) == [2, 0]


def test_interrupted_fork_leaves_no_worker(tmp_path: Path) -> None:
    script = """
        import json, os, signal, sys, threading
        from frostfork import Zygote
        from tests.integration import zygote_work as work
        with Zygote(work.Recorder()) as zygote:
            caller = threading.Thread(target=zygote.call, args=("spin", 1.0))
            caller.start()
            while not caller.is_alive():
                pass
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                zygote.fork("signal:pause", name="late", timeout=30)
                print(json.dumps("forked"), flush=True)
            except KeyboardInterrupt:
                caller.join()
                zygote.call("echo", 0)
                while not (seen := [each for each in zygote.call("look") if each[0] == "ended"]):
                    pass
                print(json.dumps(seen[0][3]), flush=True)
    """
    with owner(script) as process:
        assert said(process) == -9
        assert process.wait(SECONDS) == 0


CONTAINER = """
    import json, os, signal, sys
    import psutil
    from frostfork import Zygote, _core
    _core.adopt_orphans()  # as the first process of a container does
    with Zygote(start=sys.argv[1]) as zygote:
        codes = []
        for code in (0, 7, None):
            worker = zygote.fork("time:sleep", (600,)) if code is None else zygote.fork("os:_exit", (code,))
            gone = [psutil.Process(zygote.pid), *psutil.Process().children()]
            os.kill(zygote.pid, signal.SIGSTOP)
            for process in gone[::-1]:
                process.kill()
            if code is None:
                os.kill(worker.pid, signal.SIGTERM)
            codes.append(worker.wait(30).code)
            zygote.fork("os:getpid").wait(30)
    print(json.dumps([codes, [child.status() for child in psutil.Process().children()]]), flush=True)
"""


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_an_owner_that_adopts_orphans_keeps_no_zombies(start: str) -> None:
    with owner(CONTAINER, start) as process:
        codes, left = said(process)
    assert left == []
    assert codes[2] in (-signal.SIGTERM, -signal.SIGKILL)


FORGOTTEN = """
    import json, os, signal, sys, time
    import psutil
    from frostfork import Zygote
    with Zygote(start=sys.argv[1]) as zygote:
        zygote.fork("os:getpid").wait(30)
        before = len(os.listdir("/proc/self/fd"))
        pid = zygote.fork("time:sleep", (600,)).pid  # and the Worker is dropped
        for process in [psutil.Process(zygote.pid), *psutil.Process().children()]:
            process.kill()
        zygote.fork("os:getpid").wait(30)
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 20
        while (now := len(os.listdir("/proc/self/fd"))) > before and time.monotonic() < end:
            time.sleep(0.05)
            zygote.fork("os:getpid").wait(30)
        print(json.dumps([before, now]), flush=True)
"""


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_a_dropped_worker_whose_zygote_and_root_are_gone_leaves_no_descriptor(start: str) -> None:
    with owner(FORGOTTEN, start) as process:
        before, now = said(process)
    assert now == before
