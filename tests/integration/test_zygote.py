# SPDX-License-Identifier: Apache-2.0
"""Zygote: workers, their ends, descriptors, the template's hooks."""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
import time
from pathlib import Path

import pytest

import frostfork
from frostfork import ConfigurationError, Worker, Zygote, ZygoteError
from tests.integration import zygote_work as work
from tests.integration.pool_work import until
from tests.integration.zygote_work import SECONDS


def read_all(fd: int) -> bytes:
    parts = []
    while select.select([fd], [], [], SECONDS)[0] and (part := os.read(fd, 65536)):
        parts.append(part)
    os.close(fd)
    return b"".join(parts)


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_code_of_a_worker_is_what_its_target_makes_it(capfd: pytest.CaptureFixture[str], start: str) -> None:
    with Zygote(start=start) as zygote:

        def ended(target: object, *args: object) -> int | None:
            return zygote.fork(target, args).wait(SECONDS).code

        assert ended(work.code) == 0
        assert ended(work.code, 7) == 7
        assert ended(work.code, "text") == 0
        assert ended("tests.integration.zygote_work:code", 9) == 9
        assert ended("os:_exit", 11) == 11
        assert ended(work.leave, None) == 0
        assert ended(work.leave, 3) == 3
        assert ended("os:abort") == -signal.SIGABRT
        capfd.readouterr()
        assert ended(work.leave, "goodbye") == 1
        assert capfd.readouterr().err == "goodbye\n"
        assert ended(work.raise_error) == 1
        assert capfd.readouterr().err.endswith("RuntimeError: the target is broken\n")
        assert ended("no.such:thing") == 1
        assert "ModuleNotFoundError" in capfd.readouterr().err


def test_worker_is_waited_for_as_a_child(zygote: Zygote) -> None:
    reader, writer = os.pipe()
    worker = zygote.fork(work.wait_for_end, fds=[reader], name="waiter")
    os.close(reader)
    assert (worker.name, worker.generation) == ("waiter", 1)
    assert worker.poll() is None
    with pytest.raises(TimeoutError, match="waiter"):
        worker.wait(0.01)
    assert select.select([worker], [], [], 0) == ([], [], [])
    os.close(writer)
    assert select.select([worker], [], [], SECONDS)[0] == [worker]
    ended = worker.wait(SECONDS)
    assert ended.code == 5
    assert ended == worker.wait() == worker.poll()
    assert ended.rusage is not None
    assert ended.rusage.ru_minflt > 0
    worker.kill()  # nothing happens
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_a_template_is_told_of_the_end_of_a_worker_that_it_waited_for_itself(zygote: Zygote) -> None:
    worker = zygote.fork(time.sleep, (0.5,), name="taken")
    assert zygote.call("wait_for_any") == worker.pid
    worker.wait(SECONDS)
    until(lambda: ("ended", "taken", worker.pid, None) in zygote.call("look"))


def test_signals_reach_a_worker_as_soon_as_it_is_there(zygote: Zygote) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL, signal.SIGUSR1):
        workers = zygote.fork_many(5, "signal:pause")
        for worker in workers:
            worker.send_signal(number)
        expected = 1 if number == signal.SIGINT else -number
        assert [worker.wait(SECONDS).code for worker in workers] == [expected] * 5, number


def test_descriptors_travel_and_nothing_else_does(zygote: Zygote) -> None:
    ends = [os.pipe() for _ in range(3)]
    worker = zygote.fork(work.write, (b"hello",), fds=[writer for _, writer in ends])
    for _, writer in ends:
        os.close(writer)
    assert [read_all(reader) for reader, _ in ends] == [b"hello"] * 3
    assert worker.wait(SECONDS).code == 0
    reader, writer = os.pipe()
    zygote.fork(work.open_descriptors, fds=[writer]).wait(SECONDS)
    os.close(writer)
    shown = [line.partition("=")[::2] for line in read_all(reader).decode().splitlines()]
    foreign = [what for fd, what in shown if int(fd) > 2 and what != "/dev/null"]
    assert len([what for what in foreign if what.startswith("pipe:")]) == 2, (
        shown
    )  # its own, and the lifeline
    assert not [what for what in foreign if "socket" in what or "pidfd" in what or "memfd" in what], shown


