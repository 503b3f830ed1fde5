# SPDX-License-Identifier: Apache-2.0
"""What pools run in tests, and how tests wait for them."""

from __future__ import annotations

import atexit
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frostfork import ForkPool

WAIT = 30.0


def until(condition: Callable[[], Any]) -> Any:
    """What the condition answers once that is something; a failure after WAIT seconds."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError(f"it did not come true in {WAIT} s")


def pids(pool: ForkPool) -> set[int]:
    return {worker.pid for worker in pool.stats().workers}


def all_idle(pool: ForkPool) -> set[int]:
    workers = pool.stats().workers
    return {each.pid for each in workers} if all(each.state == "idle" for each in workers) else set()


def double(number: int) -> int:
    return 2 * number


def add(*numbers: int, more: int = 0) -> int:
    return sum(numbers) + more


def pid(_: object = None) -> int:
    return os.getpid()


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def wait_for(path: str) -> int:
    """Until the file is there."""
    until(lambda: Path(path).exists())
    return os.getpid()


def leave(path: str) -> None:
    """Say that it was run."""
    with open(path, "a") as file:
        file.write("x")


def mark(path: str, number: int) -> None:
    """Say at this place of the file that it was run."""
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, b"x", number)
    os.close(fd)


def raise_it(error: BaseException) -> None:
    raise error


def fail(*_: object) -> None:
    raise ValueError("it fails")


def die(number: int, said: str = "") -> None:
    if said:
        print(said, file=sys.stderr, flush=True)
    os.kill(os.getpid(), number)
    time.sleep(WAIT)


def die_once(path: str, number: int) -> int:
    """The first time."""
    if not Path(path).exists():
        Path(path).touch()
        die(number)
    return os.getpid()


def stop_at_exit() -> int:
    atexit.register(os.kill, os.getpid(), signal.SIGSTOP)
    return os.getpid()


def leave_by(code: int) -> None:
    os._exit(code)


def eat(size: int) -> int:
    """Keep so many bytes."""
    _eaten.append(bytearray(size))
    return os.getpid()


_eaten: list[bytearray] = []


class Awkward(Exception):
    """Can be pickled and not unpickled: its arguments are not its parameters'."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Unpicklable:
    def __reduce__(self) -> Any:
        raise ValueError("not this one")


class Poison:
    """Fails where it is unpickled."""

    def __reduce__(self) -> Any:
        return raise_it, (ValueError("poisoned"),)


def set_variable(name: str, value: str) -> None:
    os.environ[name] = value


def variable(name: str) -> str | None:
    return os.environ.get(name)


def make(kind: type) -> object:
    return kind()


def ignore(value: object) -> str:
    return type(value).__name__


def handled_timeout(seconds: float) -> str:
    try:
        time.sleep(seconds)
    except TimeoutError:
        return "in time"
    return "done"


def deaf(seconds: float) -> None:
    """Does not obey its soft timeout."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(seconds)
        except TimeoutError:
            pass


def modules() -> list[str]:
    return list(sys.modules)


def make_bytes(size: int) -> bytes:
    return bytes(size)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    text: str

    def __reduce__(self) -> Any:
        return Frozen, (self.text,)


def raise_frozen() -> None:
    raise Frozen("as it is")


class Exits(Exception):
    """Ends whoever unpickles it."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def give_exit() -> Exits:
    return Exits()


def raise_exit_when_read() -> None:
    raise Exits


def return_twice() -> str:
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return "parent" if pid else "child"


def only_once(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL))


def shout(size: int) -> int:
    for _ in range(size // 1024):
        os.write(2, b"!" * 1024)
    return size


def cry_and_die(text: str) -> None:
    os.write(2, text.encode())
    os.kill(os.getpid(), 9)


def write_file(path: str) -> None:
    with open(path, "wb") as file:
        file.write(bytes(1 << 20))


def wait_at_first(path: str) -> None:
    """An initializer that takes long in the first worker."""
    if not os.path.exists(path):
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(60)


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""
