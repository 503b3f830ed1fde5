# SPDX-License-Identifier: Apache-2.0
"""What the storm's workers do. Each task first marks its number, so that the owner sees what ran, and how often."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import sys
import time
import zlib
from typing import Any, NoReturn

_marks: list[mmap.mmap] = []


def begin(path: str) -> None:
    """In each worker: one byte for each task, in a file."""
    with open(path, "r+b") as file:
        _marks.append(mmap.mmap(file.fileno(), 0))


def _mark(number: int) -> None:
    _marks[0][number] += 1


class Refuses:
    """Cannot be pickled: here, where it was made, or there, where it arrives."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __reduce__(self) -> Any:
        if self.where == "here":
            raise RuntimeError("refuses to leave")
        return _refuse, ()


def _refuse() -> NoReturn:
    raise RuntimeError("refuses to arrive")


class Strange(Exception):
    def __init__(self, one: int, two: int) -> None:  # pickles, and does not unpickle
        super().__init__(one)


def double(number: int) -> int:
    _mark(number)
    return 2 * number


def wait(number: int, seconds: float) -> int:
    _mark(number)
    time.sleep(seconds)
    return number


def work(number: int, rounds: int) -> int:
    _mark(number)
    return sum(i * i for i in range(rounds))


def echo(number: int, data: bytearray) -> bytearray:
    """Large in and out."""
    _mark(number)
    data.reverse()
    return data


def checksum(number: int, data: bytes) -> int:
    _mark(number)
    return zlib.crc32(data)


def blank(number: int, size: int) -> bytes:
    _mark(number)
    return bytes(size)


def fail(number: int) -> NoReturn:
    _mark(number)
    raise KeyError(number)


def fail_strangely(number: int) -> NoReturn:
    _mark(number)
    raise Strange(1, 2)


def leave(number: int) -> NoReturn:
    _mark(number)
    sys.exit(number)


def give_what_refuses(number: int, where: str) -> Refuses:
    _mark(number)
    return Refuses(where)


def take(number: int, thing: object) -> int:
    _mark(number)
    return number


def say(number: int, size: int) -> int:
    _mark(number)
    os.write(2, b"~" * size + b"\n")
    return number


def die(number: int, by: int) -> None:
    """by: a signal, or minus an exit code."""
    _mark(number)
    if by < 0:
        os._exit(-by)
    os.kill(os.getpid(), by)
    time.sleep(3600)


def burst(number: int) -> int:
    """Memory runs out, by a limit on the address space that only this task has."""
    _mark(number)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * mmap.PAGESIZE
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), before[1]))
    held = []
    try:
        while True:
            held.append(bytearray(4 << 20))
    finally:
        held.clear()
        resource.setrlimit(resource.RLIMIT_AS, before)


def drown(number: int) -> int:
    """The same, and it stays so: the worker cannot go on for long."""
    _mark(number)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (used, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return len([bytearray(1 << 20) for _ in range(256)])


def overrun(number: int, seconds: float) -> int:
    """Deaf to its soft timeout."""
    _mark(number)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    try:
        time.sleep(seconds)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    return number


def leave_twice(number: int) -> int:
    """The task returns in a fork of its worker, too."""
    _mark(number)
    null = os.open(os.devnull, os.O_WRONLY)
    err = os.dup(2)
    os.dup2(null, 2)
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    os.dup2(err, 2)
    for fd in (null, err):
        os.close(fd)
    return number
