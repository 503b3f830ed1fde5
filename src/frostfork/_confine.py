# SPDX-License-Identifier: Apache-2.0
"""What a canary is held to by itself, before it imports anything: limits, descriptors, signals, streams."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import sys
from collections.abc import Iterable
from types import FrameType
from typing import NamedTuple

from frostfork import _core

_DATA_FACTOR = 8  # see Limits
_IGNORED_BY_DEFAULT = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)
_kept: list[object] = []


class Limits(NamedTuple):
    """What canaries may use.

    seconds: for one module that is asked for. total_seconds: for all of a trial.
    memory: bytes by which a canary and what it starts may grow. A look each 10 ms decides; for what grows faster than
        that the kernel sets a limit at eight times as much (RLIMIT_DATA). Not RLIMIT_AS, and not at once: numeric
        libraries reserve address space for each CPU that they never use.
    processes: how many an import may have running at a time.
    file_bytes: the size to which it may write a file.
    """

    seconds: float = 30.0
    memory: int = 1 << 30
    total_seconds: float = 300.0
    processes: int = 32
    file_bytes: int = 64 << 20


def confine(limits: Limits, blocked: set[int]) -> None:
    """Before it imports anything."""
    keeper = os.getppid()
    _kept.extend(
        (sys.stdin, sys.stdout, sys.stderr)
    )  # else: they would be written out, and close what is below
    _core.die_with_parent(signal.SIGKILL)
    os.setsid()
    _core.adopt_orphans()  # a daemon is to be seen by the canary itself
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # rather this than the parent
    # 1 and not 0: a core that is piped to a program is limited by nothing else (core(5)).
    _limit(resource.RLIMIT_CORE, 1)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_DATA, _data_bytes() + _DATA_FACTOR * limits.memory)
    for number in range(1, signal.NSIG):
        handler = signal.getsignal(number)
        if callable(handler) and handler is not signal.default_int_handler:
            signal.signal(number, _in_the_parents_place)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    _collect_output()
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(fd, "w" if fd else "r", closefd=False)  # noqa: SIM115 - it stays open
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if os.getppid() != keeper:
        os._exit(1)


def _collect_output() -> None:
    """Let what is printed go where its size can be seen, and where file_bytes is its limit."""
    with contextlib.suppress(OSError, AttributeError):  # it may go nowhere as well
        fd = os.memfd_create("frostfork-canary")
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        os.close(fd)


def _in_the_parents_place(number: int, _frame: FrameType | None) -> None:
    """Where the parent has a handler, which is none of the canary's: the signal does what it does by default."""
    if number not in _IGNORED_BY_DEFAULT:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def silence(keep: Iterable[int]) -> None:
    """Put /dev/null in the place of each descriptor but these and what libraries need, and of 0 to 2.

    Nothing is written out through what was inherited, and no connection is held open by it. A number that stays taken
    is not given to something else, which an object of the parent's would then take for its own.
    """
    null = os.open(os.devnull, os.O_RDWR)
    kept = {null, *keep}
    for fd in {0, 1, 2, *map(int, os.listdir("/proc/self/fd"))} - kept:
        with contextlib.suppress(OSError):
            if fd > 2:
                os.fstat(fd)  # the one that listed them is closed
                if _core.is_of_library(fd):
                    continue
            os.dup2(null, fd, inheritable=fd <= 2)
    os.close(null)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _data_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
