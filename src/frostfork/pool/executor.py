# SPDX-License-Identifier: Apache-2.0
"""ForkPool: a concurrent.futures.Executor whose workers are forked from a zygote."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures._base import PENDING
from typing import Any, TypeVar

from frostfork import _core, _settings
from frostfork.errors import ConfigurationError, FrostforkError
from frostfork.pool.broken import PoolBroken
from frostfork.pool.crew import Crew
from frostfork.pool.engine import Engine
from frostfork.pool.hooks import Hooks
from frostfork.pool.main_names import MainNames
from frostfork.pool.options import Options
from frostfork.pool.outfit import Outfit
from frostfork.pool.payload import Calls
from frostfork.pool.pool_template import PoolTemplate
from frostfork.pool.records import PoolStats, WorkerStats
from frostfork.pool.tasks import Tasks
from frostfork.recycle import RecyclePolicy
from frostfork.zygote import Template, Zygote

T = TypeVar("T")
_MOST_WORKERS = 1 << 22  # the kernel's PID_MAX_LIMIT


class View(Tasks):
    """A pool with other options; it shares the pool's workers and queue, and ends with it."""

    def __init__(self, pool: ForkPool, options: Options) -> None:
        self._pool = pool
        self._engine = pool._engine
        self._calls = pool._calls
        self._options = options

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: it is the pool that is shut down."""


class ForkPool(Tasks):
    """Workers that are forked from a zygote, and replaced by others when they end, are due or do not answer.

    max_workers: by default as many as there are CPUs for this process. initializer(*initargs): runs in each worker.
    recycle: when a worker has done enough. timeout, hard_timeout, retries: see with_options().
    refork_after: after so many tasks the zygote is replaced, and all workers by children of the new one, of which at
    most max_unavailable are missing at a time (no more than max_workers, if that is given).
    ready_timeout: seconds for a worker to get ready.
    heartbeat: seconds between two looks at whether workers answer; one that does not is killed at the next.
    baseline: workers note their shared pages at birth (10 ns a page), so that stats() has their unshared ones.
    zygote: one to use, which stays open; else the pool has its own, with `template` and `start` as in Zygote.
    Hooks: before_fork(name), worker_ready(pid, name) and worker_exit(pid, name, code) run in this process, after_fork()
    in each worker as the first thing.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        recycle: RecyclePolicy = RecyclePolicy(),  # noqa: B008 - it is frozen
        timeout: float | None = None,
        hard_timeout: float | None = None,
        retries: int = 0,
        refork_after: int | None = None,
        max_unavailable: int = 1,
        ready_timeout: float = 60.0,
        heartbeat: float = 30.0,
        baseline: bool = False,
        zygote: Zygote | None = None,
        template: Template | None = None,
        start: str = "auto",
        name: str = "pool",
        before_fork: Callable[[str], object] | None = None,
        after_fork: Callable[[], object] | None = None,
        worker_ready: Callable[[int, str], object] | None = None,
        worker_exit: Callable[[int, str, int | None], object] | None = None,
    ) -> None:
        has_size = max_workers is not None
        if max_workers is None:
            max_workers = len(os.sched_getaffinity(0))
        max_workers = _settings.index("max_workers", max_workers)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if max_workers > _MOST_WORKERS:
            raise ValueError(f"max_workers must be {_MOST_WORKERS} at most: Linux has no more processes")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        hooks = {"before_fork": before_fork, "worker_ready": worker_ready, "worker_exit": worker_exit}
        for each, hook in (*hooks.items(), ("after_fork", after_fork)):
            _settings.function(each, hook)
        initargs = _settings.arguments("initargs", initargs)
        _settings.instance("recycle", recycle, RecyclePolicy)
        _settings.instance("zygote", zygote, Zygote, or_none=True)
        _settings.instance("template", template, Template, or_none=True)
        _settings.instance("name", name, str)
        _settings.whole("refork_after", refork_after, 1, or_none=True)
        _settings.whole("max_unavailable", max_unavailable, 1)
        if has_size and max_unavailable > max_workers:
            raise ConfigurationError(
                f"max_unavailable is {max_unavailable}; allowed are whole numbers from 1 to max_workers, {max_workers}"
            )
        _settings.seconds("ready_timeout", ready_timeout)
        _settings.seconds("heartbeat", heartbeat)
        if zygote is not None and (template is not None or start != "auto"):
            raise ConfigurationError(
                "template and start are for the pool's own zygote: one that is given has its own"
            )
        self._options = Options(timeout, hard_timeout, retries).checked()
        ends, undo = contextlib.ExitStack(), contextlib.ExitStack()
        try:
            outfit = Outfit(after_fork, initializer, initargs)
            ends.callback(outfit.close)
            if zygote is None:
                if start == "auto":
                    start = "fork" if _core.threads() == 1 else "exec"
                outfit.check(start)
                names = MainNames.here()
                zygote = Zygote(PoolTemplate(template), start=start, name=f"{name}-zygote")
                ends.callback(zygote.close)
                zygote.start()
                names = names if start == "fork" else names.known_to(zygote)
            else:
                zygote.start()
                names = MainNames({}, complete=False)
            self._calls = Calls(names)
            self._zygote = zygote
            self._engine = engine = Engine()
            undo.callback(os.close, engine.bell)
            undo.callback(engine.poller.close)
            self._crew = Crew(
                engine,
                zygote,
                max_workers,
                name=name,
                outfit=outfit,
                recycle=recycle,
                refork_after=refork_after,
                max_unavailable=max_unavailable,
                ready_timeout=ready_timeout,
                heartbeat=heartbeat,
                baseline=baseline,
                hooks=Hooks(hooks, ends.close),
            )
        except BaseException:  # no descriptor can be had, or no memory, or something that was given is wrong
            undo.close()
            ends.close()
            raise
        self._crew.begin()
        self._finalize = weakref.finalize(self, _let_end, self._engine, self._crew)
        self._finalize.atexit = False
        _crews.add(self._crew)

    def with_options(
        self, *, timeout: float | None = None, hard_timeout: float | None = None, retries: int | None = None
    ) -> View:
        """The same pool, for tasks with these options in the place of the pool's.

        timeout: seconds after which TaskTimeout is raised in the task, which may handle it. hard_timeout: seconds after
        which the worker is killed and the future ends with TaskTimeout; 5 more than timeout unless given.
        retries: how often the task may be run again elsewhere, if its worker dies.
        """
        mine = self._options
        options = Options(
            mine.timeout if timeout is None else timeout,
            hard_timeout if timeout is not None or hard_timeout is not None else mine.hard_timeout,
            mine.retries if retries is None else retries,
        )
        return View(self, options.checked())

    def stats(self) -> PoolStats:
        """What workers and tasks do at this moment. It asks no worker."""
        engine, crew = self._engine, self._crew
        engine.check_owner()
        with engine.lock:
            links = sorted(engine.dispatcher.links, key=lambda link: link.born)
            queued = sum(future._state == PENDING for future in engine.dispatcher.pending)
            queued += len(engine.dispatcher.large)
            running = sum(len(link.inflight) for link in links)
            workers = []
            for link in links:
                _, _, tasks, _, busy, private, unshared = link.board.look(link.slot)
                state = "busy" if link.inflight else "idle" if link.ready else "starting"
                workers.append(
                    WorkerStats(
                        link.pid,
                        link.name,
                        link.generation,
                        tasks,
                        busy / 1e9,
                        None if private < 0 else private,
                        None if unshared < 0 else unshared,
                        "retiring" if link.retiring is not None else state,
                    )
                )
            return PoolStats(
                tuple(workers),
                crew.generation,
                engine.submitted,
                engine.done,
                engine.failed,
                engine.cancelled,
                engine.retried,
                queued,
                running,
                crew.started,
                crew.died,
            )

    def refork(self) -> int:
        """Replace the zygote and then, by and by, all workers. Returns the number of the generation that is to come.

        It does not wait for that: stats().generation shows when that generation, or a later one, has taken over.
        If its zygote fails, it is logged, and the number is the next one's. After shutdown() nothing happens.
        """
        self._engine.check_owner()
        return self._crew.refork()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; end the workers when what was submitted is done. With wait, return after that."""
        engine = self._engine
        if engine.forked:
            return
        with engine.lock:
            engine.closing = engine.watching = True
            queued = list(engine.dispatcher.pending) if cancel_futures else []
            queued += [f for link in engine.dispatcher.links for f in link.inflight] if cancel_futures else []
        for future in queued:
            future.cancel()
        self._crew.wake()
        if wait:
            self._crew.join()

    def terminate_workers(self) -> None:
        """End the pool at once and its workers by SIGTERM: what is not begun is cancelled, the rest gets PoolBroken."""
        self._end_now(signal.SIGTERM, "terminate_workers")

    def kill_workers(self) -> None:
        """End the pool at once and its workers by SIGKILL: what is not begun is cancelled, the rest gets PoolBroken."""
        self._end_now(signal.SIGKILL, "kill_workers")

    def _end_now(self, number: signal.Signals, how: str) -> None:
        engine = self._engine
        engine.check_owner()
        self.shutdown(wait=False, cancel_futures=True)
        engine.abort(PoolBroken(f"the pool was ended by {how}()"))
        with engine.lock:
            for link in engine.dispatcher.links:
                if not link.dead:
                    engine.dispatcher.retire(link, how)
                    with contextlib.suppress(OSError):
                        link.worker.send_signal(number)
        self._crew.wake()

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise FrostforkError(
            "a ForkPool cannot be sent to a worker: a task that needs a pool makes one of its own"
        )


def _let_end(engine: Engine, crew: Crew) -> None:
    """The pool is garbage: its tasks are still done, and then its workers end."""
    if not engine.forked:
        engine.closing = True
        crew.wake()


_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


def _end_all() -> None:
    """The interpreter ends: what was submitted is still done, as concurrent.futures has it."""
    for crew in list(_crews):
        if not crew.engine.forked:
            crew.engine.closing = True
            crew.wake()
            crew.join()


# As concurrent.futures does it: atexit comes later, after zygotes have been closed.
threading._register_atexit(_end_all)  # type: ignore[attr-defined]
