# SPDX-License-Identifier: Apache-2.0
"""The workers of a pool: one thread that forks them, replaces those that end, and forks them anew."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING

from frostfork._core import Board
from frostfork._zygote.handle import NoAnswer
from frostfork.errors import FrostforkError, ZygoteError
from frostfork.pool import frames, worker
from frostfork.pool.breaker import Breaker
from frostfork.pool.broken import PoolBroken
from frostfork.pool.collector import Collector
from frostfork.pool.ending import describe
from frostfork.pool.ends import Ends
from frostfork.pool.engine import log
from frostfork.pool.farewell import END_SECONDS, LOOK_SECONDS, Farewell
from frostfork.pool.heart import Heart
from frostfork.pool.hooks import Hooks
from frostfork.pool.link import Link
from frostfork.pool.payload import plain

if TYPE_CHECKING:
    from frostfork.pool.engine import Engine
    from frostfork.pool.outfit import Outfit
    from frostfork.recycle import RecyclePolicy
    from frostfork.zygote import Worker, Zygote

_LONG_LIFE_SECONDS = 10.0  # whoever dies idle after this is no sign of a loop


class Crew:
    """Keeps a pool at its size. Hooks run in this thread and in the collector, with no lock held."""

    def __init__(
        self,
        engine: Engine,
        zygote: Zygote,
        size: int,
        *,
        name: str,
        outfit: Outfit,
        recycle: RecyclePolicy,
        refork_after: int | None,
        max_unavailable: int,
        ready_timeout: float,
        heartbeat: float,
        baseline: bool,
        hooks: Hooks,
    ) -> None:
        self.engine = engine
        self._zygote = zygote
        self.size = size
        self._name = name
        self._outfit = outfit
        self._recycle = recycle
        self._refork_after = refork_after
        self._max_unavailable = max_unavailable
        self._ready_timeout = ready_timeout
        self._baseline = baseline
        self._hooks = hooks
        self._heart = Heart(engine, heartbeat)
        self._farewell = Farewell(engine)
        self._random = random.Random()  # noqa: S311 - for jitter
        self._numbers = itertools.count(1)
        self._board_slots = 2 * size + 8
        self._board = Board(self._board_slots)
        self._slots = list(range(self._board_slots))
        self._breaker = Breaker()
        self._failed_at = 0.0
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._refork_asked = False
        self._old: list[Link] = []  # to be replaced by workers of the newest generation
        self._reforked_at = 0
        self._renewal: threading.Thread | None = None
        self.started = self.died = 0
        self.generation = 0
        self.collector = Collector(engine, name)
        engine.listener = self
        self.thread = threading.Thread(target=self._run, name=f"{name}-crew", daemon=True)

    def begin(self) -> None:
        try:
            self.collector.thread.start()
            self.thread.start()
        except RuntimeError:  # no thread can be had
            self.engine.closing = True
            self.collector.stopping = True
            self.engine.ring()
            self._hooks.close()
            raise
        self._heart.begin()

    def join(self) -> None:
        """Until the pool has ended."""
        if threading.current_thread() in (self.thread, self.collector.thread):
            raise RuntimeError(
                "a pool cannot wait for its end in one of its own threads: use shutdown(wait=False)"
            )
        # Not by Thread.join: before Python 3.13 one that Ctrl-C ends may take the thread for ended from then on.
        self._ended.wait()
        self.thread.join()

    def wake(self) -> None:
        self.engine.watching = True
        self._changed.set()

    def refork(self) -> int:
        """The generation that comes next."""
        try:
            coming = self._zygote.generation + 1
        except ZygoteError:  # it is closed
            return self.generation
        self._refork_asked = True
        self._changed.set()
        return coming

    # --- the crew's thread

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def _work(self) -> None:
        engine = self.engine
        wait: float | None = 0.0
        while True:
            self._changed.wait(wait)
            self._changed.clear()
            if engine.closing and self._all_done():
                break
            wait = None
            try:
                if self._refork_asked and not engine.closing:
                    self._refork_asked = False
                    self._renew()
                self._retire_old()
                wait = self._fill()
            except Exception as error:
                log.exception("the crew of a pool met an error and goes on")
                self._breaker.failed(str(error))
                wait = max(0.05, self._breaker.delay)
        self._finish()

    def _all_done(self) -> bool:
        """Whether a pool that takes no more has nothing left to do."""
        engine = self.engine
        with engine.lock:
            dispatcher = engine.dispatcher
            return not (
                dispatcher.pending
                or dispatcher.large
                or any(not link.idle for link in dispatcher.links if not link.dead)
            )

    def _fill(self) -> float | None:
        """Fork what is missing. Seconds until the next look, if one is needed."""
        engine = self.engine
        with engine.lock:
            links = [
                each for each in engine.dispatcher.links if not (each.gone or (each.retiring and each.idle))
            ]
            missing = self.size - len(links)
            if engine.closing:
                queued = len(engine.dispatcher.pending) + len(engine.dispatcher.large)
                missing = min(missing, queued - sum(link.ready for link in links))
        if missing <= 0 or engine.broken is not None:
            return None
        if self._breaker.is_open and not any(link.ready for link in links):
            engine.abort(PoolBroken(f"workers end before they work: {self._breaker.reason}"))
            return 0.0
        left = self._breaker_until() - time.monotonic()
        if left > 0:
            return left
        try:
            self._fork(missing)
        except (OSError, FrostforkError) as error:
            self._failed(f"no worker could be forked: {error}")
            return max(0.05, self._breaker.delay)
        return None

    def _breaker_until(self) -> float:
        return self._failed_at + self._breaker.delay

    def _failed(self, reason: str) -> None:
        self._breaker.failed(reason)
        self.engine.watching = True
        self._failed_at = time.monotonic()
        log.warning("pool %s: %s", self._name, reason)

    def _fork(self, count: int) -> None:
        names = [f"{self._name}-{next(self._numbers)}" for _ in range(min(count, len(self._slots)))]
        for name in names:
            self._hooks.call("before_fork", name)
        ends = []
        workers: list[Worker] = []
        try:
            for _ in names:
                ends.append(Ends())  # noqa: PERF401 - those that were made are closed if one cannot be
            told, given = self._outfit.parts()
            fds = [each.theirs(self._board.fd) + given for each in ends]
            try:
                workers = self._zygote.fork_many(
                    len(names), worker.main, (), fds=fds, names=names, timeout=self._ready_timeout
                )
            except NoAnswer:
                self._replace()  # its workers go on; the next ones come from another
                raise
            while workers:
                self._add(workers[-1], names[len(workers) - 1], ends[len(workers) - 1], told)
                workers.pop()
        finally:
            for forked in workers:
                forked.kill()
            for each in ends:
                each.close()

    def _add(self, forked: Worker, name: str, ends: Ends, told: tuple[bool, bytes]) -> None:
        limits = self._recycle.limits(self._random)
        # At once: the collector puts slots back meanwhile, and one that two workers have mixes up their tasks.
        slot = self._slots.pop()
        try:
            self._board.reset(slot)
            hello = plain((self._board_slots, slot, limits, self._baseline, told))
            link = Link(ends.socket, forked, name, self._board, slot, self.engine.poller)
        except BaseException:
            self._slots.append(slot)
            raise
        link.max_age = limits.age
        self.started += 1
        self.generation = max(self.generation, link.generation)
        with self.engine.lock:
            self.engine.dispatcher.links.add(link)
            self.collector.add(link, ends.take())
            link.say(frames.HELLO, hello)
        self.engine.timers.add(self._ready_timeout, self._check_ready, weakref.ref(link))
        self.engine.ring()

    def _check_ready(self, reference: weakref.ref[Link]) -> None:
        link = reference()
        if link is not None and not link.ready and not link.dead:
            link.kill(f"it was not ready after {self._ready_timeout:g} s")

    # --- refork

    def _renew(self) -> None:
        """Have a new generation of the zygote made. That may take long, and workers are replaced meanwhile."""
        if self._renewal is not None and self._renewal.is_alive():
            return
        self._reforked_at = self.engine.done + self.engine.failed
        self._renewal = threading.Thread(target=self._replace, name=f"{self._name}-refork", daemon=True)
        self._renewal.start()

    def _replace(self) -> None:
        """In a thread of its own. Workers of the new generation come as the old ones go."""
        engine = self.engine
        try:
            generation = self._zygote.replace()
        except Exception as error:
            if not engine.closing:
                log.warning("pool %s keeps its generation: %s", self._name, error)
            return
        self.generation = generation
        with engine.lock:
            self._old = [link for link in engine.dispatcher.links if link.generation < generation]
        engine.watching = True
        self._changed.set()

    def _retire_old(self) -> None:
        engine = self.engine
        with engine.lock:
            old = [link for link in self._old if not link.dead and link.retiring is None]
            self._old = sorted(old, key=lambda link: len(link.inflight))  # who is idle goes first
            if not self._old:
                return
            there = sum(link.ready and link.retiring is None for link in engine.dispatcher.links)
            room = there - (self.size - self._max_unavailable)
            going = self._old[: max(0, room)]
            for link in going:
                engine.dispatcher.retire(link, "refork")
        for link in going:
            self._farewell.watch(link)

    # --- what the collector tells

    def worked(self) -> None:
        engine = self.engine
        self._breaker.failures = 0
        if self._refork_after is not None:
            ended = engine.done + engine.failed
            if ended - self._reforked_at >= self._refork_after and not self._old:
                self._reforked_at = ended
                self.refork()
        if engine.closing or self._old:
            self._changed.set()
        engine.watching = self._refork_after is not None or engine.closing or bool(self._old)

    def ready(self, link: Link) -> None:
        self._hooks.call("worker_ready", link.pid, link.name)
        if self._old:
            self._changed.set()

    def retiring(self, link: Link) -> None:
        self._farewell.watch(link)
        self._changed.set()

    def refused(self, link: Link, why: str) -> None:
        self.engine.abort(PoolBroken(f"the initializer failed in worker {link.name}:\n{why}"))
        self._changed.set()

    def gone(self) -> None:
        if self._breaker.failures == 0:
            self._changed.set()

    def buried(self, link: Link, code: int | None, in_task: bool) -> None:
        self._slots.append(link.slot)
        ended_well = link.ended or link.retiring is not None
        if not ended_well:
            self.died += 1
        if not in_task and not ended_well and time.monotonic() - link.born < _LONG_LIFE_SECONDS:
            tail = link.tail.decode(errors="replace").strip()
            why = f": {link.killed}" if link.killed else ""
            said = f"; the end of its standard error:\n{tail}" if tail else ""
            self._failed(f"worker {link.name} (process {link.pid}) {describe(code)} while idle{why}{said}")
        self._hooks.call("worker_exit", link.pid, link.name, code)
        if link.generation < self.generation:
            self.engine.timers.add(
                LOOK_SECONDS, self._look_at_zygotes
            )  # it may have been the last of its own
        self._changed.set()

    def _look_at_zygotes(self) -> None:
        with contextlib.suppress(ZygoteError):
            _ = self._zygote.alive  # it lets go of those that have ended

    # --- the end

    def _finish(self) -> None:
        """Everything is done: end the workers, then the threads."""
        engine = self.engine
        end = time.monotonic() + END_SECONDS
        while True:
            with engine.lock:
                links = list(engine.dispatcher.links)
                for link in links:
                    link.end()
            if not links:
                break
            late = time.monotonic() > end
            for link in links:
                if late or link.is_stopped():
                    link.kill("it did not end when told to")
            self._changed.wait(LOOK_SECONDS)
            self._changed.clear()
        with contextlib.suppress(Exception):
            self._hooks.close()
        if self._renewal is not None:
            self._renewal.join(END_SECONDS)
        self.collector.stopping = True
        engine.ring()
        self.collector.thread.join()
        self._board.close()
