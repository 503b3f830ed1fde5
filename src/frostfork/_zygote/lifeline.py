# SPDX-License-Identifier: Apache-2.0
"""A pipe into which nobody ever writes: its other end closes when the owner ends, however it does.

PR_SET_PDEATHSIG would do it for a child, but it fires when the *thread* that forked ends, and a worker's parent is not
its owner. So the kernel is asked for a signal when the pipe changes (O_ASYNC), as when its writing end is closed
for the last time. F_SETSIG makes that SIGKILL, which ends even a process that hangs in C code. Each process opens the
pipe anew: who gets the signal is a property of the open file, which would otherwise be shared.

A worker may execute another program, and stays a worker: its lifeline stays open across that. What it starts beside
itself may have the descriptor, too, unless it closes what it was not given; nothing can be read there, and the signal
is for the worker alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal

_F_SETSIG = getattr(fcntl, "F_SETSIG", 10)  # not known to Python everywhere


def make() -> tuple[int, int]:
    """Both ends, the reading one first."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # A template or a worker may give up its user, and must be able to open the pipe all the same.
    with contextlib.suppress(OSError):
        os.fchmod(reader, 0o444)
    return reader, writer


def arm(fd: int, *, across_exec: bool = False) -> int:
    """Let this process be killed when the pipe whose reading end is `fd` is closed by its writer.

    across_exec: also if it is another program by then.
    The new descriptor, to be kept open; -1 where it is refused (seccomp).
    """
    own = -1
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
        os.set_inheritable(own, across_exec)
        fcntl.fcntl(own, _F_SETSIG, int(signal.SIGKILL))
        fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    except (OSError, ValueError):
        with contextlib.suppress(OSError):
            os.close(own)
        return -1
    if is_cut(own):  # before the kernel knew that we want to be told
        os.kill(os.getpid(), signal.SIGKILL)
    return own


def is_cut(fd: int) -> bool:
    """Whether the writing end is closed."""
    poll = select.poll()
    poll.register(fd, 0)  # a hang-up is always told
    return bool(poll.poll(0))
