# SPDX-License-Identifier: Apache-2.0
"""A pool in a storm: tasks go on while workers, the zygote and the root are killed and everything runs out.

    python -m tests.chaos.storm --tasks 10000 --seed 7

Every future must end, right or with a reason that this storm gives; no task runs twice without leave; afterwards no process,
thread, descriptor, file or mapping is left. Prints what it did; ends with 1, and its seed, if anything is wrong. Run it in a
process of its own: it changes limits, and adopts whatever loses its parent so as to see it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import gc
import logging
import mmap
import os
import random
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

from frostfork import ForkPool, RecyclePolicy
from frostfork._core import adopt_orphans
from frostfork.errors import RemoteError, TaskTimeout, WorkerDied
from tests.chaos import tasks

WORKERS = 4
MOST_OPEN = 200  # futures at a time
PAUSE = 0.03  # seconds between two calamities, at the mean
LAST_SECONDS = 60.0  # for what is left when the storm is over
CALM = 0.25  # seconds in which a limit is in force
RETRIES = 2


class Case(NamedTuple):
    """A task, and how it may end. value: what it gives, if that is told. reasons: what it may raise, beside its worker's death."""

    submit: Callable[[Any], Future[Any]]
    check: Callable[[Any], bool]
    reasons: tuple[type[BaseException], ...] = ()
    retries: int = 0
    always: bool = False  # one of the reasons, never a value