def test_environment_of_one_worker(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    zygote.fork("os:getpid", env={"FF_NEW": "of another"}).wait(SECONDS)
    reader, writer = os.pipe()
    zygote.fork(work.environment, fds=[writer], env={"FF_NEW": "new", "FF_OLD": None, "PATH": None}).wait(
        SECONDS
    )
    os.close(writer)
    assert read_all(reader) == b"('new', None)"


def test_kept_descriptors_keep_their_numbers() -> None:
    reader, writer = os.pipe()
    for start in ("fork", "exec"):
        with Zygote(work.Recorder(), start=start, keep_fds=[writer]) as zygote:
            zygote.fork("os:write", (writer, b"w")).wait(SECONDS)
            assert os.read(reader, 10) == b"w"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("count", [1, 3, 120])
def test_many_at_once(zygote: Zygote, count: int) -> None:
    ends = [os.pipe() for _ in range(count)]
    workers = zygote.fork_many(
        count,
        work.write,
        [(b"%d" % index,) for index in range(count)],
        fds=[[writer, ends[0][1]] for _, writer in ends],
        names=[f"w{index}" for index in range(count)],
    )
    assert len({worker.pid for worker in workers}) == count
    assert [worker.name for worker in workers] == [f"w{index}" for index in range(count)]
    for _, writer in ends:
        os.close(writer)
    first, *rest = [read_all(reader) for reader, _ in ends]
    assert rest == [b"%d" % index for index in range(1, count)]
    assert b"%d" % (count - 1) in first
    assert [worker.wait(SECONDS).code for worker in workers] == [0] * count


def test_what_is_asked_wrongly(zygote: Zygote) -> None:
    assert zygote.fork_many(0, "os:getpid") == []
    with pytest.raises(ValueError, match="names must have 2 items"):
        zygote.fork_many(2, "os:getpid", names=["one"])
    with pytest.raises(ValueError, match="250 descriptors"):
        zygote.fork("os:getpid", fds=[0] * 251)
    with pytest.raises(OSError, match="Bad file descriptor"):
        zygote.fork("os:getpid", fds=[99999])
    with pytest.raises(ZygoteError, match="cannot be pickled"):
        zygote.fork(lambda: None)
    with pytest.raises(ZygoteError, match="cannot be pickled"):
        zygote.fork("os:getpid", (threading.Lock(),))
    with pytest.raises(ValueError, match="not public"):
        zygote.call("_reap")
    wrong: dict[str, tuple[object, str]] = {
        "name": (5, "name must be of type str"),
        "fds": (5, "fds must be of type Sequence"),
        "timeout": (float("nan"), "timeout is nan; allowed"),
        "env": ({"A": 5}, "strings or None under strings, not 5 under 'A'"),
    }
    for option, (value, said) in wrong.items():
        with pytest.raises((TypeError, ConfigurationError), match=said):
            zygote.fork("os:getpid", **{option: value})
    with pytest.raises(ValueError, match="cannot be an environment variable"):
        zygote.fork("os:getpid", env={"A=B": "C"})
    with pytest.raises(ConfigurationError, match="count is -1"):
        zygote.fork_many(-1, "os:getpid")
    with pytest.raises(ConfigurationError, match="timeout is -1"):
        zygote.replace(-1)
    assert zygote.fork(work.code, [4]).wait(SECONDS).code == 4
    with pytest.raises(ConfigurationError, match="start must be one of auto, fork, exec"):
        Zygote(start="spawn")
    with pytest.raises(ConfigurationError, match="on_owner_death"):
        Zygote(on_owner_death="leave")
    with pytest.raises(TypeError, match="Template"):
        Zygote(object())
    with pytest.raises(ZygoteError, match="not been started"):
        Zygote().fork("os:getpid")


def test_large_messages_in_both_directions(zygote: Zygote) -> None:
    big = b"x" * (20 << 20)
    assert zygote.fork(work.length, (big,)).wait(SECONDS).code == 20
    assert [worker.wait(SECONDS).code for worker in zygote.fork_many(3, work.length, (big,))] == [20] * 3
    assert zygote.call("echo", big) == big
    assert zygote.call("echo", b"y" * 100_000) == b"y" * 100_000


def test_a_call_waits_no_longer_than_it_is_told(zygote: Zygote) -> None:
    before = time.monotonic()
    with pytest.raises(ZygoteError, match=r"did not answer spin\(\) within 0.1 s"):
        zygote.call("spin", 1.0, timeout=0.1)
    assert time.monotonic() - before < 0.9
    assert zygote.call("echo", 5, timeout=SECONDS) == 5  # and not what spin() returned later


def test_calls_and_their_exceptions(zygote: Zygote) -> None:
    assert zygote.call("echo", [1, "two"]) == [1, "two"]
    with pytest.raises(
        ZygoteError, match=r"fail_now\(\) failed in the zygote: LookupError: nothing there"
    ) as found:
        zygote.call("fail_now")
    assert "zygote_work.py" in str(found.value.__cause__)
    for method in ("no_such_method", "unpicklable"):
        with pytest.raises(ZygoteError, match=f"{method}|pickle"):
            zygote.call(method)
    assert zygote.call("run_program") == 7
    assert str(pickle.loads(pickle.dumps(found.value))) == str(found.value)


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_hooks_of_the_template(capfd: pytest.CaptureFixture[str], start: str) -> None:
    with Zygote(work.Recorder(), start=start) as zygote:
        codes = {}
        for name in ("first", "unlucky", "refused", "badly"):
            worker = zygote.fork(work.code, (3,), name=name)
            codes[name] = worker.wait(SECONDS).code
        assert codes == {"first": 3, "unlucky": 3, "refused": 1, "badly": 3}
        seen = zygote.call("look")
        assert isinstance(seen, list)
        assert seen[0] == ("begin", zygote.pid, 1)
        assert [name for what, name, *_ in seen if what == "before_fork"] == list(codes)
        assert not [each for each in seen if each[0] == "in_worker"]  # that is in the worker
        while len([each for each in seen if each[0] == "ended"]) < 4:
            seen = zygote.call("look")
        assert {each[1]: each[3] for each in seen if each[0] == "ended"} == codes
        said = capfd.readouterr().err
        assert all(f"{hook} is broken" in said for hook in ("before_fork", "in_worker", "ended"))


def test_template_gives_a_worker_a_descriptor_of_its_own() -> None:
    with Zygote(work.Notes()) as zygote:
        workers = zygote.fork_many(2, work.code, (3,), names=["a", "b"])
        for worker in workers:
            worker.wait(SECONDS)
        for name in ("a", "b"):
            while not (notes := zygote.call("read", name))[1]:
                pass
            assert notes == (f"{name} was here".encode(), b"3")


def test_idle_template_is_called_when_it_wants_and_after_something_happened() -> None:
    with Zygote(work.Notes()) as zygote:
        first = zygote.call("count")
        time.sleep(1)  # nothing may happen meanwhile
        then = zygote.call("count")
        assert isinstance(first, int)
        assert isinstance(then, int)
        assert then % 5 == 0
        assert 0 < then - first <= 6
        while zygote.call("count") == then:
            pass


def test_status_is_reported_while_the_template_works(zygote: Zygote) -> None:
    reader, writer = os.pipe()
    worker = zygote.fork(work.wait_for_end, fds=[reader])
    os.close(reader)
    caller = threading.Thread(target=zygote.call, args=("spin", 3.0))
    caller.start()
    os.close(writer)
    assert worker.wait(2.5).code == 5
    assert caller.is_alive()
    caller.join(SECONDS)


def test_long_names_and_large_environments(zygote: Zygote) -> None:
    names = [f"{number:04}" + "\U0001f40d" * 900 for number in range(60)]
    workers = zygote.fork_many(60, work.code, (3,), names=names, env={"FF_LONG": "x" * 100_000})
    assert [worker.name for worker in workers] == names
    assert {worker.wait(SECONDS).code for worker in workers} == {3}


def test_exit_functions_and_threads_of_a_worker_run(zygote: Zygote, tmp_path: Path) -> None:
    path = tmp_path / "touched"
    assert zygote.fork(work.touch_at_exit, (str(path),)).wait(SECONDS).code == 0
    assert sorted(os.listdir(tmp_path)) == ["touched", "touched.thread"]


def test_start_chooses_by_threads() -> None:
    threads = frostfork._core.threads()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with pytest.raises(ZygoteError, match="cannot be pickled"):
        Zygote(work.Unpicklable()).start()
    stop.set()
    thread.join()
    if threads == 1:
        Zygote(work.Unpicklable()).start().close()


def test_thread_that_started_it_may_end() -> None:
    started: list[Zygote] = []
    thread = threading.Thread(target=lambda: started.append(Zygote(work.Recorder()).start()))
    thread.start()
    thread.join(SECONDS)
    with started[0] as zygote:
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3
        thread = threading.Thread(target=zygote.replace)
        thread.start()
        thread.join(SECONDS)
        assert zygote.fork(work.code, (4,)).wait(SECONDS).code == 4


def test_a_worker_is_shown_as_what_it_is(zygote: Zygote) -> None:
    worker: Worker = zygote.fork("signal:pause", name="parser")
    assert repr(worker) == f"<Worker 'parser' pid={worker.pid} generation=1 running>"
    worker.kill()
    worker.wait(SECONDS)
    assert repr(worker).endswith("ended: -9>")


def test_names_that_are_no_text_harm_nobody() -> None:
    name = os.fsdecode(b"caf\xe9")
    with Zygote(work.Recorder(), name=name) as zygote:
        assert zygote.fork(work.code, (3,), name=name).wait(SECONDS).code == 3
        with pytest.raises(ZygoteError, match="failed in the zygote: AttributeError"):
            zygote.call(name)
        assert zygote.alive and zygote.generation == 1
