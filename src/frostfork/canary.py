# SPDX-License-Identifier: Apache-2.0
"""Sacrificial children that import modules first, so that their parent never meets a bad import.

A trial runs beside its parent, which may fork and wait for other children meanwhile, and asks now and then whether
there is something new. docs/canary.md says what is found, and what cannot be.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from frostfork import _settings
from frostfork._confine import Limits
from frostfork._keeper import Parent, keep
from frostfork._records import Records
from frostfork._tryout import Conditions
from frostfork.fork import fork
from frostfork.journal import Journal
from frostfork.preload.known import UNSAFE_LIBRARIES
from frostfork.preload.verdict import Finding, Verdict

if TYPE_CHECKING:
    from types import TracebackType

_UNSAFE_LIBRARIES = tuple((entry.pattern, entry.reason) for entry in UNSAFE_LIBRARIES)
_MOST_BYTES = 1 << 50  # the kernel's limits take it, multiplied by Limits' factor
_CLOSE_SECONDS = 15.0  # more than a keeper takes to end everything


def _tolerate_nothing(_module: str, _finding: Finding) -> bool:
    return False


def _pair(entry: object) -> tuple[str, str]:
    pair = entry if isinstance(entry, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
        raise TypeError(f"unsafe_libraries must be pairs of a pattern and a reason, not {entry!r}")
    return pair[0], pair[1]


class Canary:
    """How modules are tried: within what limits.

    seconds: for one module with all that it brings along. total_seconds: for a trial; what is left has no verdict then.
    memory: bytes by which a canary, with what it starts, may grow. processes: how many those may be at a time.
    file_bytes: the size to which it may write a file.
    unsafe_libraries: patterns of shared libraries' file names, with reasons.
    """

    def __init__(
        self,
        seconds: float = Limits().seconds,
        memory: int = Limits().memory,
        *,
        total_seconds: float = Limits().total_seconds,
        processes: int = Limits().processes,
        file_bytes: int = Limits().file_bytes,
        unsafe_libraries: Iterable[tuple[str, str]] = _UNSAFE_LIBRARIES,
    ) -> None:
        _settings.seconds("seconds", seconds)
        _settings.whole("memory", memory, 1, most=_MOST_BYTES)
        _settings.seconds("total_seconds", total_seconds)
        _settings.whole("processes", processes, 0)
        _settings.whole("file_bytes", file_bytes, 1, most=_MOST_BYTES)
        self.limits = Limits(seconds, memory, total_seconds, processes, file_bytes)
        self.unsafe_libraries = tuple(_pair(each) for each in unsafe_libraries)

    def start(
        self,
        names: Iterable[str] | str,
        *,
        deny: Iterable[str] | str = (),
        local_names: frozenset[str] = frozenset(),
        tolerates: Callable[[str, Finding], bool] = _tolerate_nothing,
        around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> Trial:
        """Begin to try these modules, one after the other, and return at once.

        What this process has imported needs no trial, and gets no verdict. deny: patterns of what no import may bring
        along. local_names: top-level names that the user's own folders define. tolerates: asked in the canary, with a
        module's name and a Finding. An effect that is not tolerated ends a canary, and the next one goes on without
        this module; the verdicts name all effects, tolerated or not. around: a context for each import. OSError if no
        process can be had.
        """
        wanted = dict.fromkeys(_settings.names("names", names))
        untried = [name for name in wanted if name not in sys.modules]
        deny = _settings.names("deny", deny)
        conditions = Conditions(deny, local_names, tolerates, self.unsafe_libraries, around)
        return Trial(untried, conditions, self.limits)


class Trial:
    """Some modules that are being tried.

    verdicts: what is known by the last poll(), by module; packages and modules that came along may be among them.
    error: why it ended early, if that was no module's doing.
    Close it, or use it in a `with` block. In a child of the process that began it, it does nothing.
    """

    def __init__(self, names: list[str], conditions: Conditions, limits: Limits) -> None:
        self.names = tuple(names)
        self.verdicts: dict[str, Verdict] = {}
        self.error: str | None = None
        self._owner = os.getpid()
        self._ended = not names
        self._done, done = os.pipe()
        try:
            self._journal = Journal()
        except BaseException:
            os.close(done)
            os.close(self._done)
            raise
        self._records = Records(self._journal)
        self._keeper = 0
        self._deadline = time.monotonic() + limits.total_seconds + _CLOSE_SECONDS
        if self._ended:
            os.close(done)  # readable at once
            return
        # A handler that ran in the keeper would act for the parent; Airflow's ends the parent's other children.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._keeper = fork()
            if self._keeper == 0:
                keep(
                    self._journal,
                    done,
                    names,
                    conditions,
                    limits,
                    Parent(self._owner, set(map(int, blocked))),
                )
        except BaseException:
            self._journal.close()
            os.close(self._done)
            raise
        finally:
            os.close(done)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def fileno(self) -> int:
        """A descriptor that becomes readable when the trial ends: poll() says True then. ValueError once closed."""
        if self._done < 0:
            raise ValueError("this trial is closed")
        return self._done

    def poll(self) -> bool:
        """Take in what is new; whether the trial has ended. Does not wait."""
        if self._owner != os.getpid() or self._done < 0:
            return True
        ended = self._has_ended()
        self._records.read()
        if ended and not self._records.over:
            # Something killed the keeper. Its canary died with it.
            for verdict in self._records.blame(
                "crashed", "it, or the process that watched over it, was killed"
            ):
                self._records.verdicts.setdefault(verdict.module, verdict)
            self._records.over = True
        self.verdicts.update(self._records.verdicts)
        self.error = self._records.error
        return ended

    def _has_ended(self) -> bool:
        if not self._ended:
            try:
                self._ended = os.waitpid(self._keeper, os.WNOHANG)[0] != 0
            except ChildProcessError:  # someone else waits for all children, or wants to know of none
                self._records.read()
                self._ended = self._records.over or not _is_there(self._keeper)
            if not self._ended and time.monotonic() > self._deadline:
                # It was stopped, or hangs in a lock that one of the parent's threads held when it was forked.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._keeper, signal.SIGKILL)
        return self._ended

    def wait(self, timeout: float | None = None) -> dict[str, Verdict]:
        """Wait for the end, or for so many seconds. The verdicts so far; poll() says whether they are all."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.poll():
            left = 0.1 if end is None else min(0.1, end - time.monotonic())
            if left <= 0:
                break
            if _is_readable(self._done, left):  # its last breath
                time.sleep(0.001)
        return self.verdicts

    def close(self) -> None:
        """End it, if it has not, with all that it started. The verdicts so far stay."""
        if self._done < 0:
            return
        if self._owner == os.getpid():
            if not self.poll():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._keeper, signal.SIGTERM)
                self.wait(_CLOSE_SECONDS)
            if not self._ended:
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(self._keeper, signal.SIGKILL)
                    os.waitpid(self._keeper, 0)
            os.close(self._done)
            self._journal.close()
        self._done = -1

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _is_readable(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
