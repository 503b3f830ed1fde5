# SPDX-License-Identifier: Apache-2.0
"""Sees a child end, and ends all that it started. Part of the template process, see frostfork._template."""

from __future__ import annotations

import os
import time

_TAIL = 4000  # bytes of what the child wrote that are kept
_TRIES = 1000
_KILL = 9  # signal.SIGKILL: to import signal would bring enum along


def watch(pid: int, reader: int, end: float) -> tuple[bool, bytes]:
    """Until the runner ends, or its time does. Returns whether it was late, and the end of what it wrote."""
    import select

    tail = b""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    try:
        process = os.pidfd_open(pid)
    except (OSError, AttributeError):  # an old kernel, or a filter of system calls
        process = -1
    else:
        poll.register(process, select.POLLIN)
    while True:
        left = end - time.perf_counter()
        if left <= 0:
            return True, tail
        ready = {fd for fd, _ in poll.poll(1000 * left if process >= 0 else min(20, 1000 * left))}
        if reader in ready:
            data = os.read(reader, 1 << 16)
            tail = (tail + data)[-_TAIL:]
            if not data:
                poll.unregister(reader)
        if process in ready or (
            process < 0 and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        ):
            return False, tail


def end(pid: int) -> tuple[int, float, int]:
    """End the runner and all that it started. Returns its status, its CPU seconds and its peak resident KB."""
    _kill(pid)
    _kill(-pid)
    _, status, usage = os.wait4(pid, 0)
    for _ in range(_TRIES):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        for child in _children():
            _kill(child)
            os.waitpid(child, 0)
    return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def _kill(pid: int) -> None:
    try:
        os.kill(pid, _KILL)
    except (ProcessLookupError, PermissionError):  # gone, or a program with another user's rights
        pass


def _children() -> list[int]:
    found = []
    me = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    if int(file.read().rpartition(b")")[2].split()[1]) == me:
                        found.append(int(name))
            except OSError:
                continue
    return found


def rest(reader: int) -> bytes:
    os.set_blocking(reader, False)
    try:
        return os.read(reader, 1 << 16)
    except BlockingIOError:
        return b""
