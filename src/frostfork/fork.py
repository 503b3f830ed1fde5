# SPDX-License-Identifier: Apache-2.0
"""fork() and install(): forks whose children stop writing into the memory that they share.

The child freezes as the first thing it does: all that it inherited leaves the garbage collector's sight, so that
no collection of the child writes into inherited pages. The parent is left alone. Its collector runs as before,
and nothing piles up in it, however often it forks.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import TYPE_CHECKING

from frostfork import _core, _end
from frostfork.errors import BaselineError
from frostfork.pages import Baseline

if TYPE_CHECKING:
    from types import TracebackType

# Bound once: whoever mocks gc.freeze or swaps os.fork later does not change what ours do.
_freeze = gc.freeze
_os_fork = os.fork


class _State:
    """What this process knows of its forks. One per process: a child inherits it and goes on with it."""

    def __init__(self) -> None:
        self.installations = 0
        self.baselines = 0  # installations that want a baseline
        self.os_fork_claims = 0  # installations that replaced os.fork
        self.hooked = False
        self.pending: _core.BaselineHandle | None = (
            None  # reserved by the parent for the child about to be forked
        )
        self.pending_error: OSError | None = None
        self.forking = False  # fork() itself sees to the baseline
        self.child_pid = 0  # the process that the two below are about: a child inherits its parent's
        self.child: Baseline | None = None
        self.child_error: OSError | None = None


_state = _State()


def fork(*, freeze: bool = True, baseline: bool = False) -> int:
    """Fork like os.fork: 0 in the child, its pid in the parent, OSError if there can be no child.

    freeze: call gc.freeze in the child before any other Python code runs there, at-fork hooks included.
    baseline: record the child's pages at that same moment, for child_baseline() in the child.

    The audit event and the at-fork hooks are os.fork's. On Python 3.12 and newer a process with threads gets
    os.fork's DeprecationWarning, with the names of the threads.
    """
    return _fork(freeze, baseline)


def _fork(freeze: bool, baseline: bool) -> int:
    """fork() and its stand-in for os.fork: both call this directly, so that warnings find the caller two frames up."""
    if freeze:
        _end.prepare()
    handle = _core.BaselineHandle() if baseline else None
    _state.forking = handle is not None
    try:
        pid, error = _core.fork(freeze, handle)
    finally:
        _state.forking = False
    if pid == 0:
        if handle is not None:
            _keep(handle, error)
    elif sys.version_info >= (3, 12) and _core.threads() != 1:
        _warn_of_threads()
    return pid


def fork_quietly() -> int:
    """fork() for a process that forks often and knows its threads: nobody looks at each of them for a warning."""
    _end.prepare()
    pid, _ = _core.fork(True, None)
    return pid


def child_baseline() -> Baseline:
    """The baseline taken in this process when it was forked. Raises BaselineError where there is none."""
    mine = _state.child_pid == os.getpid()
    if mine and _state.child is not None:
        return _state.child
    if mine and _state.child_error is not None:
        raise BaselineError(
            "the baseline could not be taken when this process was forked"
        ) from _state.child_error
    raise BaselineError(
        "this process was not forked with a baseline: see fork(baseline=True), install(baseline=True)"
    )


class Installation:
    """The effect of one install(); ends with uninstall(), or with the `with` block."""

    def __init__(self, *, baseline: bool, replace_os_fork: bool) -> None:
        self._baseline = baseline
        self._replaced = replace_os_fork
        self._active = True

    @property
    def active(self) -> bool:
        return self._active

    def uninstall(self) -> None:
        """Undo it; once is enough. In a child it undoes the child's share and leaves the parent's."""
        if not self._active:
            return
        self._active = False
        _state.installations -= 1
        _state.baselines -= self._baseline
        if self._replaced:
            _release_os_fork()

    def __enter__(self) -> Installation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.uninstall()


def install(*, baseline: bool = False, replace_os_fork: bool = False) -> Installation:
    """Let every later fork of this process freeze its child, whoever calls it.

    It works through an at-fork hook, which Python runs for os.fork, multiprocessing and every library that tells
    CPython of its forks. replace_os_fork=True also puts frostfork.fork in the place of os.fork, which freezes
    earlier: before the hooks of others. Installing twice is the same as once; each Installation is undone by
    itself. CPython has no way to take a hook back: after the last uninstall() it stays and does nothing.
    """
    if not _state.hooked:
        os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
        _state.hooked = True
    _end.prepare()
    _state.installations += 1
    _state.baselines += baseline
    if replace_os_fork:
        _claim_os_fork()
    return Installation(baseline=baseline, replace_os_fork=replace_os_fork)


def _before() -> None:
    if _state.baselines > 0 and not _state.forking:
        try:
            _state.pending = _core.BaselineHandle()
        except OSError as error:
            _state.pending_error = error


def _after_in_parent() -> None:
    _state.pending = None
    _state.pending_error = None


def _after_in_child() -> None:
    if _state.installations == 0:
        return
    _freeze()
    handle, _state.pending = _state.pending, None
    refused, _state.pending_error = _state.pending_error, None
    if handle is not None:
        try:
            handle.take()
        except OSError as error:
            refused = error
    if handle is not None or refused is not None:
        _keep(handle, (refused.errno or 0) if refused else 0)


def _keep(handle: _core.BaselineHandle | None, error: int) -> None:
    _state.child_pid = os.getpid()
    _state.child = Baseline(handle) if handle is not None and not error else None
    _state.child_error = OSError(error, os.strerror(error), "/proc/self/pagemap") if error else None


def _fork_for_os() -> int:
    return _fork(True, _state.baselines > 0)


def _claim_os_fork() -> None:
    _state.os_fork_claims += 1
    if os.fork is _os_fork:
        os.fork = _fork_for_os


def _release_os_fork() -> None:
    _state.os_fork_claims -= 1
    # Someone else's replacement that came after ours stays: it may call ours, which goes on to work.
    if _state.os_fork_claims == 0 and os.fork is _fork_for_os:
        os.fork = _os_fork


def _warn_of_threads() -> None:
    """os.fork's warning of 3.12, with names. The child exists, so nothing may keep its pid from the caller."""
    try:
        names = other_threads()
        if names:
            warnings.warn(
                f"This process (pid={os.getpid()}) is multi-threaded, use of fork() may lead to deadlocks in the "
                f"child. Threads: {', '.join(names)}.",
                DeprecationWarning,
                stacklevel=4,
            )
    except Exception as error:  # a filter made it an error, or showing it failed
        _core.report_unraisable(error, fork)


def other_threads() -> list[str]:
    """Names of the threads beside the calling one: Python's where it knows them, the kernel's otherwise."""
    native_ids = os.listdir("/proc/self/task")
    if len(native_ids) == 1:
        return []
    threading = sys.modules.get("threading")
    known = {thread.native_id: thread.name for thread in threading.enumerate()} if threading else {}
    me = threading.get_native_id() if threading else os.getpid()
    names = []
    for native_id in map(int, native_ids):
        if native_id == me:
            continue
        name = known.get(native_id)
        if name is None:
            try:
                with open(f"/proc/self/task/{native_id}/comm", errors="replace") as comm:
                    name = f"{comm.read().strip()} (native thread {native_id})"
            except OSError:
                continue  # it has ended meanwhile
        names.append(name)
    return names
