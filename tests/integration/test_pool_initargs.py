# SPDX-License-Identifier: Apache-2.0
"""What multiprocessing shares through inheritance only, as arguments of a pool's initializer."""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator
from multiprocessing import managers, resource_tracker, shared_memory
from typing import Any

import pytest

from frostfork import ConfigurationError, ForkPool, PoolBroken, Zygote, get_context
from tests.integration import pool_work as work
from tests.integration.pool_work import WAIT, until

_shared: dict[str, Any] = {}


@pytest.fixture(autouse=True, scope="module")
def memory_of_shared_values() -> None:
    """multiprocessing keeps it for others."""
    multiprocessing.get_context("fork").Value("i", 0)


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    yield
    _shared.clear()
    gc.collect()
    resource_tracker._resource_tracker._stop()  # it would be taken for a process left behind


def context_of(method: str) -> Any:
    return get_context() if method == "frostfork" else multiprocessing.get_context(method)


def make(method: str) -> dict[str, Any]:
    context = context_of(method)
    return {
        "queue": context.Queue(), "simple": context.SimpleQueue(), "lock": context.Lock(), "event": context.Event(),
        "semaphore": context.Semaphore(3), "value": context.Value("i", 0), "condition": context.Condition(),
    }  # fmt: skip


def keep(shared: dict[str, Any]) -> None:
    _shared.update(shared)


def use() -> int:
    """All of them, in a worker."""
    assert _shared["event"].wait(WAIT)
    with _shared["lock"], _shared["condition"]:
        _shared["value"].value += 1
    _shared["simple"].put(os.getpid())
    _shared["queue"].put(os.getpid())
    _shared["queue"].close()
    _shared["queue"].join_thread()  # who is killed in the middle of it leaves its lock locked for ever
    assert _shared["semaphore"].acquire(timeout=WAIT)
    return os.getpid()


def is_locked() -> bool:
    if _shared["lock"].acquire(block=False):
        _shared["lock"].release()
        return False
    return True


@pytest.mark.parametrize(
    ("method", "start"),
    [
        ("fork", "fork"), ("spawn", "fork"), ("frostfork", "fork"), ("forkserver", "exec"), ("spawn", "exec"),
        ("frostfork", "exec"),
    ],
)  # fmt: skip
def test_they_are_shared_with_each_worker(method: str, start: str) -> None:
    mine = make(method)
    with ForkPool(1, initializer=keep, initargs=(mine,), start=start) as pool:
        waiting = pool.submit(use)
        mine["event"].set()
        first = waiting.result(WAIT)
        assert mine["queue"].get(timeout=WAIT) == mine["simple"].get() == first != os.getpid()
        with mine["lock"]:
            assert pool.submit(is_locked).result(WAIT)
        assert not pool.submit(is_locked).result(WAIT)

        # The next worker gets the same ones, also of a zygote that was forked later.
        os.kill(first, signal.SIGKILL)
        until(lambda: pool.stats().died == 1)
        second = pool.submit(use).result(WAIT)
        pool.refork()
        until(lambda: {each.generation for each in pool.stats().workers} == {2})
        third = pool.submit(use).result(WAIT)
        assert len({first, second, third}) == 3
        assert [mine["queue"].get(timeout=WAIT) for _ in "12"] == [second, third]
        assert not mine["semaphore"].acquire(block=False)  # it was 3
        assert mine["value"].value == 3
    mine["queue"].close()
    mine["queue"].join_thread()


def test_the_pool_keeps_what_its_caller_drops() -> None:
    with ForkPool(1, initializer=keep, initargs=(make("spawn"),)) as pool:
        gc.collect()
        assert not pool.submit(is_locked).result(WAIT)
        os.kill(pool.submit(work.pid).result(WAIT), signal.SIGKILL)
        until(lambda: pool.stats().died == 1)
        assert not pool.submit(is_locked).result(WAIT)


def test_what_fork_made_cannot_go_to_a_new_interpreter() -> None:
    said = "start method fork makes.*cannot be sent.*frostfork.get_context"
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(ConfigurationError, match=said):
        ForkPool(1, initializer=keep, initargs=({"lock": lock},), start="exec")
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(ConfigurationError, match=said):
            ForkPool(1, initializer=keep, initargs=({"lock": lock},))
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_a_zygote_that_began_before_them_is_told(start: str) -> None:
    with Zygote(start=start) as zygote:
        lock = multiprocessing.get_context("fork").Lock()
        with (
            ForkPool(1, initializer=keep, initargs=({"lock": lock},), zygote=zygote) as pool,
            pytest.raises(PoolBroken, match="This one began before"),
        ):
            pool.submit(is_locked).result(WAIT)


def take_global(_: object) -> None:
    """What the caller sent is dropped."""


def test_what_was_inherited_beside_is_not_harmed() -> None:
    """A semaphore that a worker drops would be unmapped, and with it the program's own object."""
    lock = _shared["lock"] = multiprocessing.get_context("fork").Lock()
    with ForkPool(1, initializer=take_global, initargs=(lock,), start="fork") as pool, lock:
        assert pool.submit(is_locked).result(WAIT)


def keep_one(name: str, value: Any) -> None:
    _shared[name] = value


def send(text: bytes) -> None:
    _shared["end"].sendall(text)


def test_sockets_and_initializers_that_hold_something() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ForkPool(1, initializer=functools.partial(keep_one, "end", theirs)) as pool:
        pool.submit(send, b"here").result(WAIT)
        assert ours.recv(10) == b"here"


def test_functions_that_go_by_value() -> None:
    pytest.importorskip("cloudpickle")
    lock = get_context().Lock()
    with ForkPool(1, initializer=lambda it: keep_one("lock", it), initargs=(lock,)) as pool, lock:
        assert pool.submit(is_locked).result(WAIT)


def read_memory() -> bytes:
    return bytes(_shared["memory"].buf[:4])


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_shared_memory_outlives_workers(start: str) -> None:
    """Each worker that has a resource tracker of its own would take it along at its end."""
    memory = shared_memory.SharedMemory(create=True, size=100)
    try:
        memory.buf[:4] = b"here"
        with ForkPool(1, initializer=keep_one, initargs=("memory", memory), start=start) as pool:
            for _ in range(3):
                assert pool.submit(read_memory).result(WAIT) == b"here"
                generation = pool.stats().generation
                pool.refork()
                until(lambda: {each.generation for each in pool.stats().workers} == {generation + 1})  # noqa: B023 - over before the next turn
        again = shared_memory.SharedMemory(memory.name)
        assert again.buf[:4] == b"here"
        again.close()
    finally:
        memory.close()
        memory.unlink()


def count_up() -> int:
    _shared["numbers"].append(1)
    return len(_shared["numbers"])


def test_objects_of_a_manager() -> None:
    with managers.SyncManager(ctx=get_context()) as manager:
        numbers = manager.list()
        with ForkPool(1, initializer=keep_one, initargs=("numbers", numbers)) as pool:
            assert pool.submit(count_up).result(WAIT) == 1
        assert list(numbers) == [1]


def test_more_descriptors_than_a_worker_can_have() -> None:
    ends = [socket.socket() for _ in range(250)]
    try:
        with pytest.raises(ConfigurationError, match="initargs hold 250 descriptors; allowed are"):
            ForkPool(1, initializer=keep_one, initargs=("ends", ends))
    finally:
        for end in ends:
            end.close()


def test_nothing_is_left_of_what_cannot_be_pickled() -> None:
    end = socket.socket()
    with end, pytest.raises(ValueError, match="not this one"):
        ForkPool(1, initializer=keep_one, initargs=("ends", [end, work.Unpicklable()]))
