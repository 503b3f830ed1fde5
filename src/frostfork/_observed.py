# SPDX-License-Identifier: Apache-2.0
"""The workers of a zygote that are observed: a journal for each, read while they live and when they have ended."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Iterator

from frostfork import _core
from frostfork._worker import disposable
from frostfork.journal import Journal
from frostfork.observe import Observation, watch_code

_SECONDS_TO_BEGIN = 60.0
_AT_FORK = (
    ("threading", "_after_fork"),
    ("logging", "_after_at_fork_child_reinit_locks"),
    ("random", "seed"),
)


class ObservedWorker:
    """One worker, from before its fork until what it wrote has been read."""

    def __init__(self, name: str, *, code: bool) -> None:
        self.name = name
        self.notes_code = code
        self.journal = Journal()
        self._made = time.monotonic()
        self._imports = 0  # that were read
        self._pid: int | None = None
        self._watch = watch_code()

    # --- in the worker

    def note_code(self) -> None:
        """From the beginning: what runs before the first task runs in each worker.

        So do the at-fork hooks, which have run by now. Those of Python's own libraries run again: they do no harm in
        a process that has just been forked.
        """
        if not self.notes_code:
            return
        self.notes_code = self._watch.start()
        for module, hook in _AT_FORK:
            if (again := getattr(sys.modules.get(module), hook, None)) is not None:
                again()

    def observe(self, pid: int) -> None:
        """Until it ends. OSError or RuntimeError if that cannot be."""
        # The same as observe() does, in half the pages: a worker that does nothing is to cost next to nothing.
        os.write(self.journal.fileno(), b"worker\0%d\0" % pid)
        _core.imports_start(self.journal.fileno())
        atexit.register(self._finish)

    def _finish(self) -> None:
        import json

        from frostfork.observe import measured

        try:
            if self.notes_code:
                self._watch.write(self.journal)
            seen = Observation(
                lost=_core.imports_stop(),
                wall_seconds=time.monotonic() - self._made,
                cpu_seconds=time.process_time(),
            )
            self.journal.write("end", json.dumps(measured(seen)))
        except (OSError, ValueError):  # its task closed it: the observation stays incomplete
            pass

    # --- in the zygote

    @property
    def is_known(self) -> bool:
        """Whether some of what it did was read before."""
        return self._imports > 0

    def pid(self) -> int | None:
        """None until it has begun."""
        if self._pid is None:
            for word, *fields in self.journal.records():
                if word == "worker" and fields[0].isdecimal():
                    self._pid = int(fields[0])
                    break
        return self._pid

    def never_began(self) -> bool:
        """It was not forked, or ended at once."""
        return time.monotonic() - self._made > _SECONDS_TO_BEGIN and self.pid() is None

    def is_quiet(self) -> bool:
        """Whether there is nothing in it but that it lived."""
        return all(word in ("worker", "end") for word, *_ in self.journal.records())

    def news(self) -> Observation:
        """What was not read before."""
        seen = Observation.from_journal(self.journal, skip=self._imports)
        self._imports += len(seen.modules)
        return seen


class ObservedWorkers:
    """Those that are observed now, at most `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._workers: list[ObservedWorker] = []
        self._next: ObservedWorker | None = None  # about to be forked; in a worker: itself

    def __iter__(self) -> Iterator[ObservedWorker]:
        return iter(self._workers)

    def __len__(self) -> int:
        return len(self._workers)

    def parts(self) -> tuple[object, ...]:
        """Itself and what it has until it ends."""
        return self, self._workers

    def expect(self, name: str, *, code: bool) -> ObservedWorker | None:
        """The next worker to be forked, if it is to be observed. OSError if it cannot be."""
        self._next = None
        if len(self._workers) >= self._most:
            self._drop_those_that_never_began()
        if len(self._workers) < self._most:
            self._next = ObservedWorker(name, code=code)
            self._workers.append(self._next)
        return self._next

    @property
    def expected(self) -> ObservedWorker | None:
        return self._next

    def expected_was_not_forked(self) -> ObservedWorker | None:
        expected, self._next = self._next, None
        if expected is not None:
            self._drop(expected)
        return expected

    def take(self, name: str, pid: int) -> ObservedWorker | None:
        """The one that has ended: it is observed no longer, and whoever takes it closes its journal."""
        for worker in self._workers:
            if worker.name == name and worker.pid() == pid:
                self._workers.remove(worker)
                return worker
        return None

    def _drop_those_that_never_began(self) -> None:
        for worker in [worker for worker in self._workers if worker.never_began()]:
            self._drop(worker)

    def _drop(self, worker: ObservedWorker) -> None:
        self._workers.remove(worker)
        disposable.discard(worker.journal.fileno())  # the number will be another's
        worker.journal.close()
