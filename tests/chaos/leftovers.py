# SPDX-License-Identifier: Apache-2.0
"""What a process has, and what is left when it should be gone."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading

from tests.chaos.calamities import parent_of


def descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def mappings() -> list[str]:
    with open("/proc/self/maps") as file:
        return [line.split(None, 5)[5].strip() for line in file if "frostfork-" in line or "/dev/shm" in line]


def rss(pid: int) -> int:
    """MB, or 0."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE >> 20
    except OSError:
        return 0


def left_over(before: dict[int, str], shared: set[str], directory: str) -> list[str]:
    """Everything that should have gone. Children are waited for, so that what they were can be told."""
    found = []
    children = [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == os.getpid()
    ]
    for pid in children:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
            found.append(f"process {file.read()[:60]}")
    found += [f"thread {each.name}" for each in threading.enumerate() if each is not threading.main_thread()]
    found += [f"descriptor {fd} {what}" for fd, what in descriptors().items() if before.get(fd) != what]
    found += [f"mapping {each}" for each in mappings()]
    found += [f"file {each}" for each in os.listdir(directory)]
    found += [f"shared memory {each}" for each in set(os.listdir("/dev/shm")) - shared if "frostfork" in each]
    return found


class Silence:
    """What workers write on standard error, and what the pool logs, is read and counted, and not shown."""

    def __init__(self) -> None:
        self.read, write = os.pipe()
        self.before = os.dup(2)
        os.dup2(write, 2)
        os.close(write)
        self.tail = b""
        self.bytes = 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while data := os.read(self.read, 65536):
            self.bytes += len(data)
            if b"~~~~" not in data:
                self.tail = (self.tail + data)[-200_000:]

    def end(self) -> bytes:
        os.dup2(self.before, 2)
        os.close(self.before)
        self.thread.join(10)
        os.close(self.read)
        return self.tail
