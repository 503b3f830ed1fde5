# SPDX-License-Identifier: Apache-2.0
"""A worker, as its owner sees it."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

from frostfork._zygote.patience import milliseconds
from frostfork.errors import ZygoteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostfork._zygote.handle import Handle


class Ended(NamedTuple):
    """How a worker ended.

    code: as subprocess.returncode: an exit code, or minus the number of a signal. None where nobody could tell: its
    zygote was killed, and the root or the kernel (before Linux 6.15) did not see it.
    rusage: what it used, None where its zygote did not report it.
    """

    code: int | None
    rusage: resource.struct_rusage | None


class Worker:
    """A process that was forked by a zygote. It may be dropped: the process goes on, and its Zygote sees it end."""

    def __init__(self, handle: Handle, name: str, pid: int, pidfd: int, forked_at: float) -> None:
        self._owner = os.getpid()
        self._pidfd = pidfd
        self._handle = handle
        self._name = name
        self._pid = pid
        self._forked_at = forked_at
        self._ended: Ended | None = None
        self.given_up_at: float | None = None

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def name(self) -> str:
        return self._name

    @property
    def generation(self) -> int:
        """Of the zygote that forked it."""
        return self._handle.generation

    @property
    def forked_at(self) -> float:
        """When the zygote's fork had returned, by time.monotonic()."""
        return self._forked_at

    def fileno(self) -> int:
        """A pidfd, for selectors: readable once the worker has ended; wait() then has little to wait for."""
        return self._pidfd

    def poll(self) -> Ended | None:
        """How it ended; None while it runs, or while its zygote has not yet said how it ended."""
        if self._ended is None:
            self._check_owner()
            self._handle.look(self)
        return self._ended

    def wait(self, timeout: float | None = None) -> Ended:
        """Wait for its end. TimeoutError after so many seconds."""
        if self._ended is None:
            self._check_owner()
            deadline = None if timeout is None else time.monotonic() + timeout
            if not _wait_for_pidfd(self.fileno(), timeout) or not self._handle.settle(self, deadline):
                raise TimeoutError(f"worker {self._name} ({self._pid}) has not ended after {timeout:g} s")
        assert self._ended is not None
        return self._ended

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended."""
        self._check_owner()
        if self._ended is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _check_owner(self) -> None:
        if self._owner != os.getpid():
            raise ZygoteError(f"this worker belongs to process {self._owner}: a fork of it cannot use it")

    def note_end(self, how: Ended) -> None:
        """From its zygote's, root's or the kernel's mouth."""
        self._ended = how

    def is_known(self) -> bool:
        """Whether it is known how it ended."""
        return self._ended is not None

    def has_ended(self) -> bool:
        return self._ended is not None or _wait_for_pidfd(self.fileno(), 0)

    def __repr__(self) -> str:
        state = "running" if self._ended is None else f"ended: {self._ended.code}"
        return f"<Worker {self._name!r} pid={self._pid} generation={self.generation} {state}>"

    def __del__(self, getpid: Callable[[], int] = os.getpid, close: Callable[[int], None] = os.close) -> None:
        if getattr(self, "_pidfd", -1) >= 0 and self._owner == getpid():
            close(self._pidfd)


def _wait_for_pidfd(pidfd: int, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds(timeout)))
