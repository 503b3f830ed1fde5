# SPDX-License-Identifier: Apache-2.0
"""A zygote that learns from its workers what to share with the next ones.

worker: imports ──▶ journal ──▶ zygote: ledger ──▶ policy ──▶ canary ──▶ import, warm up ──▶ next worker: shares
└──▶ heritage ──▶ the zygote of the next generation begins with all of it
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from frostfork import _core, _settings
from frostfork._heritage import Heritage
from frostfork._memory import Memory, uncount
from frostfork._observed import ObservedWorker, ObservedWorkers
from frostfork._worker import disposable
from frostfork._zygote.life import find
from frostfork._zygote.own_code import own_code
from frostfork.canary import Canary
from frostfork.distributions import find_installed
from frostfork.errors import ConfigurationError
from frostfork.preload import PreloadPolicy, Verdict
from frostfork.preloader import Preloader
from frostfork.steps.report import WarmupReport
from frostfork.warmup import DEFAULT, STEPS, warmup
from frostfork.zygote import Template

log = logging.getLogger("frostfork")

_DAY = 86_400.0
# While a zygote imports or warms up, no worker is forked.
_IMPORT_SECONDS = 0.5
_TRIAL_SECONDS = 0.1
# A few functions more are not worth a warmup at once.
_MANY_FUNCTIONS = 200
_CODE_SECONDS = 60.0
_QUIET_SECONDS = 60.0


class Learned(NamedTuple):
    """What a zygote knows and has done, for Zygote.call("report").

    preloaded: by module, seconds. refused: by module, why. changed: distributions that changed on disk since.
    """

    preloaded: dict[str, float]
    refused: dict[str, str]
    modules: int  # in the ledger
    workers: int  # in the ledger
    functions: int  # whose code workers ran
    observed: int  # workers that are observed now
    trying: tuple[str, ...]  # modules that a canary is at
    tried: int  # modules that canaries of this zygote tried, not those of its forerunners
    warmups: tuple[WarmupReport, ...]
    changed: tuple[str, ...]


class LearningTemplate(Template):
    """Preloads what workers import, as a policy allows and a canary has tried, and warms up.

    preload: modules that are imported first in each zygote, without asking anybody. One that fails fails the start.
    rehearse: a function, or "package.module:function", called once in each zygote after the imports and before the
        warmup. What it builds (caches, compiled patterns, whatever a first use makes) workers share. It must leave no
        thread, connection or lock behind; if it fails, the start does.
    policy: what else may be imported; by default what workers imported from installed distributions without error.
    ledger: a file that remembers what workers import from one start to the next; ledger_days: how long.
    canary: what tries modules first; None: nothing does.
    steps: of the warmup, see frostfork.warmup. Empty: none.
    observed: how many workers are observed at a time; 0 learns nothing.
    code_workers: how many workers of a generation also show which code they run. That costs them memory, and pays in
        the generations that follow.
    begin_seconds: how long a start or replacement waits for a canary. What is left is imported when it is tried.
    source: under which name the ledger counts these workers.

    A zygote learns when a worker ends, and from those that live when it is asked to: Zygote.call("learn").
    """

    def __init__(
        self,
        preload: Iterable[str] = (),
        *,
        rehearse: Callable[[], object] | str | None = None,
        policy: PreloadPolicy | None = None,
        ledger: str | os.PathLike[str] | None = None,
        ledger_days: float = 30.0,
        canary: Canary | None = Canary(),  # noqa: B008 - it holds limits only
        steps: Iterable[str] = DEFAULT,
        observed: int = 64,
        code_workers: int = 2,
        begin_seconds: float = 20.0,
        source: str = "workers",
    ) -> None:
        _settings.target("rehearse", rehearse)
        _settings.instance("policy", policy, PreloadPolicy, or_none=True)
        _settings.number("ledger_days", ledger_days, "days")
        _settings.instance("canary", canary, Canary, or_none=True)
        _settings.whole("observed", observed, 0)
        _settings.whole("code_workers", code_workers, 0)
        _settings.number("begin_seconds", begin_seconds, "seconds")
        _settings.instance("source", source, str)
        self._preload = _settings.names("preload", preload)
        self._rehearse = rehearse
        self._policy = policy
        self._path = None if ledger is None else os.path.abspath(_settings.path("ledger", ledger))
        self._seconds_kept = ledger_days * _DAY
        self._canary = canary
        self._steps = tuple(step for step in _settings.names("steps", steps) if step != "preload")
        if unknown := set(self._steps) - set(STEPS):
            raise ConfigurationError(f"{min(unknown)!r} is no step of a warmup; they are {', '.join(STEPS)}.")
        self._observed = ObservedWorkers(observed)
        self._code_workers = code_workers
        self._begin_seconds = begin_seconds
        self._source = source
        self._heritage = Heritage()
        self.keep_fds = (self._heritage.fileno(),)

    # --- the hooks of a template

    def begin(self) -> None:
        # log.warning() writes whole lines, which handlers write out.
        self.writes_nothing = type(self).before_fork is LearningTemplate.before_fork
        for name in self._preload:
            importlib.import_module(name)
        policy = PreloadPolicy(installed=find_installed()) if self._policy is None else self._policy
        self._memory = Memory(self._heritage, self._path, self._seconds_kept, policy.installed)
        self._imported = True  # since the last warmup
        self._next_quiet = 0.0  # when to count a worker that shows nothing new
        self._functions = 0  # known at the last warmup
        self._warmed_at = 0.0
        self._warmups: list[WarmupReport] = []
        self._changed: list[str] = []
        self._tried = 0
        self._settled: bool | None = None  # whether nothing is left to import; None: not looked at since
        ledger, verdicts = self._memory.inherit()
        self._preloader = Preloader(policy, ledger, canary=self._canary)
        self._preloader.verdicts.update(verdicts)
        self._import(self._begin_seconds, wait=True)
        self._share()
        if self._rehearse is not None:
            before = _core.threads()
            (find(self._rehearse) if isinstance(self._rehearse, str) else self._rehearse)()
            if _core.threads() > before:
                log.warning("the rehearsal left threads behind, which no worker will have")
        self._warm_up()

    def before_fork(self, name: str) -> None:
        code = self._code_workers > 0 and self._is_settled()
        self.watches_birth = False
        try:
            expected = self._observed.expect(name, code=code)
        except OSError as error:
            log.warning("frostfork could not observe the worker %s: %s", name, error)
            return
        self.watches_birth = expected is not None and code
        if expected is not None:
            self._code_workers -= code
            disposable.add(expected.journal.fileno())

    def descriptors(self, name: str) -> Collection[int]:
        expected = self._observed.expected
        return () if expected is None else (expected.journal.fileno(),)

    def not_forked(self, name: str) -> None:
        if (expected := self._observed.expected_was_not_forked()) is not None:
            self._code_workers += expected.notes_code

    def born(self) -> None:
        if self._observed.expected is not None:
            self._observed.expected.note_code()

    def in_worker(self, name: str) -> None:
        self._heritage.close()
        if self._observed.expected is not None:
            try:
                self._observed.expected.observe(os.getpid())
            except (OSError, RuntimeError) as error:
                log.warning("frostfork cannot observe the worker %s: %s", name, error)

    def ended(self, name: str, pid: int, code: int | None) -> None:
        worker = self._observed.take(name, pid)
        if worker is None:
            return
        try:
            # What a zygote writes, it copies away from its workers. So it does not count those that show nothing new,
            # but for some: what they have from it is to be remembered as long as there are any.
            if time.monotonic() >= self._next_quiet or not worker.is_quiet():
                self._next_quiet = time.monotonic() + _QUIET_SECONDS
                self._read(worker, ended=True)
        finally:
            disposable.discard(worker.journal.fileno())
            worker.journal.close()
        if not self._observed and self._has_news():  # it may be the last that this zygote does
            self._share()
            self._memory.save()

    def idle(self) -> float | None:
        """When nobody waits for a fork: import what has passed, warm up, write down."""
        self._import(_IMPORT_SECONDS)
        if self._has_news():
            self._share()
        waits = [self._memory.save_if_due(), self._warm_up_if_due()]
        if self._preloader.trial is not None:
            waits.append(_TRIAL_SECONDS)
        return min((wait for wait in waits if wait is not None), default=None)

    def succeeded(self) -> None:
        self.learn()

    def rehearse(self) -> None:
        """What observing imports begins with: functions of the C library that nobody has called before."""
        with contextlib.suppress(OSError, RuntimeError), open(os.devnull, "wb") as nobody:
            _core.imports_start(nobody.fileno())
            _core.imports_stop()

    def parts(self) -> tuple[object, ...]:
        return (self, self._heritage, *self._observed.parts())

    # --- what the owner may ask for

    def learn(self) -> int:
        """Read what live workers have shown so far, for whoever is about to replace this zygote. New modules known."""
        before = len(self._preloader.ledger)
        for worker in self._observed:
            self._read(worker, ended=False)
        self._share()
        return len(self._preloader.ledger) - before

    def report(self) -> Learned:
        preloader = self._preloader
        self._changed += self._memory.changes()
        return Learned(
            dict(preloader.report.preloaded),
            dict(preloader.report.refused),
            len(preloader.ledger),
            preloader.ledger.children,
            len(preloader.ledger.hot_code),
            len(self._observed),
            () if preloader.trial is None else preloader.trial.names,
            self._tried + self._memory.tried_here(preloader.verdicts),
            tuple(self._warmups),
            tuple(self._changed),
        )

    # --- learning

    def _read(self, worker: ObservedWorker, *, ended: bool) -> None:
        goes_on = worker.is_known
        seen = worker.news()
        if not ended:
            if not seen.modules:
                return
            seen.complete = True  # it has not failed, as far as is known
        self._memory.record(seen, self._source, goes_on=goes_on)
        self._preloader.learn(seen, self._source, budget_seconds=-1.0)  # imports wait until nobody else does
        if goes_on:
            uncount(self._preloader.ledger, self._source)
        self._settled = None

    def _is_settled(self) -> bool:
        """Whether workers import nothing more that the zygote will import: the code that they run is their tasks'."""
        if self._settled is None:
            ledger = self._preloader.ledger
            self._settled = ledger.children > 0 and not any(
                self._preloader.is_coming(record.name) for record in ledger
            )
        return self._settled

    def _import(self, seconds: float, *, wait: bool = False) -> None:
        """What may be imported by now; wait: for the canary, too."""
        importing = self._preloader.load if wait else self._preloader.poll
        try:
            imported = importing(budget_seconds=seconds)
        except Exception:
            log.exception("frostfork could not import for its workers")
            return
        if imported:
            self._imported = True
            self._settled = None
            log.info("frostfork imported %d modules that workers use", len(imported))

    def _has_news(self) -> bool:
        return self._memory.has_news() or self._memory.tried_here(self._preloader.verdicts) > 0

    def _share(self) -> None:
        """Exchange with the zygotes before and after this one what each has learned."""
        known: dict[str, Verdict] = self._preloader.verdicts
        self._tried += self._memory.tried_here(known)
        whole = self._memory.hand_down(known)
        if whole is None:
            return
        self._preloader.ledger, verdicts = whole
        for name, verdict in verdicts.items():
            known.setdefault(name, verdict)
        self._settled = None
        self._preloader.load(budget_seconds=0.0)  # plan with it; poll() does the rest

    # --- warming up

    def _warm_up_if_due(self) -> float | None:
        """The seconds until it may be. While a canary is at work, more is to come."""
        if self._preloader.trial is not None:
            return None
        new = len(self._preloader.ledger.hot_code) - self._functions
        if self._imported or new >= _MANY_FUNCTIONS:
            self._warm_up()
            return None
        if new <= 0:
            return None
        left = self._warmed_at + _CODE_SECONDS - time.monotonic()
        if left <= 0:
            self._warm_up()
            return None
        return left

    def _warm_up(self) -> None:
        self._imported = False
        self._functions = len(self._preloader.ledger.hot_code)
        if self._steps:
            if self._functions:
                for code in own_code():
                    self._preloader.ledger.hot_code.setdefault(code, 0)  # behind what workers run
            report = warmup(self._preloader.ledger, steps=self._steps)
            self._warmups.append(report)
            log.debug("frostfork warmed up a zygote: %s", report)
        self._warmed_at = time.monotonic()
