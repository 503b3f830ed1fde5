# SPDX-License-Identifier: Apache-2.0
"""The process between a parent and its canaries: it forks them one after the other, holds them to their limits, and
leaves nothing of them behind.

    parent ──fork──▶ keeper ──fork──▶ canary ──▶ whatever a module starts
                       └────fork────▶ the next canary, after one that ended early

The parent could not do this itself. A daemon that a module starts becomes the child of the nearest process that adopts
orphans, and a parent that did so would meet children of others in its waitpid. A keeper imports nothing, so that each
canary starts with what the parent had.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable
from types import FrameType
from typing import NamedTuple, NoReturn

from frostfork import _core
from frostfork._import_guard import described
from frostfork._tryout import LOST_JOURNAL, Conditions, Tryout, decode, encode, private_bytes
from frostfork.fingerprint.kernel import children_of
from frostfork.fork import fork
from frostfork.journal import Journal
from frostfork.preload.verdict import Finding, Verdict

_exit = os._exit
_FAILED = 87  # the canary's own code did
_TICK_SECONDS = 0.01
_KILL_SECONDS = 10.0  # for what is left to end
_ADDRESS_FACTOR = 8  # see Limits
_IGNORED_BY_DEFAULT = (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)


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


class Parent(NamedTuple):
    """Whom it is for: its pid, and the signals that it blocks."""

    pid: int
    blocked: set[int]


class Records:
    """What canaries have written, as far as it was read, and where the present one stands."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._position = 0
        self._rest = b""
        self._word: str | None = None
        self.verdicts: dict[str, Verdict] = {}
        self.asked: str | None = None  # the module that is being tried
        self.asked_at = 0.0  # when that was seen
        self.stack: list[str] = []  # imports that have begun and not ended
        self.finished = False  # the present canary ended by its own will
        self.over = False  # and the keeper

    def read(self) -> None:
        """What is new."""
        while part := os.pread(self._journal.fileno(), 1 << 20, self._position):
            self._position += len(part)
            *fields, self._rest = (self._rest + part).split(b"\0")
            for field in fields:  # a word and a text by turns
                if self._word is None:
                    self._word = field.decode("utf-8", "replace")
                else:
                    word, self._word = self._word, None
                    self._take(word, field.decode("utf-8", "surrogateescape"))

    def _take(self, word: str, text: str) -> None:
        if word == "canary":
            self.asked, self.stack, self.finished = None, [], False
        elif word == "try":
            self.asked, self.asked_at, self.stack = text, time.monotonic(), []
        elif word == "begin":
            self.stack.append(text)
        elif word == "end" and text in self.stack:
            del self.stack[self.stack.index(text) :]
        elif word == "verdict" and (verdict := decode(text)) is not None:
            self.verdicts.setdefault(verdict.module, verdict)
        elif word == "done":
            self.asked, self.finished = None, True
        elif word == "over":
            self.over = True

    def blame(self, kind: str, detail: str) -> list[Verdict]:
        """For the innermost import under way, and for all that contain it."""
        names = list(dict.fromkeys((*reversed(self.stack), *filter(None, (self.asked,)))))
        seconds = time.monotonic() - self.asked_at
        return [Verdict(name, (Finding(kind, detail, names[0]),), seconds) for name in names]


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

    def _refused(self) -> dict[str, tuple[Finding, ...]]:
        """What no later canary may import, and why. What merely raised may fail again."""
        found = {}
        for name, verdict in self._records.verdicts.items():
            bad = tuple(
                finding
                for finding in verdict.findings
                if finding.kind not in ("raised", "denied") and not self._conditions.tolerates(name, finding)
            )
            if bad:
                found[name] = bad
        return found

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
            self._confine()
            Tryout(self._journal, self._conditions, self._refused()).run(names)
        except BaseException as error:
            with contextlib.suppress(Exception):
                self._records.read()
                for verdict in self._records.blame("crashed", f"the canary itself failed: {described(error)}"):
                    self._journal.write("verdict", encode(verdict))
        finally:
            _exit(_FAILED)

    def _confine(self) -> None:
        """Before it imports anything."""
        keeper = os.getppid()
        self._streams = sys.stdin, sys.stdout, sys.stderr  # kept: they would be written out, and close what is below
        _core.die_with_parent(signal.SIGKILL)
        os.setsid()
        _core.adopt_orphans()  # a daemon is to be seen by the canary itself
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # rather this than the parent
        # 1 and not 0: a core that is piped to a program is limited by nothing else (core(5)).
        _limit(resource.RLIMIT_CORE, 1)
        _limit(resource.RLIMIT_FSIZE, self._limits.file_bytes)
        _limit(resource.RLIMIT_DATA, _data_bytes() + _ADDRESS_FACTOR * self._limits.memory)
        for number in range(1, signal.NSIG):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                signal.signal(number, _in_the_parents_place)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._parent.blocked)
        sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False)  # noqa: SIM115
        if os.getppid() != keeper:
            _exit(1)


def _in_the_parents_place(number: int, frame: FrameType | None) -> None:
    """Where the parent has a handler, which is none of the canary's: the signal does what it does by default."""
    if number not in _IGNORED_BY_DEFAULT:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def silence(keep: Iterable[int]) -> None:
    """Put /dev/null in the place of each descriptor but these, and of 0 to 2.

    Nothing is written out through what was inherited, and no connection is held open by it. A number that stays taken
    is not given to something else, which an object of the parent's would then take for its own.
    """
    null = os.open(os.devnull, os.O_RDWR)
    kept = {null, *keep}
    for fd in {0, 1, 2, *map(int, os.listdir("/proc/self/fd"))} - kept:
        with contextlib.suppress(OSError):
            if fd > 2:
                os.fstat(fd)  # the one that listed them is closed
            os.dup2(null, fd, inheritable=fd <= 2)
    os.close(null)


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


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _data_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")


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
