# SPDX-License-Identifier: Apache-2.0
"""The process between a parent and its canaries.

It forks them one after the other, holds them to their limits, and leaves nothing of them behind.

    parent ──fork──▶ keeper ──fork──▶ canary ──▶ whatever a module starts
                       └────fork────▶ the next canary, after one that ended early

The parent could not do this itself. A daemon that a module starts becomes the child of the nearest process that adopts
orphans, and a parent that did so would meet children of others in its waitpid. A keeper imports nothing, so that each
canary starts with what the parent had.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import NamedTuple, NoReturn

from frostfork import _core
from frostfork._confine import Limits, confine, silence
from frostfork._import_guard import described
from frostfork._records import Records, encode
from frostfork._tryout import LOST_JOURNAL, Conditions, Tryout, private_bytes
from frostfork.fingerprint.kernel import children_of
from frostfork.fork import fork
from frostfork.journal import Journal
from frostfork.preload.verdict import refusals

_exit = os._exit
_FAILED = 87  # the canary's own code did
_TICK_SECONDS = 0.01
_KILL_SECONDS = 10.0  # for what is left to end


class Parent(NamedTuple):
    """Whom it is for: its pid, and the signals that it blocks."""

    pid: int
    blocked: set[int]


class Keeper:
    """Runs in a process of its own."""

    def __init__(
        self, journal: Journal, names: list[str], conditions: Conditions, limits: Limits, parent: Parent
    ) -> None:
        self._journal = journal
        self._names = names
        self._conditions = conditions
        self._limits = limits
        self._parent = parent
        self._end = time.monotonic() + limits.total_seconds
        self._records = Records(journal)

    def run(self) -> None:
        """Until each name has a verdict, time is over, or nobody waits for it any more."""
        _core.adopt_orphans()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        rest = self._names
        while rest and self._is_wanted():
            self._journal.write("canary", "")
            pid = fork()
            if pid == 0:
                self._be_a_canary(rest)
            self._watch(pid)
            left = [name for name in rest if name not in self._records.verdicts]
            if len(left) == len(rest):
                break  # it ended before it began: another would, too
            rest = left
        self._journal.write("over", "")

    def _is_wanted(self) -> bool:
        return os.getppid() == self._parent.pid and time.monotonic() < self._end

    # --- in the keeper

    def _watch(self, pid: int) -> None:
        memory = private_bytes(pid)
        why: tuple[str, str] | None = None
        status: int | None = None
        while status is None and why is None:
            came = signal.sigtimedwait((signal.SIGCHLD, signal.SIGTERM), _TICK_SECONDS)
            if came is not None and came.si_signo == signal.SIGTERM:
                self._end = 0.0
            status = self._reap(pid)
            self._records.read()
            if status is None:
                if not self._is_wanted():
                    break
                why = self._excess(memory)
        self._end_all(pid)
        self._records.read()
        if self._records.finished or (why is None and status is None):
            return
        kind, detail = why or _how_it_ended(status or 0)
        for verdict in self._records.blame(kind, detail):
            self._journal.write("verdict", encode(verdict))
        self._records.read()

    def _reap(self, pid: int) -> int | None:
        """The wait status of the canary, if it has ended; orphans that have are done with."""
        found = None
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == pid:
                    found = ended[1]
        return found

    def _excess(self, memory: int) -> tuple[str, str] | None:
        """The limit that is overrun."""
        if self._records.asked and time.monotonic() - self._records.asked_at > self._limits.seconds:
            return "hung", f"was not done after {self._limits.seconds:g} s"
        family = _descendants(os.getpid())
        if len(family) - 1 > self._limits.processes:
            return "process", f"had more than {self._limits.processes} processes running"
        if sum(max(0, private_bytes(each) - memory) for each in family) > self._limits.memory:
            return "memory", f"took more than {self._limits.memory >> 20} MB of memory"
        return None

    def _end_all(self, canary: int) -> None:
        """Kill and wait for everything: the canary's group at once, then by and by what left it."""
        end = time.monotonic() + _KILL_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(canary, signal.SIGKILL)  # whatever it forks meanwhile is in the group, too
        while time.monotonic() < end:
            for each in _descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(each), signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            signal.sigtimedwait((signal.SIGCHLD,), _TICK_SECONDS)

    # --- in the canary

    def _be_a_canary(self, names: list[str]) -> NoReturn:
        try:
            silence((self._journal.fileno(),))  # the end of the trial is not a canary's to say
            confine(self._limits, self._parent.blocked)
            refused = refusals(self._records.verdicts.values(), self._conditions.tolerates)
            Tryout(self._journal, self._conditions, refused).run(names)
        except BaseException as error:
            with contextlib.suppress(Exception):
                self._records.read()
                for verdict in self._records.blame(
                    "crashed", f"the canary itself failed: {described(error)}"
                ):
                    self._journal.write("verdict", encode(verdict))
        finally:
            _exit(_FAILED)


def _descendants(pid: int) -> list[str]:
    found = children_of(pid)
    for each in found:  # grows meanwhile
        found += children_of(int(each))
        if len(found) > 10_000:
            break
    return found


def _how_it_ended(status: int) -> tuple[str, str]:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return "crashed", f"ended the process by {name}"
    code = os.WEXITSTATUS(status)
    if code == LOST_JOURNAL:
        return "file", "closed descriptors that it had not opened"
    if code == _FAILED:
        return "crashed", "the canary itself failed"
    return "exited", f"ended the process with exit code {code}"


def keep(
    journal: Journal, done: int, names: list[str], conditions: Conditions, limits: Limits, parent: Parent
) -> NoReturn:
    """The keeper's whole life, right after its fork. done: a descriptor that is written to at its end."""
    try:
        os.setsid()  # a Ctrl-C at the parent's terminal is the parent's
        signal.set_wakeup_fd(-1)
        silence((journal.fileno(), done))
        Keeper(journal, names, conditions, limits, parent).run()
    finally:
        try:
            os.write(done, b".")
        finally:
            _exit(0)
