# SPDX-License-Identifier: Apache-2.0
"""Signals in root and zygotes: those for a whole process group are the owner's to answer, and a child's end wakes."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import select
import signal
from collections.abc import Callable
from types import FrameType

from frostfork._zygote.patience import milliseconds

# What a terminal, a service manager or `kill` sends to a group. The owner closes in order, or its end is seen.
_FOR_THE_OWNER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ALL = tuple(map(int, signal.valid_signals()))


def _leave_it(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, which programs started from here would inherit."""


def hold() -> set[int]:
    """Around a fork: what comes for the child waits until it has handlers of its own, and empties its mask.

    What was blocked before, for release(). signal's function would make enum work, once in each child.
    """
    before: set[int] = _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL)
    return before


def release(before: set[int]) -> None:
    _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


class Waker:
    """Ends a poll when a child ends."""

    def __init__(self, on_child: Callable[[], None] | None = None) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pid = os.getpid()
        self._on_child = on_child
        self.listen()

    def fileno(self) -> int:
        return self._reader

    def filenos(self) -> tuple[int, int]:
        """All that it has open."""
        return self._reader, self._writer

    def listen(self) -> None:
        """Again after foreign code ran, which may have set handlers."""
        for number in _FOR_THE_OWNER:
            signal.signal(number, _leave_it)
        signal.signal(signal.SIGCHLD, self._child_ended)
        signal.siginterrupt(signal.SIGCHLD, False)  # C code that runs here need not know of EINTR
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        if self._on_child is not None and os.getpid() == self._pid:
            self._on_child()

    def clear(self) -> None:
        try:
            while os.read(self._reader, 4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)


def wait_readable(poll: select.poll, timeout: float | None) -> list[int]:
    """The descriptors with something to read, or hung up."""
    return [fd for fd, events in poll.poll(milliseconds(timeout)) if events & ~select.POLLOUT]
