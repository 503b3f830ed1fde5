# SPDX-License-Identifier: Apache-2.0
"""What befalls a pool in a storm."""

from __future__ import annotations

import collections
import contextlib
import os
import random
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator

from frostfork import ForkPool

PAUSE = 0.03  # seconds between two, at the mean
CALM = 0.25  # seconds in which a limit is in force, at most
_CALAMITIES = {
    "kill_worker": 20,
    "segv_worker": 5,
    "stop_worker": 3,
    "interrupt_worker": 5,
    "kill_zygote": 2,
    "kill_root": 1,
    "refork": 1,
    "take_descriptors": 2,
    "take_files": 2,
    "take_forks": 2,
}


class Calamities:
    """Strikes now and then, in a thread of its own, until `over` is set. complain: is told what fails here."""

    def __init__(self, random: random.Random, pool: ForkPool, complain: Callable[[str], None]) -> None:
        self._random = random
        self._pool = pool
        self._complain = complain
        self.counts: collections.Counter[str] = collections.Counter()
        self.last: collections.deque[tuple[float, str]] = collections.deque(maxlen=40)
        self.over = threading.Event()
        self._born = time.monotonic()

    def run(self) -> None:
        r = self._random
        names = [*_CALAMITIES]
        first = r.sample(names, len(names))  # each once, then as often as its weight says
        while not self.over.wait(r.expovariate(1 / PAUSE)):
            name = first.pop() if first else r.choices(names, [_CALAMITIES[each] for each in names])[0]
            try:
                getattr(self, "_" + name)(r)
            except Exception:
                self._complain(f"the storm itself failed: {traceback.format_exc()}")
            self.counts[f"calamity: {name}"] += 1
            self.last.append((round(time.monotonic() - self._born, 3), name))

    def _kill_worker(self, r: random.Random, number: int = signal.SIGKILL) -> None:
        workers = self._pool.stats().workers
        if workers:
            strike(r.choice(workers).pid, number)

    def _segv_worker(self, r: random.Random) -> None:
        self._kill_worker(r, signal.SIGSEGV)

    def _stop_worker(self, r: random.Random) -> None:
        self._kill_worker(r, signal.SIGSTOP)

    def _interrupt_worker(self, r: random.Random) -> None:
        self._kill_worker(r, signal.SIGINT)

    def _kill_zygote(self, r: random.Random) -> None:
        known = family()
        zygotes = [pid for pid in known if known.get(known[pid]) == os.getpid()]
        if zygotes:
            strike(r.choice(zygotes), signal.SIGKILL)

    def _kill_root(self, r: random.Random) -> None:
        known = family()
        roots = [pid for pid, parent in known.items() if parent == os.getpid()]
        if roots:
            strike(r.choice(roots), signal.SIGKILL)

    def _refork(self, r: random.Random) -> None:
        self._pool.refork()

    def _take_descriptors(self, r: random.Random) -> None:
        """Few are left for this process."""
        with limited(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) + r.randrange(8)):
            time.sleep(r.random() * CALM)

    def _take_files(self, r: random.Random) -> None:
        """As on a full disk: nothing large can be written by this process, not even into memory."""
        with limited(resource.RLIMIT_FSIZE, 32 << 10):
            time.sleep(r.random() * CALM)

    def _take_forks(self, r: random.Random) -> None:
        """The zygote may not fork; needs an ordinary uid."""
        known = family()
        zygotes = [pid for pid in known if known.get(known[pid]) == os.getpid()]
        for pid in zygotes:
            with contextlib.suppress(OSError), limited(resource.RLIMIT_NPROC, 1, pid):
                time.sleep(r.random() * CALM)


def family() -> dict[int, int]:
    """Each descendant and its parent."""
    found: dict[int, int] = {}
    parents = {int(name): parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    new = {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new and pid not in found}
        found.update((pid, parents[pid]) for pid in new)
    return found


def parent_of(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return 0


def strike(pid: int, number: int) -> None:
    """Send a signal to a process below this one, and never to one that got its number since."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:  # it has ended, or there is no descriptor left
        return
    try:
        above = pid
        while above > 1 and above != os.getpid():
            above = parent_of(above)
        if above == os.getpid():
            signal.pidfd_send_signal(fd, number)
    except OSError:
        pass
    finally:
        os.close(fd)


@contextlib.contextmanager
def limited(which: int, soft: int, pid: int = 0) -> Iterator[None]:
    before, hard = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    try:
        yield
    finally:
        resource.prlimit(pid, which, (before, hard))
