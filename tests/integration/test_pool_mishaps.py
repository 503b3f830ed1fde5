# SPDX-License-Identifier: Apache-2.0
"""Tasks, callbacks and owners that do what they should not: none of it costs another task."""

from __future__ import annotations

import gc
import logging
import os
import pty
import random
import re
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from frostfork import ConfigurationError, ForkPool, PoolBroken, RecyclePolicy, TaskTimeout, Zygote
from frostfork.errors import RemoteError
from tests.integration import pool_work as work
from tests.integration.pool_work import WAIT, until


@pytest.fixture
def pool() -> Iterator[ForkPool]:
    with ForkPool(2) as made:
        yield made


def works(pool: ForkPool) -> bool:
    return [future.result(WAIT) for future in [pool.submit(work.double, each) for each in range(50)]] == [
        2 * each for each in range(50)
    ]


def test_an_exception_that_refuses_attributes_arrives(pool: ForkPool) -> None:
    futures = [pool.submit(work.raise_frozen), *(pool.submit(work.double, each) for each in range(5))]
    error = futures[0].exception(WAIT)
    assert isinstance(error, work.Frozen) and "raise_frozen" in str(error.__cause__)
    assert [future.result(WAIT) for future in futures[1:]] == [0, 2, 4, 6, 8]


def test_what_exits_while_it_is_unpickled_fails_its_own_task(pool: ForkPool) -> None:
    assert isinstance(pool.submit(work.give_exit).exception(WAIT), SystemExit)
    assert isinstance(pool.submit(work.raise_exit_when_read).exception(WAIT), RemoteError)
    assert works(pool)


def test_a_callback_that_exits_ends_no_thread(pool: ForkPool, caplog: pytest.LogCaptureFixture) -> None:
    def leave(_: object) -> None:
        raise SystemExit(3)

    with caplog.at_level(logging.CRITICAL):
        future = pool.submit(work.sleep, 0.05)
        future.add_done_callback(leave)
        assert future.result(WAIT) == 0.05
        assert works(pool)


