# SPDX-License-Identifier: Apache-2.0
"""Which open files a forked process keeps: those on a list, and no other."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection

# /dev/null, zero, full, random, urandom (devices.txt of the kernel): nothing is shared through them.
_HARMLESS = {os.makedev(1, minor) for minor in (3, 5, 7, 8, 9)}


def release(keep: Collection[int], disposable: Collection[int] = ()) -> None:
    """Let go of each descriptor but these, and of 0 to 2.

    Its number stays taken: an object that was inherited may close it later, and would then close what is another's. What
    has the number from now on refuses to be read or written (EBADF), so that nothing is lost or read without a word.
    disposable: those that no object will close. They are closed.
    """
    null = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
    spared = {0, 1, 2, null, *keep}
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd in spared:
            continue
        try:
            status = os.fstat(fd)
        except OSError:  # the one that listed them
            continue
        if fd in disposable:
            os.close(fd)
        elif not (stat.S_ISCHR(status.st_mode) and status.st_rdev in _HARMLESS):
            os.dup2(null, fd, inheritable=False)
    os.close(null)
