# SPDX-License-Identifier: Apache-2.0
"""The tasks of a storm, and how each may end."""

from __future__ import annotations

import random
import signal
import zlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from frostfork import ForkPool
from frostfork.errors import RemoteError, TaskTimeout
from tests.chaos import tasks

RETRIES = 2
_WEIGHTS = {
    "double": 300,
    "again": 60,
    "wait": 60,
    "work": 60,
    "echo": 30,
    "checksum": 30,
    "blank": 30,
    "fail": 20,
    "fail strangely": 5,
    "leave": 5,
    "refuse": 10,
    "say": 10,
    "die": 5,
    "stop": 1,
    "burst": 3,
    "drown": 1,
    "slow": 3,
    "overrun": 1,
    "twice": 1,
}


class Case(NamedTuple):
    """A task, and how it may end.

    check: whether a value is right. reasons: what it may raise, beside its worker's death.
    """

    submit: Callable[[], Future[Any]]
    check: Callable[[Any], bool]
    reasons: tuple[type[BaseException], ...] = ()
    retries: int = 0
    always: bool = False  # one of the reasons, never a value


_LARGE = (OSError, RemoteError)  # where files or descriptors run out


def _no(value: object) -> bool:
    return False


def choose(r: random.Random, pool: ForkPool, number: int) -> tuple[str, Case]:
    kind = r.choices(*zip(*_WEIGHTS.items(), strict=True))[0]
    again = pool.with_options(retries=RETRIES)
    if kind == "double":
        return kind, Case(lambda: pool.submit(tasks.double, number), lambda v: v == 2 * number)
    if kind == "again":
        return kind, Case(lambda: again.submit(tasks.double, number), lambda v: v == 2 * number, (), RETRIES)
    if kind == "wait":
        seconds = r.random() * 0.02
        return kind, Case(lambda: pool.submit(tasks.wait, number, seconds), lambda v: v == number)
    if kind == "work":
        rounds = r.randrange(5000)
        right = sum(i * i for i in range(rounds))
        return kind, Case(lambda: pool.submit(tasks.work, number, rounds), lambda v: v == right)
    if kind == "echo":
        data = bytearray(r.randbytes(r.choice((10, 1000, 70_000, 400_000))))
        right = bytes(reversed(data))
        return kind, Case(lambda: pool.submit(tasks.echo, number, data), lambda v: v == right, _LARGE)
    if kind == "checksum":
        data = r.randbytes(r.choice((10, 60_000, 70_000, 1 << 20)))
        return kind, Case(
            lambda: pool.submit(tasks.checksum, number, data), lambda v: v == zlib.crc32(data), _LARGE
        )
    if kind == "blank":
        size = r.choice((10, 66_000, 4 << 20))
        return kind, Case(lambda: pool.submit(tasks.blank, number, size), lambda v: v == bytes(size), _LARGE)
    if kind == "fail":
        return kind, Case(lambda: pool.submit(tasks.fail, number), _no, (KeyError,), always=True)
    if kind == "fail strangely":
        return kind, Case(lambda: pool.submit(tasks.fail_strangely, number), _no, (RemoteError,), always=True)
    if kind == "leave":
        return kind, Case(lambda: pool.submit(tasks.leave, number), _no, (SystemExit,), always=True)
    if kind == "refuse":
        where = r.choice(("here", "there"))
        if r.random() < 0.5:
            return kind, Case(
                lambda: pool.submit(tasks.give_what_refuses, number, where),
                _no,
                (RuntimeError, RemoteError),
                always=True,
            )
        thing = tasks.Refuses(where)
        return kind, Case(
            lambda: pool.submit(tasks.take, number, thing),
            _no,
            (RuntimeError, RemoteError),
            always=True,
        )
    if kind == "say":
        size = r.choice((10, 5000, 100_000))
        return kind, Case(lambda: pool.submit(tasks.say, number, size), lambda v: v == number)
    if kind == "die":
        by = r.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, -1, -3))
        return kind, Case(lambda: pool.submit(tasks.die, number, by), _no, always=True)
    if kind == "stop":
        return kind, Case(lambda: pool.submit(tasks.die, number, signal.SIGSTOP), _no, always=True)
    if kind == "burst":
        # RemoteError: it came to a worker that drowned before.
        return kind, Case(
            lambda: pool.submit(tasks.burst, number), _no, (MemoryError, RemoteError), always=True
        )
    if kind == "drown":
        return kind, Case(
            lambda: pool.submit(tasks.drown, number), _no, (MemoryError, RemoteError), always=True
        )
    if kind == "slow":
        view = pool.with_options(timeout=0.05)
        return kind, Case(lambda: view.submit(tasks.wait, number, 30.0), _no, (TaskTimeout,), always=True)
    if kind == "overrun":
        view = pool.with_options(timeout=0.05, hard_timeout=0.2)
        return kind, Case(lambda: view.submit(tasks.overrun, number, 30.0), _no, (TaskTimeout,), always=True)
    assert kind == "twice"
    return kind, Case(
        lambda: pool.submit(tasks.leave_twice, number), lambda v: v == number, (BlockingIOError,)
    )