def test_a_task_that_returns_in_a_fork_of_its_worker_returns_once(
    pool: ForkPool, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pool.submit(work.return_twice).result(WAIT) == "parent"
    assert works(pool)
    assert "in a fork of its worker" in capfd.readouterr().err


def test_results_for_a_pool_that_gave_up_are_let_go(tmp_path: Path) -> None:
    """The initializer fails in the second worker only: what the first still does is for nobody."""
    before = len(os.listdir("/proc/self/fd"))
    pool = ForkPool(2, initializer=work.only_once, initargs=(str(tmp_path / "once"),))
    try:
        futures = [pool.submit(bytes, 1 << 20) for _ in range(50)]
        ends = [future.exception(WAIT) for future in futures]
        assert any(isinstance(end, PoolBroken) for end in ends)
        assert all(end is None or isinstance(end, PoolBroken) for end in ends)
    except PoolBroken:
        pass  # it broke before all were submitted
    finally:
        pool.shutdown()
    futures = ends = []
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_interrupt_in_the_initializer_does_not_break_the_pool(tmp_path: Path) -> None:
    with ForkPool(1, initializer=work.wait_at_first, initargs=(str(tmp_path / "first"),)) as pool:
        pid = int(work.until(lambda: work.content(tmp_path / "first")))
        os.kill(pid, signal.SIGINT)
        assert works(pool) and pool.stats().started == 2


def test_an_iterator_of_map_may_be_collected_at_any_moment(pool: ForkPool) -> None:
    """Also while the thread in which garbage is collected holds the pool's lock: it cancels what is left then."""
    results = pool.map(work.sleep, [0.0, *[0.2] * 20])
    assert next(results) == 0.0

    def collect() -> None:
        with pool._engine.lock:
            results.close()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert work.until(lambda: pool.stats().cancelled >= 16) and works(pool)


def test_a_time_limit_holds_no_result() -> None:
    with ForkPool(1, timeout=60) as pool:
        future = pool.submit(bytes, 100)
        assert future.result(WAIT) == bytes(100)
        watched = weakref.ref(future)
        del future
        assert work.until(lambda: gc.collect() >= 0 and watched() is None)


def test_hard_timeouts_of_many_tasks() -> None:
    with ForkPool(2) as pool:
        short, long = pool.with_options(hard_timeout=0.2), pool.with_options(hard_timeout=60)
        futures = [
            (each, (short if each else long).submit(work.sleep, 60 if each else 0.3)) for each in [0, 1] * 4
        ]
        for each, future in futures:
            assert isinstance(future.exception(WAIT), TaskTimeout if each else type(None))


def test_a_standard_error_that_nobody_reads_holds_up_the_writer_only() -> None:
    script = """
    import os
    from frostfork import ForkPool
    from tests.integration import pool_work as work
    with ForkPool(2) as pool:
        noisy = pool.submit(work.shout, 1 << 20)
        done = [future.result(30) for future in [pool.submit(work.double, each) for each in range(200)]]
        print(done[-1], noisy.done(), flush=True)
        assert input() == "read it"
        print(noisy.result(30), flush=True)
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdin is not None and owner.stdout is not None
        assert select.select([owner.stdout], [], [], WAIT)[0]
        assert owner.stdout.readline() == "398 False\n"
        out, err = owner.communicate("read it\n", timeout=WAIT)
    finally:
        owner.kill()
        owner.wait()
    assert owner.returncode == 0 and out == f"{1 << 20}\n" and err.count("!") == 1 << 20


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_ctrl_c_in_a_terminal_ends_owner_and_pool(tmp_path: Path, start: str) -> None:
    """The kernel sends SIGINT to all of them: tasks and owner are interrupted, zygote and root are not."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os
            from frostfork import ForkPool
            from tests.integration import pool_work as work
            if __name__ == "__main__":
                with ForkPool(2, start={start!r}) as pool:
                    futures = [pool.submit(work.sleep, 600) for _ in range(2)]
                    work.until(lambda: all(future.running() for future in futures))
                    family = [os.getpid(), pool._zygote.pid, *(worker.pid for worker in pool.stats().workers)]
                    try:
                        print("pids", *family, flush=True)
                        futures[0].result()
                    except KeyboardInterrupt:
                        print("owner interrupted", flush=True)
                    print([type(future.exception(30)).__name__ for future in futures], flush=True)
                    print("then", pool.submit(work.double, 4).result(30), flush=True)
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, str(script)], environment)
    said = b""
    try:
        said = read_until(terminal, b"pids", b"\n")
        family = list(map(int, re.findall(rb"\d+", said[said.index(b"pids") :])))
        os.write(terminal, b"\x03")
        said += read_until(terminal, b"then", b"\n")
    finally:
        pidfd = os.pidfd_open(pid)
        if not select.select([pidfd], [], [], WAIT)[0]:
            os.kill(pid, signal.SIGKILL)
        os.close(pidfd)
        status = os.waitpid(pid, 0)[1]
        os.close(terminal)
    text = said.decode()
    assert "owner interrupted" in text and "then 8" in text, text
    assert "['KeyboardInterrupt', 'KeyboardInterrupt']" in text, text
    assert os.waitstatus_to_exitcode(status) == 0 and len(family) == 4
    assert work.until(lambda: not any(os.path.exists(f"/proc/{each}") for each in family))


def read_until(fd: int, *marks: bytes) -> bytes:
    """All that comes, up to these marks in this order."""
    said, end = b"", time.monotonic() + WAIT
    while True:
        at = 0
        for mark in marks:
            at = said.find(mark, at) + 1
            if not at:
                break
        else:
            return said
        left = end - time.monotonic()
        assert left > 0 and select.select([fd], [], [], left)[0], said
        try:
            said += os.read(fd, 65536)
        except OSError:  # the other side of the terminal is closed
            raise AssertionError(said) from None


MAIN = """
import sys
from frostfork import ForkPool

def early(x):
    return 2 * x

def main(start):
    with ForkPool(2, start=start) as pool:
        print(list(pool.map(early, range(3))))
        global late
        exec("def late(x): return 3 * x", globals())
        try:
            print(list(pool.map(late, range(3))))
        except Exception as error:
            print(type(error).__name__, error)

if __name__ == "__main__":
    main(sys.argv[1])
"""