class Storm:
    def __init__(self, random: random.Random, directory: str, args: argparse.Namespace) -> None:
        self.random = random
        self.args = args
        self.path = os.path.join(directory, "marks")
        with open(self.path, "wb") as file:
            file.truncate(args.marks)
        with open(self.path, "r+b") as file:
            self.marks = mmap.mmap(file.fileno(), 0)
        self.born = time.monotonic()
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.last: collections.deque[tuple[float, str]] = collections.deque(maxlen=40)
        self.over = threading.Event()
        self.next_number = 0
        self.pool = ForkPool(
            WORKERS,
            initializer=tasks.begin,
            initargs=(self.path,),
            recycle=RecyclePolicy(max_tasks=300, max_age=5.0, max_private_bytes=256 << 20),
            heartbeat=0.3,
            ready_timeout=20.0,
            refork_after=2000,
            start=args.start,
        )

    def complain(self, text: str) -> None:
        self.wrong.append(text)
        print(f"WRONG after {time.monotonic() - self.born:.3f} s: {text}", flush=True)

    # --- tasks

    def case(self, number: int) -> tuple[str, Case]:
        r = self.random
        kind = r.choices(*zip(*_WEIGHTS.items(), strict=True))[0]
        pool, again = self.pool, self.pool.with_options(retries=RETRIES)
        if kind == "double":
            return kind, Case(lambda p: pool.submit(tasks.double, number), lambda v: v == 2 * number)
        if kind == "again":
            return kind, Case(lambda p: again.submit(tasks.double, number), lambda v: v == 2 * number, (), RETRIES)
        if kind == "wait":
            seconds = r.random() * 0.02
            return kind, Case(lambda p: pool.submit(tasks.wait, number, seconds), lambda v: v == number)
        if kind == "work":
            rounds = r.randrange(5000)
            right = sum(i * i for i in range(rounds))
            return kind, Case(lambda p: pool.submit(tasks.work, number, rounds), lambda v: v == right)
        if kind == "echo":
            data = bytearray(r.randbytes(r.choice((10, 1000, 70_000, 400_000))))
            right = bytes(reversed(data))
            return kind, Case(lambda p: pool.submit(tasks.echo, number, data), lambda v: v == right, _LARGE)
        if kind == "checksum":
            data = r.randbytes(r.choice((10, 60_000, 70_000, 1 << 20)))
            return kind, Case(
                lambda p: pool.submit(tasks.checksum, number, data), lambda v: v == zlib.crc32(data), _LARGE
            )
        if kind == "blank":
            size = r.choice((10, 66_000, 4 << 20))
            return kind, Case(
                lambda p: pool.submit(tasks.blank, number, size), lambda v: v == bytes(size), _LARGE
            )
        if kind == "fail":
            return kind, Case(lambda p: pool.submit(tasks.fail, number), _no, (KeyError,), always=True)
        if kind == "fail strangely":
            return kind, Case(lambda p: pool.submit(tasks.fail_strangely, number), _no, (RemoteError,), always=True)
        if kind == "leave":
            return kind, Case(lambda p: pool.submit(tasks.leave, number), _no, (SystemExit,), always=True)
        if kind == "refuse":
            where = r.choice(("here", "there"))
            if r.random() < 0.5:
                return kind, Case(
                    lambda p: pool.submit(tasks.give_what_refuses, number, where), _no, (RuntimeError, RemoteError), always=True
                )
            thing = tasks.Refuses(where)
            return kind, Case(lambda p: pool.submit(tasks.take, number, thing), _no, (RuntimeError, RemoteError), always=True)
        if kind == "say":
            size = r.choice((10, 5000, 100_000))
            return kind, Case(lambda p: pool.submit(tasks.say, number, size), lambda v: v == number)
        if kind == "die":
            by = r.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, -1, -3))
            return kind, Case(lambda p: pool.submit(tasks.die, number, by), _no, always=True)
        if kind == "stop":
            return kind, Case(lambda p: pool.submit(tasks.die, number, signal.SIGSTOP), _no, always=True)
        if kind == "burst":
            return kind, Case(lambda p: pool.submit(tasks.burst, number), _no, (MemoryError,), always=True)
        if kind == "drown":
            return kind, Case(
                lambda p: pool.submit(tasks.drown, number), _no, (MemoryError, RemoteError), always=True
            )
        if kind == "slow":
            view = pool.with_options(timeout=0.05)
            return kind, Case(lambda p: view.submit(tasks.wait, number, 30.0), _no, (TaskTimeout,), always=True)
        if kind == "overrun":
            view = pool.with_options(timeout=0.05, hard_timeout=0.2)
            return kind, Case(lambda p: view.submit(tasks.overrun, number, 30.0), _no, (TaskTimeout,), always=True)
        assert kind == "twice"
        return kind, Case(lambda p: pool.submit(tasks.leave_twice, number), lambda v: v == number, (BlockingIOError,))

    def run_tasks(self, number_of: int, until: float) -> None:
        """From several threads at once, each with some futures open."""
        left = iter(range(number_of))
        lock = threading.Lock()

        def submit(seed: int) -> None:
            mine: collections.deque[tuple[int, str, Case, Future[Any]]] = collections.deque()
            r = random.Random(seed)
            while time.monotonic() < until:
                with lock:
                    number = next(left, None)
                    if number is None:
                        break
                    number = self.next_number % self.args.marks
                    self.next_number += 1
                    self.marks[number] = 0
                    kind, case = self.case(number)
                try:
                    mine.append((number, kind, case, case.submit(self.pool)))
                except BaseException as error:
                    self.complain(f"submit of {kind} raised {error!r}")
                    break
                if r.random() < 0.01:
                    victim = r.choice(mine)
                    if victim[3].cancel():
                        self.counts["cancelled"] += 1
                while len(mine) > MOST_OPEN // THREADS:
                    self.check(*mine.popleft())
            while mine:
                self.check(*mine.popleft())

        threads = [threading.Thread(target=submit, args=(self.random.random(),)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def check(self, number: int, kind: str, case: Case, future: Future[Any]) -> None:
        if future.cancelled():
            if self.marks[number]:
                self.complain(f"{kind} {number} ran though it was cancelled")
            return
        try:
            value = future.result(LAST_SECONDS)
        except TimeoutError as error:
            if not isinstance(error, TaskTimeout):
                self.complain(f"{kind} {number} did not end: {future!r}, {self.pool.stats()}")
                return
            ended: BaseException | None = error
        except BaseException as error:
            ended = error
        else:
            ended = None
            if case.always or not case.check(value):
                self.complain(f"{kind} {number} gave {str(value)[:100]}")
        self.counts[kind] += 1
        if ended is not None:
            self.counts[f"{kind}: {type(ended).__name__}"] += 1
            # Memory ends in the worker in which a task has limited it, and an interrupt meets whatever runs.
            allowed = (*case.reasons, WorkerDied, KeyboardInterrupt, MemoryError)
            if not isinstance(ended, allowed):
                text = "".join(traceback.format_exception(type(ended), ended, ended.__traceback__))
                self.complain(f"{kind} {number} raised {text}")
            if not str(ended) and not isinstance(ended, (MemoryError, KeyboardInterrupt)):
                self.complain(f"{kind} {number} gave no reason: {ended!r}")
        ran = self.marks[number]
        if ran > 1 + case.retries or (ended is None and ran == 0):
            self.complain(f"{kind} {number} ran {ran} times and ended with {ended!r}; {getattr(future, 'record', None)}")

    # --- calamities

    def rage(self, seed: float) -> None:
        r = random.Random(seed)
        names = [*_CALAMITIES]
        first = r.sample(names, len(names))  # each once, then as often as its weight says
        while not self.over.wait(r.expovariate(1 / PAUSE)):
            name = first.pop() if first else r.choices(names, [_CALAMITIES[each] for each in names])[0]
            try:
                getattr(self, "_" + name)(r)
            except Exception:
                self.complain(f"the storm itself failed: {traceback.format_exc()}")
            self.counts[f"calamity: {name}"] += 1
            self.last.append((round(time.monotonic() - self.born, 3), name))

    def _kill_worker(self, r: random.Random, number: int = signal.SIGKILL) -> None:
        workers = self.pool.stats().workers
        if workers:
            strike(r.choice(workers).pid, number)

    def _segv_worker(self, r: random.Random) -> None:
        self._kill_worker(r, signal.SIGSEGV)

    def _stop_worker(self, r: random.Random) -> None:
        self._kill_worker(r, signal.SIGSTOP)

    def _interrupt_worker(self, r: random.Random) -> None:
        self._kill_worker(r, signal.SIGINT)

    def _kill_zygote(self, r: random.Random) -> None:
        family = self.family()
        zygotes = [pid for pid in family if family[pid] in family and family[family[pid]] == os.getpid()]
        if zygotes:
            strike(r.choice(zygotes), signal.SIGKILL)

    def _kill_root(self, r: random.Random) -> None:
        family = self.family()
        roots = [pid for pid, parent in family.items() if parent == os.getpid()]
        if roots:
            strike(r.choice(roots), signal.SIGKILL)

    def _refork(self, r: random.Random) -> None:
        self.pool.refork()

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
        family = self.family()
        zygotes = [pid for pid in family if family[pid] in family and family[family[pid]] == os.getpid()]
        for pid in zygotes:
            with contextlib.suppress(OSError), limited(resource.RLIMIT_NPROC, 1, pid):
                time.sleep(r.random() * CALM)

    def family(self) -> dict[int, int]:
        """Each descendant and its parent."""
        found: dict[int, int] = {}
        parents = {int(name): parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
        new = {os.getpid()}
        while new:
            new = {pid for pid, parent in parents.items() if parent in new and pid not in found}
            found.update((pid, parents[pid]) for pid in new)
        return found


THREADS = 4
_WEIGHTS = {
    "double": 300,
    "again": 60,
    "wait": 60,
    "work": 60,
    "echo": 30,
    "checksum": 30,
    "blank": 30,
    "fail": 20,
    "fail strangely": 5,
    "leave": 5,
    "refuse": 10,
    "say": 10,
    "die": 5,
    "stop": 1,
    "burst": 3,
    "drown": 1,
    "slow": 3,
    "overrun": 1,
    "twice": 1,
}
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


_LARGE = (OSError, RemoteError)  # where files or descriptors run out


def _no(value: object) -> bool:
    return False


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


# --- what is left


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
    children = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent_of(pid) == os.getpid()]
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


def run(args: argparse.Namespace, directory: str) -> int:
    seed = args.seed
    r = random.Random(seed)
    adopt_orphans()
    before, shared = descriptors(), set(os.listdir("/dev/shm"))
    start = time.monotonic()
    # Before the pool, since a fork of this process has none of its threads.
    storm = Storm(r, directory, args)
    silence = Silence()
    rage = threading.Thread(target=storm.rage, args=(r.random(),))
    report = threading.Thread(target=watch, args=(storm, start, args.report))
    for thread in (rage, report):
        thread.start()
    until = start + args.seconds if args.seconds else float("inf")
    storm.run_tasks(args.tasks or 1 << 62, until)
    storm.over.set()
    rage.join()
    report.join()
    with limited(resource.RLIMIT_CORE, 0):
        ending = time.monotonic()
        stats = storm.pool.stats()
        storm.pool.shutdown()
        took = time.monotonic() - ending
    if took > LAST_SECONDS:
        storm.complain(f"shutdown took {took:.1f} s")
    if stats.queued or stats.running or stats.submitted != stats.done + stats.failed + stats.cancelled:
        storm.complain(f"the counts do not add up: {stats._replace(workers=())}")
    storm.marks.close()
    os.unlink(storm.path)
    wrong, counts, numbers, last = storm.wrong, storm.counts, storm.next_number, storm.last
    del storm
    said = silence.end()
    for _ in range(3):  # what finalizers let go goes at the next
        gc.collect()
    with contextlib.suppress(ChildProcessError):  # orphans of workers that had forked
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    for each in left_over(before, shared, directory):
        wrong.append(f"left behind: {each}")
        print(wrong[-1])
    for name, count in sorted(counts.items()):
        print(f"{count:8}  {name}")
    print(
        f"{numbers} tasks in {time.monotonic() - start:.1f} s, {stats.started} workers, {stats.generation} generations, "
        f"shutdown in {took:.2f} s, {silence.bytes} bytes of standard error"
    )
    if b"met an error" in said:
        wrong.append("a thread of the pool met an error")
    if wrong:
        print("the last calamities:", *last)
        print(said.decode(errors="replace")[-20_000:])
        print(f"{len(wrong)} wrong with --seed {seed} --start {args.start}")
    return 1 if wrong else 0


def watch(storm: Storm, start: float, seconds: float) -> None:
    """RSS of owner and zygote over time."""
    first = 0
    while not storm.over.wait(seconds):
        family = storm.family()
        roots = [pid for pid, parent in family.items() if parent == os.getpid()]
        zygotes = [pid for pid, parent in family.items() if parent in roots]
        mine = rss(os.getpid())
        first = first or mine
        print(
            f"{time.monotonic() - start:7.0f} s  {storm.next_number:9} tasks  RSS in MB: owner {mine}, "
            f"root {[rss(pid) for pid in roots]}, zygote {[rss(pid) for pid in zygotes]}; "
            f"descriptors {len(os.listdir('/proc/self/fd'))}, processes {len(family)}, wrong {len(storm.wrong)}",
            flush=True,
        )
        if mine > 2 * first + 100:
            storm.complain(f"the owner grew from {first} to {mine} MB")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=0, help="how many; 0: as many as there is time for")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long; 0: until all tasks are done")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--start", choices=("fork", "exec"), default="fork")
    parser.add_argument("--uid", type=int, default=0, help="become this user first: limits do not hold for root")
    parser.add_argument("--report", type=float, default=60.0, help="seconds between two reports on memory")
    args = parser.parse_args()
    args.marks = 1 << 20
    args.seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    if not args.tasks and not args.seconds:
        parser.error("one of --tasks and --seconds is needed")
    if args.uid and os.getuid() == 0:
        os.setgroups([])
        os.setgid(args.uid)
        os.setuid(args.uid)
    faulthandler.register(signal.SIGUSR1)
    logging.basicConfig()
    print(f"seed {args.seed}, start {args.start}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        tempfile.tempdir = directory
        return run(args, directory)


if __name__ == "__main__":
    sys.exit(main())
