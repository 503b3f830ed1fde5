# SPDX-License-Identifier: Apache-2.0
"""Zygote: workers, their ends, descriptors, the template's hooks, replacement."""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import frostfork
from frostfork import ConfigurationError, Worker, Zygote, ZygoteError
from tests.conftest import open_descriptors
from tests.integration import zygote_work as work

SECONDS = 30.0


@pytest.fixture(params=["fork", "exec"])
def zygote(request: pytest.FixtureRequest) -> Iterator[Zygote]:
    with Zygote(work.Recorder(), start=request.param) as started:
        yield started


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
            return zygote.fork(target, args).wait(SECONDS).code  # type: ignore[arg-type]

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
            zygote.fork("os:getpid", **{option: value})  # type: ignore[arg-type]
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
        Zygote(object())  # type: ignore[arg-type]
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
            seen = zygote.call("look")  # type: ignore[assignment]
        assert {each[1]: each[3] for each in seen if each[0] == "ended"} == codes
        said = capfd.readouterr().err
        assert all(f"{hook} is broken" in said for hook in ("before_fork", "in_worker", "ended"))


def test_template_gives_a_worker_a_descriptor_of_its_own() -> None:
    with Zygote(work.Notes()) as zygote:
        workers = zygote.fork_many(2, work.code, (3,), names=["a", "b"])
        for worker in workers:
            worker.wait(SECONDS)
        for name in ("a", "b"):
            while not (notes := zygote.call("read", name))[1]:  # type: ignore[index]
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


def test_replacement_begins_anew_and_the_old_zygote_goes_with_its_workers(zygote: Zygote) -> None:
    old = os.pidfd_open(zygote.pid)
    first = zygote.fork("signal:pause")
    zygote.call("echo", 0)
    assert zygote.replace() == zygote.generation == 2
    second = zygote.fork("signal:pause")
    assert (first.generation, second.generation) == (1, 2)
    seen = zygote.call("look")
    assert seen == [("begin", zygote.pid, 1), ("before_fork", "")]
    assert select.select([old], [], [], 0.05)[0] == []
    first.kill()
    assert first.wait(SECONDS).code == -9
    assert select.select([old], [], [], SECONDS)[0] == [old]
    os.close(old)
    assert second.poll() is None


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("raise", "the preload is broken"),
        ("explain", "the preload is broken\nfor more"),
        ("exit", "the template left"),
        ("die", "ended before it was ready"),
    ],
)
@pytest.mark.parametrize("start", ["fork", "exec"])
def test_start_that_fails_leaves_nothing(start: str, fail: str, said: str) -> None:
    zygote = Zygote(work.Recorder(fail), start=start)
    with pytest.raises(ZygoteError, match=said):
        zygote.start()
    with pytest.raises(ZygoteError):
        zygote.fork("os:getpid")
    zygote.close()


def test_start_that_takes_too_long() -> None:
    with pytest.raises(ZygoteError, match="not ready in time"):
        Zygote(work.Recorder("hang"), ready_timeout=0.5).start()


