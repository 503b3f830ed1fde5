# SPDX-License-Identifier: Apache-2.0
"""What the tests' zygotes and workers do: importable by them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from frostfork import Template

SECONDS = 30.0  # for what takes none


class Recorder(Template):
    """Remembers what was asked of it."""

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.seen: list[tuple[Any, ...]] = []
        self.idles = 0

    def begin(self) -> None:
        self.seen.append(("begin", os.getpid(), threading.active_count()))
        if self.fail == "raise":
            raise ValueError("the preload is broken")
        if self.fail == "explain":
            raise ValueError("the preload is broken\nfor more information see elsewhere")
        if self.fail == "exit":
            sys.exit("the template left")
        if self.fail == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.fail == "hang":
            threading.Event().wait(600)

    def before_fork(self, name: str) -> None:
        self.seen.append(("before_fork", name))
        if name == "unlucky":
            raise ValueError("before_fork is broken")

    def not_forked(self, name: str) -> None:
        self.seen.append(("not_forked", name))

    def in_worker(self, name: str) -> None:
        self.seen.append(("in_worker", name, os.getpid()))
        if name == "refused":
            raise ValueError("in_worker is broken")

    def ended(self, name: str, pid: int, code: int | None) -> None:
        self.seen.append(("ended", name, pid, code))
        if name == "badly":
            raise ValueError("ended is broken")

    def idle(self) -> float | None:
        self.idles += 1
        return None

    # --- for Zygote.call

    def look(self) -> list[tuple[Any, ...]]:
        return self.seen

    def echo(self, value: object) -> object:
        return value

    def repeat(self, value: bytes, times: int) -> bytes:
        return value * times

    def fail_now(self) -> None:
        raise LookupError("nothing there")

    def unpicklable(self) -> object:
        return lambda: None

    def descriptors_open(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def end_oneself(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def limit(self, which: int, most: int) -> None:
        if which == resource.RLIMIT_NPROC and os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)  # the limit does not hold for root
        resource.setrlimit(which, (most, resource.getrlimit(which)[1]))

    def run_program(self) -> int:
        """A child of the template's own: the zygote leaves it alone."""
        return subprocess.run(["/bin/sh", "-c", "exit 7"], check=False).returncode

    def wait_for_any(self) -> int:
        """As a library may that forks: what it waits for is a worker."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        try:
            return os.waitpid(-1, 0)[0]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sum(range(1000))


class Notes(Template):
    """Gives each worker a file in memory to write into, and counts how often it is idle."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.idles = 0

    def before_fork(self, name: str) -> None:
        self.files[name] = os.memfd_create("notes")

    def descriptors(self, name: str) -> Sequence[int]:
        return (self.files[name],)

    def in_worker(self, name: str) -> None:
        os.write(self.files[name], f"{name} was here".encode())

    def ended(self, name: str, pid: int, code: int | None) -> None:
        os.pwrite(self.files[name], b"%d" % code, 100)

    def idle(self) -> float | None:
        self.idles += 1
        return 0.05 if self.idles % 5 else None

    # --- for Zygote.call

    def read(self, name: str) -> tuple[bytes, bytes]:
        return os.pread(self.files[name], 100, 0).rstrip(b"\0"), os.pread(self.files[name], 10, 100)

    def count(self) -> int:
        return self.idles


class Unpicklable(Recorder):
    def __reduce__(self) -> Any:
        raise TypeError("this template is here to stay")


mark = 0


def tell_mark() -> int:
    return mark


def code(number: object = None) -> object:
    return number


def hold(*, fds: Sequence[int]) -> None:
    """Say that it runs, and never end."""
    os.write(fds[0], b".")
    threading.Event().wait()


def write(text: bytes, fds: Sequence[int]) -> None:
    for fd in fds:
        os.write(fd, text)


def tell_pid(fds: Sequence[int]) -> None:
    os.write(fds[0], b"%d\n" % os.getpid())


def wait_for_end(fds: Sequence[int]) -> int:
    """Until the other end of the first closes."""
    os.read(fds[0], 1)
    return 5


def announce_and_wait(fds: Sequence[int]) -> None:
    """Say that it runs, and wait for the end of the other."""
    os.write(fds[1], b"r")
    os.read(fds[0], 1)


def announce_and_sleep(fds: Sequence[int]) -> None:
    os.write(fds[0], b"r")
    time.sleep(600)


def raise_error() -> None:
    raise RuntimeError("the target is broken")


def leave(value: object) -> None:
    sys.exit(value)


def length(data: bytes) -> int:
    assert data == data[:1] * len(data)
    return len(data) >> 20


def environment(fds: Sequence[int]) -> None:
    os.write(fds[0], repr((os.environ.get("FF_NEW"), os.environ.get("FF_OLD"))).encode())


def open_descriptors(fds: Sequence[int]) -> None:
    shown = []
    for name in os.listdir("/proc/self/fd"):
        try:
            shown.append(f"{name}={os.readlink('/proc/self/fd/' + name)}")
        except OSError:
            continue
    os.write(fds[0], "\n".join(shown).encode())


def touch_at_exit(path: str) -> None:
    import atexit

    atexit.register(open, path, "w")
    threading.Thread(target=open, args=(path + ".thread", "w")).start()


class Holder(Template):
    """Holds a temporary folder, a file that is not written out, and what ends badly if asked to."""

    def __init__(self, folder: str, hang: bool = False) -> None:
        self.folder = folder
        self.hang = hang

    def begin(self) -> None:
        self.own = tempfile.TemporaryDirectory(dir=self.folder)
        self.file = open(os.path.join(self.folder, "unwritten"), "w")  # noqa: SIM115 - it is held
        self.file.write("written once")
        if self.hang:
            weakref.finalize(self, threading.Event().wait)