@pytest.mark.parametrize("start", ["fork", "exec"])
@pytest.mark.parametrize("how", ["file", "module", "stdin", "command"])
@pytest.mark.parametrize("cloudpickle", [True, False])
def test_functions_of_the_main_module(tmp_path: Path, start: str, how: str, cloudpickle: bool) -> None:
    if cloudpickle:
        pytest.importorskip("cloudpickle")
    else:
        (tmp_path / "cloudpickle.py").write_text("raise ImportError('not for this test')\n")
    (tmp_path / "program.py").write_text(MAIN)
    arguments = {
        "file": ["program.py"],
        "module": ["-m", "program"],
        "stdin": ["-"],
        "command": ["-c", MAIN],
    }[how]
    ran = subprocess.run(
        [sys.executable, *arguments, start],
        input=MAIN if how == "stdin" else "",
        capture_output=True,
        text=True,
        timeout=WAIT,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    by_value = start == "exec" and how in ("stdin", "command")  # nothing of it can be imported
    if by_value and not cloudpickle:
        assert ran.returncode == 1 and "workers do not know early of __main__" in ran.stderr
        return
    assert ran.returncode == 0, ran.stderr
    first, *second = ran.stdout.splitlines()
    assert first == "[0, 2, 4]"
    if cloudpickle:
        assert second == ["[0, 3, 6]"]
    else:
        assert (
            second[0].startswith("PicklingError workers do not know late of __main__: ") and len(second) == 1
        )


def test_a_main_module_that_makes_a_pool_when_imported_is_told(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("from frostfork import ForkPool\nForkPool(1, start='exec')\n")
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, timeout=WAIT
    )
    assert ran.returncode == 1
    assert 'if __name__ == "__main__":' in ran.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_workers": "2"}, "max_workers must be a whole number, not '2'"),
        ({"max_workers": 2.5}, "max_workers must be a whole number, not 2.5"),
        ({"max_workers": 0}, "max_workers must be greater than 0"),
        ({"initializer": 3}, "initializer must be a callable"),
        ({"initargs": 5}, "initargs must be a tuple, not 5"),
        ({"recycle": None}, "recycle must be of type RecyclePolicy, not None"),
        ({"timeout": "1"}, "timeout is '1'; allowed are None and seconds above 0"),
        ({"retries": 1.5}, "retries is 1.5; allowed are whole numbers from 0"),
        ({"refork_after": 0}, "refork_after is 0; allowed are None and whole numbers from 1"),
        ({"max_unavailable": 0}, "max_unavailable is 0; allowed are whole numbers from 1"),
        (
            {"max_unavailable": 2},
            "max_unavailable is 2; allowed are whole numbers from 1 to max_workers, 1",
        ),
        ({"ready_timeout": -1}, "ready_timeout is -1; allowed are seconds above 0"),
        ({"heartbeat": 0}, "heartbeat is 0; allowed are seconds above 0"),
        ({"zygote": 3}, "zygote must be of type Zygote or None, not 3"),
        ({"template": 3}, "template must be of type Template or None, not 3"),
        ({"start": "spawn"}, "start must be one of auto, fork, exec, not 'spawn'"),
        ({"name": 3}, "name must be of type str, not 3"),
        ({"worker_exit": 3}, "worker_exit must be a callable or None, not 3"),
        ({"zygote": Zygote(), "start": "exec"}, "template and start are for the pool's own zygote"),
    ],
)
def test_wrong_settings_are_told_before_anything_starts(wrong: dict[str, object], said: str) -> None:
    with pytest.raises((TypeError, ValueError, ConfigurationError), match=f"^{re.escape(said)}"):
        ForkPool(**{"max_workers": 1, **wrong})


@pytest.mark.parametrize(
    "wrong", [{"max_tasks": 1.5}, {"max_age": "1"}, {"jitter": "a"}, {"max_private_bytes": 0}]
)
def test_wrong_limits_are_told(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=f"^{next(iter(wrong))} is "):
        RecyclePolicy(**wrong)


