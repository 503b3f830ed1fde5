# SPDX-License-Identifier: Apache-2.0
"""A pool in a storm: tasks go on while workers, the zygote and the root are killed and everything runs out.

    python -m tests.chaos.storm --tasks 10000 --seed 7

Every future must end, right or with a reason that this storm gives; no task runs twice without leave; afterwards no
process, thread, descriptor, file or mapping is left. Prints what it did; ends with 1, and its seed, if anything is
wrong. It is a process of its own: it changes limits, and adopts whatever loses its parent so as to see it.
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
import signal
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import Future
from typing import Any

from frostfork import ForkPool, RecyclePolicy
from frostfork._core import adopt_orphans
from frostfork.errors import TaskTimeout, WorkerDied
from tests.chaos import tasks
from tests.chaos.calamities import Calamities, family, limited
from tests.chaos.cases import Case, choose
from tests.chaos.leftovers import Silence, descriptors, left_over, rss

WORKERS = 4
THREADS = 4  # that submit
MOST_OPEN = 200  # futures at a time
LAST_SECONDS = 60.0  # for what is left when the storm is over


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
                    kind, case = choose(self.random, self.pool, number)
                try:
                    mine.append((number, kind, case, case.submit()))
                except BaseException as error:
                    self.complain(f"submit of {kind} raised {error!r}")
                    break
                if r.random() < 0.05:
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
            self.complain(
                f"{kind} {number} ran {ran} times and ended with {ended!r}; {getattr(future, 'record', None)}"
            )


def run(args: argparse.Namespace, directory: str) -> int:
    seed = args.seed
    r = random.Random(seed)
    adopt_orphans()
    before, shared = descriptors(), set(os.listdir("/dev/shm"))
    start = time.monotonic()
    # Before the pool, since a fork of this process has none of its threads.
    storm = Storm(r, directory, args)
    silence = Silence()
    calamities = Calamities(random.Random(r.random()), storm.pool, storm.complain)
    rage = threading.Thread(target=calamities.run)
    report = threading.Thread(target=watch, args=(storm, calamities.over, start, args.report))
    for thread in (rage, report):
        thread.start()
    until = start + args.seconds if args.seconds else float("inf")
    storm.run_tasks(args.tasks or 1 << 62, until)
    calamities.over.set()
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
    wrong, counts, numbers, last = (
        storm.wrong,
        storm.counts + calamities.counts,
        storm.next_number,
        calamities.last,
    )
    del storm, calamities
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
        f"{numbers} tasks in {time.monotonic() - start:.1f} s, {stats.started} workers, "
        f"{stats.generation} generations, shutdown in {took:.2f} s, {silence.bytes} bytes of standard error"
    )
    if b"met an error" in said:
        wrong.append("a thread of the pool met an error")
    if wrong:
        print("the last calamities:", *last)
        print(said.decode(errors="replace")[-20_000:])
        print(f"{len(wrong)} wrong with --seed {seed} --start {args.start}")
    return 1 if wrong else 0


def watch(storm: Storm, over: threading.Event, start: float, seconds: float) -> None:
    """RSS of owner and zygote over time."""
    first = 0
    while not over.wait(seconds):
        known = family()
        roots = [pid for pid, parent in known.items() if parent == os.getpid() and rss(pid)]
        zygotes = [pid for pid, parent in known.items() if parent in roots]
        mine = rss(os.getpid())
        first = first or mine
        print(
            f"{time.monotonic() - start:7.0f} s  {storm.next_number:9} tasks  RSS in MB: owner {mine}, "
            f"root {[rss(pid) for pid in roots]}, zygote {[rss(pid) for pid in zygotes]}; "
            f"descriptors {len(os.listdir('/proc/self/fd'))}, processes {len(known)}, wrong {len(storm.wrong)}",
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
    parser.add_argument(
        "--uid", type=int, default=0, help="become this user first: limits do not hold for root"
    )
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