class FailsLater(work.Recorder):
    """Begins well as long as a file is not there."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def begin(self) -> None:
        self.fail = Path(self.path).read_text() if os.path.exists(self.path) else ""
        super().begin()


@pytest.mark.parametrize("fail", ["raise", "exit", "die", "hang"])
def test_replacement_that_fails_leaves_the_old_zygote_in_charge(tmp_path: Path, fail: str) -> None:
    path = tmp_path / "fail"
    with Zygote(FailsLater(str(path))) as zygote:
        worker = zygote.fork("signal:pause")
        pid = zygote.pid
        path.write_text(fail)
        with pytest.raises(ZygoteError):
            zygote.replace(timeout=0.5 if fail == "hang" else None)
        assert (zygote.pid, zygote.generation, zygote.alive) == (pid, 1, True)
        assert worker.poll() is None
        assert zygote.fork(work.code, (6,)).wait(SECONDS).code == 6
        path.unlink()
        assert zygote.replace() == 2
        assert zygote.fork(work.code, (7,)).wait(SECONDS).code == 7


def test_nothing_is_kept_of_a_zygote_that_was_replaced(zygote: Zygote) -> None:
    before = len(open_descriptors())
    worker = zygote.fork("signal:pause")
    zygote.replace()
    worker.kill()
    worker.wait(SECONDS)
    del worker
    end = time.monotonic() + SECONDS
    while zygote.alive and len(open_descriptors()) > before and time.monotonic() < end:
        time.sleep(0.005)
    assert len(open_descriptors()) == before


def test_forks_go_on_while_a_replacement_begins(tmp_path: Path) -> None:
    path = tmp_path / "fail"
    with Zygote(FailsLater(str(path))) as zygote:
        path.write_text("hang")
        failures: list[ZygoteError] = []

        def replace() -> None:
            try:
                zygote.replace(timeout=1.5)
            except ZygoteError as error:
                failures.append(error)

        thread = threading.Thread(target=replace)
        thread.start()
        assert zygote.fork(work.code, (6,)).wait(SECONDS).code == 6
        assert thread.is_alive()
        thread.join(SECONDS)
        assert len(failures) == 1


def test_close_does_not_wait_for_a_replacement_that_hangs(tmp_path: Path) -> None:
    path = tmp_path / "fail"
    zygote = Zygote(FailsLater(str(path))).start()
    path.write_text("hang")
    failures: list[BaseException] = []

    def replace() -> None:
        try:
            zygote.replace()
        except ZygoteError as error:
            failures.append(error)

    thread = threading.Thread(target=replace)
    thread.start()
    (root,) = psutil.Process().children()
    while len(root.children()) < 2:
        assert thread.is_alive()
    began = time.monotonic()
    zygote.close()
    assert time.monotonic() - began < 20
    thread.join(SECONDS)
    assert len(failures) == 1


def test_long_names_and_large_environments(zygote: Zygote) -> None:
    names = [f"{number:04}" + "\U0001f40d" * 900 for number in range(60)]
    workers = zygote.fork_many(60, work.code, (3,), names=names, env={"FF_LONG": "x" * 100_000})
    assert [worker.name for worker in workers] == names
    assert {worker.wait(SECONDS).code for worker in workers} == {3}


def test_close_ends_what_runs_and_tells_how() -> None:
    zygote = Zygote().start()
    worker = zygote.fork("signal:pause")
    zygote.close()
    zygote.close()
    assert worker.wait(0).code == -9
    assert not zygote.alive
    for call in (zygote.start, zygote.replace, lambda: zygote.fork("os:getpid"), lambda: zygote.pid):
        with pytest.raises(ZygoteError, match="closed"):
            call()  # type: ignore[operator]


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_a_zygote_that_is_closed_leaves_no_folder_and_loses_no_text(tmp_path: Path, start: str) -> None:
    with Zygote(work.Holder(str(tmp_path)), start=start) as zygote:
        assert zygote.fork("os:getpid").wait(SECONDS).code is not None
        assert len(list(tmp_path.iterdir())) == 2
        zygote.replace()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("unwritten", "written once")]


def test_a_finalizer_that_hangs_is_not_waited_for_long(tmp_path: Path) -> None:
    zygote = Zygote(work.Holder(str(tmp_path), hang=True)).start()
    pid, start = zygote.pid, time.monotonic()
    zygote.close(0.0)
    assert time.monotonic() - start < 5 and not psutil.pid_exists(pid)


def test_close_drains_as_long_as_it_may() -> None:
    for patience, expected in ((SECONDS, 5), (0.2, -9)):
        zygote = Zygote().start()
        reader, writer = os.pipe()
        worker = zygote.fork(work.wait_for_end, fds=[reader])
        os.close(reader)
        timer = threading.Timer(0.5 if expected == 5 else 1.5, os.close, [writer])
        timer.start()
        zygote.close(patience, drain=True)
        assert worker.wait(0).code == expected
        timer.join()


def test_a_fork_of_the_owner_cannot_use_it() -> None:
    from tests.integration.forking import run_child

    with Zygote() as zygote:
        worker = zygote.fork("signal:pause")

        def body() -> list[str]:
            said = []
            for use in (
                lambda: zygote.fork("os:getpid"),
                lambda: zygote.call("echo"),
                lambda: zygote.pid,
                lambda: zygote.alive,
                zygote.replace,
                zygote.close,
                zygote.start,
                lambda: worker.wait(1),
                worker.kill,
            ):
                try:
                    use()
                    said.append("nothing")
                except ZygoteError as error:
                    said.append(str(error))
            with Zygote() as own:
                said.append(str(own.fork(work.code, (3,)).wait(SECONDS).code))
            return said

        *said, code = run_child(body, os.fork)
        assert all(str(os.getpid()) in each for each in said), said
        assert code == "3"
        assert worker.poll() is None
        assert zygote.fork(work.code, (3,)).wait(SECONDS).code == 3


def test_dropped_without_close_it_warns_and_ends() -> None:
    zygote = Zygote().start()
    worker = zygote.fork("signal:pause")
    with pytest.warns(ResourceWarning, match="unclosed <Zygote"):
        del zygote
        gc.collect()
    assert worker.wait(SECONDS).code == -9


def run_program(text: str, tmp_path: Path, *, module: bool = False) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    command = ["-m", "program"] if module else [str(path)]
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip


PROGRAM = """
    import os, sys
    from frostfork import Zygote
    print("main", __name__, flush=True)

    def target(number):
        print("target in", __name__, sys.argv[0] == {argv!r}, flush=True)
        return number

    if __name__ == "__main__":
        with Zygote(start={start!r}) as zygote:
            print(zygote.fork(target, (8,)).wait(30).code, flush=True)
            print(zygote.replace(), zygote.fork(target, (9,)).wait(30).code)
"""


@pytest.mark.parametrize("module", [False, True])
@pytest.mark.parametrize("start", ["fork", "exec"])
def test_target_from_the_main_module(tmp_path: Path, start: str, module: bool) -> None:
    done = run_program(
        PROGRAM.format(start=start, argv=str(tmp_path / "program.py")), tmp_path, module=module
    )
    assert done.stderr == ""
    name, main = ("__main__", "") if start == "fork" else ("__mp_main__", "main __mp_main__\n")
    expected = f"main __main__\n{main}target in {name} True\n8\n{main}target in {name} True\n2 9\n"
    assert done.stdout == expected


def test_interpreter_that_ends_with_workers_alive(tmp_path: Path) -> None:
    done = run_program(
        """
        from frostfork import Zygote
        zygote = Zygote().start()
        worker = zygote.fork("signal:pause")
        print(worker.pid, zygote.pid, flush=True)
        """,
        tmp_path,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    for pid in map(int, done.stdout.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


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