def test_a_zygote_that_is_given_is_started() -> None:
    zygote = Zygote()
    try:
        with ForkPool(1, zygote=zygote) as pool:
            assert works(pool)
        assert zygote.alive
    finally:
        zygote.close()


def test_a_module_that_makes_a_pool_while_it_is_imported_is_told(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        "from frostfork import ForkPool\n"
        "def early(): return 1\n"
        "pool = ForkPool(1, start='fork')\n"
        "def late(*args): return 2\n"
    )
    program = """
    import half
    print(half.pool.submit(half.early).result())
    for error in (half.pool.submit(half.late).exception(), half.pool.submit(max, 1, key=half.late).exception()):
        print(type(error).__name__, str(error).partition(": ")[2])
    half.pool.shutdown()
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=WAIT, cwd=tmp_path, check=False,
    )  # fmt: skip
    first, *others = ran.stdout.splitlines()
    assert first == "1" and len(others) == 2, ran.stderr
    assert all(
        each.startswith("AttributeError half was being imported when the pool was made") for each in others
    )


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_development_mode_has_nothing_to_say(tmp_path: Path, start: str) -> None:
    file = tmp_path / "program.py"
    file.write_text(
        textwrap.dedent(
            """
            import gc, sys
            from frostfork import ForkPool

            def collect():
                return gc.collect() and 0

            if __name__ == "__main__":
                with ForkPool(2, start=sys.argv[1]) as pool:
                    assert list(pool.map(abs, range(100))) == list(range(100))
                    assert pool.submit(collect).result(20) == 0
            """
        )
    )
    with open(tmp_path / "said", "w+b") as said:
        command = [sys.executable, "-X", "dev", str(file), start]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=60, check=True)
        said.seek(0)
        assert said.read().decode() == ""


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_a_pool_that_is_ended_at_once_leaves_no_task_waiting(how: str) -> None:
    with ForkPool(2, retries=3) as pool:
        begun = [pool.submit(work.sleep, 60) for _ in range(2)]
        queued = [pool.submit(abs, -1) for _ in range(50)]
        large = pool.submit(len, bytes(1 << 20))
        work.until(lambda: all(future.running() for future in begun))
        pids = [os.pidfd_open(worker.pid) for worker in pool.stats().workers]
        getattr(pool, how)()
        for future in begun:  # in spite of retries: it is the pool that ends
            with pytest.raises(PoolBroken, match=how):
                future.result(WAIT)
        assert all(future.cancelled() for future in queued)
        assert large.cancelled() or isinstance(large.exception(WAIT), PoolBroken)
        with pytest.raises(PoolBroken, match=how):
            pool.submit(abs, 1)
        for pidfd in pids:
            assert select.select([pidfd], [], [], WAIT)[0], "a worker goes on"
            os.close(pidfd)
        getattr(pool, how)()
    assert pool.stats().workers == ()


def test_what_is_cancelled_is_not_run_and_what_is_run_is_not_cancelled(
    pool: ForkPool, tmp_path: Path
) -> None:
    """Two threads cancel tasks at any moment of their ends, with two threads of the pool's beside them."""
    marks = tmp_path / "marks"
    marks.touch()
    cancelled: list[int] = []
    numbers = iter(range(10**9))
    end = time.monotonic() + 2

    def submit_and_cancel(seed: int) -> None:
        moments = random.Random(seed)
        while time.monotonic() < end:
            number = next(numbers)
            future = pool.submit(work.mark, str(marks), number)
            if moments.random() < 0.5:
                future.add_done_callback(
                    lambda _: None
                )  # it has a condition, and its result comes another way
            for _ in range(moments.randrange(400)):
                pass
            if future.cancel():
                cancelled.append(number)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=submit_and_cancel, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    stats = until(lambda: (now := pool.stats()).queued + now.running == 0 and now)
    assert stats.submitted == stats.done + stats.failed + stats.cancelled
    ran = marks.read_bytes()
    assert [number for number in cancelled if ran[number : number + 1] == b"x"] == []
