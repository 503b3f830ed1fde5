# SPDX-License-Identifier: Apache-2.0
"""Parts of a pool that need no process: payloads, outcomes, channels, the breaker, timers, the dispatcher."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from frostfork import RemoteError
from frostfork._core import Board, Channel, Line, Mutex, Task
from frostfork.pool.breaker import Breaker
from frostfork.pool.engine import Engine
from frostfork.pool.future import TaskFuture
from frostfork.pool.outcome import decode_error, encode_error
from frostfork.pool.payload import LARGE_BYTES, TABLE, Payload, decode, encode, frame
from frostfork.pool.timers import Timers


def there_and_back(value: object) -> Any:
    return decode(*frame(encode(value)))


def test_small_objects_are_plain_pickles() -> None:
    assert encode((1, "two")) == pickle.dumps((1, "two"), 5)
    assert there_and_back({"a": [1, 2]}) == {"a": [1, 2]}


@pytest.mark.parametrize("size", [1, 1000, LARGE_BYTES, 3 * LARGE_BYTES + 5])
def test_buffers_travel_beside_the_pickle(size: int) -> None:
    data = bytearray(os.urandom(size))
    payload = encode([pickle.PickleBuffer(data), pickle.PickleBuffer(b"fixed")])
    assert isinstance(payload, Payload)
    body, flags, fd = frame(payload)
    assert flags == TABLE and (fd >= 0) == (size >= LARGE_BYTES - 200)
    writable, fixed = decode(body, flags, fd)
    assert bytes(writable) == data and bytes(fixed) == b"fixed"
    assert not memoryview(writable).readonly and memoryview(fixed).readonly
    memoryview(writable)[0:1] = b"x"
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_large_pickle_needs_no_buffers() -> None:
    text = "x" * (2 * LARGE_BYTES)
    payload = encode(text)
    assert isinstance(payload, Payload) and there_and_back(text) == text


def test_a_lost_descriptor_is_an_error() -> None:
    body, flags, fd = frame(encode("x" * LARGE_BYTES))
    os.close(fd)
    with pytest.raises(OSError, match="too many open files"):
        decode(body, flags, -2)


def test_an_exception_has_its_traceback_as_its_cause() -> None:
    try:
        try:
            raise ZeroDivisionError("first")
        except ZeroDivisionError as first:
            raise KeyError("second") from first
    except KeyError as error:
        found = decode_error(*frame(encode_error(error)))
    assert isinstance(found, KeyError) and found.args == ("second",)
    text = str(found.__cause__)
    assert "ZeroDivisionError: first" in text and "KeyError: 'second'" in text and "direct cause" in text


def test_an_exception_that_cannot_be_pickled_is_told() -> None:
    error = ValueError("why", threading.Lock())
    found = decode_error(*frame(encode_error(error)))
    assert isinstance(found, RemoteError) and "ValueError" in str(found) and "cannot be pickled" in str(found)


def test_frames_come_whole_and_with_their_descriptors() -> None:
    one, two = socket.socketpair()
    reading, writing = os.pipe()
    try:
        sender, receiver = Channel(one.fileno()), Channel(two.fileno())
        assert receiver.receive() == []
        sender.send(1, 7, b"body", 9, 4)
        sender.send(2, 8, b"", 0, 0, writing)
        sender.send(3, 9, b"after")
        one.close()
        came = []
        while (frames := receiver.receive(wait=True)) is not None:
            came += frames
        assert came[0] == (1, 7, 9, 4, b"body", -1) and came[2] == (3, 9, 0, 0, b"after", -1)
        kind, number, _, _, body, fd = came[1]
        assert (kind, number, body) == (2, 8, b"") and fd >= 0
        os.write(fd, b"through")
        assert os.read(reading, 10) == b"through"
        os.close(fd)
    finally:
        os.close(reading)
        os.close(writing)
        one.close()
        two.close()


def test_a_line_keeps_what_does_not_fit_for_later() -> None:
    one, two = socket.socketpair()
    board = Board(1)
    try:
        line = Line(one.fileno(), board, 0)
        tasks = [Task(None, b"") for _ in range(300)]
        sent = [line.assign(task, bytes(5000), 0) for task in tasks]
        assert sent[0] and not sent[-1] and line.unsent and line.sent == 300
        receiver = Channel(two.fileno())
        numbers: list[int] = []
        while len(numbers) < 300:
            numbers += [number for _, number, _, _, body, _ in receiver.receive() or () if len(body) == 5000]
            line.flush()
        assert (numbers, line.unsent) == (list(range(1, 301)), False)
        assert board.begin(0, 1)
        assert line.withdraw() == tasks[1:] and list(line.inflight) == tasks[:1]
        assert board.look(0)[:2] == (1, 1)
        two.close()
        assert line.assign(Task(None, b""), b"", 0)  # nobody is there: that is told elsewhere
    finally:
        board.close()
        one.close()
        two.close()


def test_what_a_line_keeps_is_not_for_programs_that_are_executed_meanwhile() -> None:
    one, two = socket.socketpair()
    board = Board(1)
    try:
        line = Line(one.fileno(), board, 0)
        while line.assign(Task(None, b""), bytes(5000), 0):
            pass
        before = set(os.listdir("/proc/self/fd"))
        with open(os.devnull) as file:
            assert not line.assign(Task(None, b""), b"", 0, file.fileno())
        (kept,) = [
            int(fd)
            for fd in set(os.listdir("/proc/self/fd")) - before
            if os.path.exists(f"/proc/self/fd/{fd}")
        ]
        assert not os.get_inheritable(kept)
        del line
        gc.collect()  # it and its tasks hold each other
        with pytest.raises(OSError):
            os.fstat(kept)
    finally:
        board.close()
        one.close()
        two.close()


def test_a_line_gives_results_to_their_tasks() -> None:
    one, two = socket.socketpair()
    board = Board(1)
    try:
        line = Line(one.fileno(), board, 0)
        tasks = [Task(None, b"") for _ in range(4)]
        for task in tasks:
            line.assign(task, b"", 0)
        (waited_for,) = tasks[2:3]
        waited_for._cond = "somebody waits"
        worker = Channel(two.fileno())
        for number in range(1, 5):
            worker.send(10, number, pickle.dumps(number * 10), 5)
        done, micros, rest = line.settle(line.receive() or [])
        assert (done, micros) == (2, 10) and [each[1] for each in rest] == [3, 4]
        assert [task._result for task in tasks] == [10, 20, None, None]
        assert [task._state for task in tasks] == ["FINISHED", "FINISHED", "PENDING", "PENDING"]
        assert list(line.inflight) == tasks[2:]
    finally:
        board.close()
        one.close()
        two.close()


def test_a_mutex_is_one_threads_until_it_has_left_as_often() -> None:
    mutex = Mutex()
    tries, had = threading.Event(), threading.Event()

    def take() -> None:
        tries.set()
        with mutex:
            had.set()

    with mutex:
        with mutex:
            thread = threading.Thread(target=take)
            thread.start()
            assert tries.wait(10)
        assert mutex.is_mine and not had.wait(0.05)
    assert had.wait(10)
    thread.join(10)
    assert not mutex.is_mine


def test_threads_that_share_a_mutex_come_one_after_the_other() -> None:
    mutex = Mutex()
    counts = [0]

    def count() -> None:
        for _ in range(2000):
            with mutex:
                seen = counts[0]
                if seen % 100 == 0:
                    os.sched_yield()
                counts[0] = seen + 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert counts == [8000]


def test_whoever_waits_for_a_mutex_can_be_interrupted() -> None:
    mutex = Mutex()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with mutex:
            held.set()
            done.wait(30)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(10)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt), mutex:
            pytest.fail("another thread has it")
        assert not mutex.is_mine
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        done.set()
        thread.join(10)
    with mutex:
        assert mutex.is_mine


def test_the_breaker_waits_longer_each_time_and_then_gives_up() -> None:
    breaker = Breaker(most=5)
    delays = []
    while not breaker.is_open:
        delays.append(breaker.delay)
        breaker.failed("why")
    assert delays[:2] == [0, 0] and delays[2:] == sorted(delays[2:]) and delays[2] < delays[4]
    assert breaker.reason == "why"
    breaker.worked()
    assert breaker.failures == 0 and breaker.delay == 0
    for _ in range(100):
        breaker.failed("again")
    assert breaker.delay == 5


def test_timers_call_in_their_order() -> None:
    timers = Timers()
    said: list[str] = []
    assert timers.wait_seconds() is None
    timers.add(60, said.append, "late")
    timers.add(-1, said.append, "second")
    timers.add(-2, said.append, "first")
    assert timers.wait_seconds() == 0
    timers.run()
    assert said == ["first", "second"] and 50 < (timers.wait_seconds() or 0) <= 60


@pytest.fixture
def engine() -> Iterator[Engine]:
    """One without workers."""
    engine = Engine()
    yield engine
    engine.poller.close()
    os.close(engine.bell)


def test_a_task_that_is_cancelled_before_it_fails_is_counted_once(engine: Engine) -> None:
    future = TaskFuture(engine, b"")
    engine.queue(future)
    assert future.cancel()
    engine.fail(future, OSError("too late"))  # of the thread that could not write what it needs
    assert future.cancelled()
    assert (engine.submitted, engine.cancelled, engine.failed) == (1, 1, 0)


def test_a_task_that_fails_before_it_is_cancelled_is_counted_once(engine: Engine) -> None:
    future = TaskFuture(engine, b"")
    engine.queue(future)
    future.add_done_callback(lambda ended: ended.cancel())
    engine.fail(future, OSError("in time"))
    assert not future.cancelled() and isinstance(future.exception(), OSError)
    assert (engine.submitted, engine.cancelled, engine.failed) == (1, 0, 1)
