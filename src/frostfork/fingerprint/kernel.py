# SPDX-License-Identifier: Apache-2.0
"""What the kernel and the C library keep of a process: threads, children, descriptors, signals and the like."""

from __future__ import annotations

import _locale
import _signal  # type: ignore[import-not-found]
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from frostfork import _core
from frostfork.fingerprint.probe import Effect, Identities, Probe, becomes, named, read

# An import may end its threads, files and children a moment later than itself. Naps, not a time: on a busy machine
# they take longer, as all else does.
_NAPS, _NAP_SECONDS = 50, 0.001
_NOT_STATE = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


class _Patience:
    """What is new, and is still there after a moment. Once for each: all that contain an import see the same."""

    def __init__(self, look: Callable[[], frozenset[str]]) -> None:
        self._look = look
        self._stays: frozenset[str] = frozenset()

    def has_news(self, before: frozenset[str]) -> bool:
        return bool(self._look() - before - self._stays)

    def left(self, before: frozenset[str]) -> frozenset[str]:
        for _ in range(_NAPS):
            if not self.has_news(before):
                break
            time.sleep(_NAP_SECONDS)
        now = self._look()
        self._stays = (self._stays | (now - before)) & now
        return now - before


def _threads() -> frozenset[str]:
    return frozenset(os.listdir("/proc/self/task"))


_patient_threads = _Patience(_threads)


def _explain_threads(before: frozenset[str], _after: frozenset[str]) -> Iterator[Effect]:
    left = _patient_threads.left(before)
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    for task in sorted(left):
        if task in names:
            yield "thread", f"left the thread {names[task]!r} running"
        elif comm := read(f"/proc/self/task/{task}/comm"):
            yield "thread", f"left the native thread {comm.strip()!r} ({task}) running"


def _children() -> frozenset[str]:
    """Children that run. An ended one that nobody waited for is the module's own affair."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return frozenset()
    return frozenset(child for child in children_of(os.getpid()) if not _is_zombie(child))


def children_of(pid: int) -> list[str]:
    """Pids as text. The kernel's own list where it keeps one (CONFIG_PROC_CHILDREN), all processes otherwise."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    listed = [read(f"/proc/{pid}/task/{task}/children") for task in tasks]
    if any(text is not None for text in listed):
        return [child for text in listed for child in (text or "").split()]
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        fields = (read(f"/proc/{name}/stat") or "").rpartition(")")[2].split()
        if fields[1:2] == [str(pid)]:
            found.append(name)
    return found


def _is_zombie(pid: str) -> bool:
    return (read(f"/proc/{pid}/stat") or ") Z").rpartition(")")[2].split()[0] in "ZX"


_patient_children = _Patience(_children)


def _explain_children(before: frozenset[str], _after: frozenset[str]) -> Iterator[Effect]:
    for pid in sorted(_patient_children.left(before)):
        yield "process", f"left the process {(read(f'/proc/{pid}/comm') or '?').strip()!r} ({pid}) running"


def _descriptors() -> frozenset[str]:
    # To list a folder takes a descriptor of its own: the next free one, which is found out by taking it.
    spare = os.open("/", os.O_PATH)
    os.close(spare)
    return frozenset(os.listdir("/proc/self/fd")) - {str(spare)}


_patient_descriptors = _Patience(_descriptors)


def _explain_descriptors(before: frozenset[str], _after: frozenset[str]) -> Iterator[Effect]:
    if _patient_descriptors.has_news(before):
        gc.collect()  # what only garbage holds is not left open
    for fd in sorted(_patient_descriptors.left(before)):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target in _NOT_STATE or _core.is_of_library(int(fd)):
            continue
        yield ("socket" if target.startswith("socket:") else "file"), f"left {target} open (descriptor {fd})"
        if "\nlock:" in (read(f"/proc/self/fdinfo/{fd}") or ""):
            yield "lock", f"left a lock on {target}"
    for fd in sorted(before - _descriptors()):
        yield "file", f"closed descriptor {fd}, which it had not opened"


def _signals() -> tuple[Identities, tuple[int, ...], frozenset[int], tuple[bool, ...]]:
    handlers = Identities(_signal.getsignal(number) for number in range(1, 65))
    blocked = frozenset(map(int, _signal.pthread_sigmask(_signal.SIG_BLOCK, ())))
    timers = tuple(_signal.getitimer(which)[0] > 0 for which in (0, 1, 2))
    return handlers, _core.signal_actions(), blocked, timers


def _explain_signals(before: Any, after: Any) -> Iterator[Effect]:
    for number in range(1, 65):
        old, new = before[0][number - 1], after[0][number - 1]
        if old is not new:
            yield "signal", f"set the handler of {_signal_name(number)} to {named(new)}"
        elif before[1][number - 1] != after[1][number - 1]:
            yield "signal", f"set the handler of {_signal_name(number)} in C"
    for number in sorted(before[2] ^ after[2]):
        yield "signal", f"{'blocked' if number in after[2] else 'unblocked'} {_signal_name(number)}"
    if before[3] != after[3]:
        yield "signal", "set an interval timer, which sends a signal later"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment() -> tuple[dict[Any, Any], int]:
    data = getattr(os.environ, "_data", os.environ)  # encoded, so that a copy decodes nothing
    return dict(data), _core.environment_sum()


def _explain_environment(before: Any, after: Any) -> Iterator[Effect]:
    old, new = before[0], after[0]
    for name in sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)):
        verb = "unset" if name not in new else "changed" if name in old else "set"
        # No values: they may be secrets.
        yield "environment", f"{verb} {os.fsdecode(name)}"
    if old == new:
        yield "environment", "changed the environment without os.environ, as setenv in C does"


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "?"


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _megabytes_printed() -> int:
    try:
        return os.fstat(1).st_size >> 20
    except OSError:
        return 0


def _locale_now() -> str:
    return _locale.setlocale(_locale.LC_ALL)


PROBES = (
    Probe(_threads, _explain_threads),
    Probe(_children, _explain_children),
    Probe(_descriptors, _explain_descriptors),
    Probe(_signals, _explain_signals),
    Probe(_environment, _explain_environment),
    Probe(_megabytes_printed, becomes("output", "printed more than {after} MB")),
    Probe(_locale_now, becomes("locale", "set the locale to {after}")),
    Probe(_directory, becomes("directory", "changed the working directory to {after}")),
    Probe(_umask, becomes("umask", "set the umask from {before:o} to {after:o}")),
)
