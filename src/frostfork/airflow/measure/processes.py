# SPDX-License-Identifier: Apache-2.0
"""A process and its descendants as /proc shows them, cheap enough to be asked every few milliseconds.

psutil's `children()` reads the stat file of every process of the machine, and `/proc/PID/task/TID/children`
needs a kernel option that many kernels lack. A parent hardly ever changes, so each process is read once here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rollup:
    """Totals of a process's mappings in bytes; `private` is Private_Clean + Private_Dirty."""

    rss: int
    pss: int
    private: int


class Descendants:
    """The living descendants of one process."""

    def __init__(self, root: int) -> None:
        self._family = {root}
        self._root = root
        self._strangers: set[int] = set()

    def find(self) -> list[int]:
        """Return their pids, in ascending order."""
        present = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self._strangers &= present
        self._family &= present | {self._root}
        # Ascending, so that a parent is known before its children.
        for pid in sorted(present - self._strangers - self._family):
            (self._family if parent_of(pid) in self._family else self._strangers).add(pid)
        return sorted(self._family - {self._root})


def busy_seconds() -> float:
    """CPU seconds that all processors of the machine have spent on anything but waiting, since boot."""
    user, nice, system, _, _, *interrupts = (
        Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9]
    )
    ticks = sum(map(int, (user, nice, system, *interrupts)))
    return ticks / os.sysconf("SC_CLK_TCK")


def parent_of(pid: int) -> int | None:
    """Return the parent's pid, or None if the process is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in brackets may hold anything, brackets too.
    return int(stat[stat.rindex(b")") + 1 :].split()[1])


def cpu_seconds(pid: int | None) -> float:
    """CPU seconds of a process without its children; 0 if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    user, system = stat[stat.rindex(b")") + 1 :].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def rollup(pid: int) -> Rollup | None:
    """Read /proc/PID/smaps_rollup; None if the process is gone or has given up its memory.

    Raises PermissionError for a process of another user, or one that has made itself undumpable.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(b":") for line in text.splitlines()[1:])
    }
    if not found.get(b"Rss"):
        return None
    return Rollup(found[b"Rss"], found[b"Pss"], found[b"Private_Clean"] + found[b"Private_Dirty"])
