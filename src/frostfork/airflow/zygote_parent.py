# SPDX-License-Identifier: Apache-2.0
"""The zygote of the DAG processor, as its manager sees it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, cast

from frostfork._signals import DeferredSignals
from frostfork._zygote.handle import NoAnswer
from frostfork.airflow.parsing_template import ParsingTemplate
from frostfork.airflow.worker_name import WorkerName
from frostfork.errors import FrostforkError, ZygoteError
from frostfork.zygote import Zygote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from frostfork.airflow.learning import ParentReport
    from frostfork.airflow.settings import Settings
    from frostfork.zygote import Coming, Worker

log = logging.getLogger("frostfork.airflow")

_READY_SECONDS = 120.0  # it imports for 20 s at most before it is ready, and what it has begun then
_SECONDS_BETWEEN_QUESTIONS = 5.0
_CLOSE_SECONDS = 10.0
_ATTEMPTS = 3  # zygotes that may end while they are told of one file
_ASK_SECONDS = 5.0  # for an answer that can be had later
ANSWER_SECONDS = 30.0  # for one that is wanted now: more than it imports at a time
FORK_SECONDS = 120.0  # far more than an import takes that a canary has tried: then it hangs
ALIKE = "frostfork forks the parsing processes from the manager itself"


class ZygoteParent:
    """The parent of the parsing processes."""

    template: type[ParsingTemplate] = ParsingTemplate

    def __init__(self, zygote: Zygote, *, renews: bool) -> None:
        self.zygote = zygote
        self._renews = renews
        self._serials = itertools.count(1)
        self._numbers: dict[tuple[str, str], int] = {}  # of files
        self._told: set[int] = set()  # to the zygote of this generation:
        self._generation = 0
        self._next_question = 0.0
        self._report: ParentReport | None = None
        self._lost = False
        self._closed = False

    @classmethod
    def start(cls, settings: Settings, plugins_folder: str | None) -> ZygoteParent | None:
        """None, with one line in the log, where there can be none."""
        try:
            from frostfork.airflow.zygote_child import missing_from_airflow

            missing = missing_from_airflow()
        except ImportError as error:
            missing = str(error)
        if missing:
            log.warning("%s, since a zygote cannot start Airflow's processes here: %s", ALIKE, missing)
            return None
        template = cls.template(settings, plugins_folder)
        zygote = Zygote(template, name="dag-processor", ready_timeout=_READY_SECONDS, import_main=False)
        try:
            zygote.start()
        except (FrostforkError, OSError) as error:
            log.warning("%s, since no zygote could be started: %s", ALIKE, error)
            return None
        return cls(zygote, renews=settings.stale == "renew")

    def fork(
        self,
        target: Callable[..., Any],
        arguments: tuple[Any, ...],
        fds: Sequence[int],
        folder: str,
        file: str,
        *,
        wait: bool,
    ) -> Worker | Coming:
        """A child that parses a file of a bundle's folder. ZygoteError if there is no zygote any more.

        wait: until it is forked; then it runs once at the most, whatever happens to the zygote.
        """
        number = self._numbers.setdefault((folder, file), len(self._numbers))
        self._tell(number, folder, file)
        name = str(WorkerName(next(self._serials), number, file))
        fork = self.zygote.fork if wait else self.zygote.ask
        return fork(target, arguments, fds=fds, name=name, timeout=FORK_SECONDS)

    def _tell(self, number: int, folder: str, file: str) -> None:
        """Once to each zygote. One that ends over it is followed by another, but not for ever."""
        for left in reversed(range(_ATTEMPTS)):
            generation = self.zygote.generation
            if generation != self._generation:
                self._generation = generation
                self._told.clear()
            if number in self._told:
                return
            try:
                self.zygote.call("tell", number, folder, file, timeout=FORK_SECONDS)
                self._told.add(number)
            except NoAnswer:
                raise
            except ZygoteError:
                if not left:
                    raise

    def report(self) -> ParentReport | None:
        """What the zygote has done; what it last said, once it is gone; None if it never said anything.

        One that does not answer is killed: there may be ended children that it does not wait for, and others do.
        """
        if not self._closed and not self._lost:
            try:
                with DeferredSignals():
                    self._ask_for_report("report")
            except NoAnswer as error:
                log.warning("frostfork does without what its zygote did last: %s", error)
                self.lose()
            except (FrostforkError, OSError) as error:
                log.debug("the zygote does not answer: %s", error)
        return self._report

    def _ask_for_report(self, method: str, *arguments: object) -> None:
        self._report = cast("ParentReport", self.zygote.call(method, *arguments, timeout=ANSWER_SECONDS))

    def stale(self) -> set[str]:
        """Distributions that changed on disk and have come to rest, if the parent is to be renewed for them."""
        now = time.monotonic()
        if not self._renews or now < self._next_question:
            return set()
        self._next_question = now + _SECONDS_BETWEEN_QUESTIONS
        try:
            with DeferredSignals():
                return cast("set[str]", self.zygote.call("stale", timeout=_ASK_SECONDS))
        except (FrostforkError, OSError) as error:
            log.info("frostfork asks again later which modules are stale: %s", error)
            return set()  # the next fork will show whether it is gone

    def renew(self, stale: set[str]) -> bool:
        """Put a new zygote in the place of the one with old modules.

        False if the manager has such modules itself, or if there is no new zygote.
        """
        from frostfork.distributions import find_installed

        installed = find_installed()
        own = {installed.distribution(name) or "" for name in sys.modules}
        if own & stale:
            return False
        try:
            # A signal waits until the new one is there: its handler would use the connections that this is using.
            with DeferredSignals():
                self._ask_for_report("save", False)  # what it has learned is there for the next one
                generation = self.zygote.replace()
        except (ZygoteError, OSError) as error:
            log.warning("frostfork could not put a new zygote in the place of the old one: %s", error)
            return False
        log.info("frostfork has a new zygote, number %d: %s changed", generation, ", ".join(sorted(stale)))
        return True

    def close(self) -> None:
        """At the end: the zygote writes down what it learned, and ends with whatever it has forked."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._lost:
                with DeferredSignals():
                    self._ask_for_report("save", True)
        except (FrostforkError, OSError) as error:
            log.warning("frostfork could not write down what it learned: %s", error)
        finally:
            self.zygote.close(_CLOSE_SECONDS)

    def lose(self) -> None:
        """It is gone, or does not answer any more: ask it nothing. Its children go on, and the root sees them end."""
        self._lost = True
        with contextlib.suppress(FrostforkError, ProcessLookupError):
            if self.zygote.alive:
                os.kill(self.zygote.pid, signal.SIGKILL)
