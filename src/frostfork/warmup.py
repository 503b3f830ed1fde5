# SPDX-License-Identifier: Apache-2.0
"""Everything done in a parent, once, to make its memory stay shared with its children."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from frostfork import _end
from frostfork.errors import ConfigurationError, UnsupportedStepError
from frostfork.steps import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from frostfork.preload import Ledger

# In this order: what moves objects comes before what pins them, and what pins them before what moves their pages.
STEPS = (
    *("preload", "reserve", "compact_code", "drain_heap", "immortalize", "collapse", "merge"),
    *("freeze", "drain_pools"),
)
DEFAULT = tuple(name for name in STEPS if name != "merge")


def warmup(
    ledger: Ledger | None = None,
    *,
    steps: Iterable[str] | None = None,
    strict: bool = False,
    afresh: bool = False,
) -> report.WarmupReport:
    """Prepare this process, so that the children it forks from now on copy little of it.

    ledger: what children used so far; without it nothing is imported and no code is moved.
    steps: names out of STEPS; the order is ours. None means all but "merge".
    strict: raise what a step raises, UnsupportedStepError if it cannot be done here, instead of reporting it.
    afresh: see what old modules hold by now as well. For once, when a process has done its work for the first time
        and its caches are full: what they hold then stays.

    May be called again, after more was imported, and then costs in proportion to what is new.
    """
    if ledger is not None:
        from frostfork import _settings, preload

        _settings.instance("ledger", ledger, preload.Ledger, or_none=True)
    chosen = DEFAULT if steps is None else tuple(steps)
    for name in chosen:
        if name not in STEPS:
            raise ConfigurationError(f"{name!r} is no step of a warmup; the steps are {', '.join(STEPS)}.")
    _give_back(chosen)
    _end.prepare()
    return report.WarmupReport({name: _run(name, ledger, strict, afresh) for name in STEPS if name in chosen})


def _give_back(chosen: tuple[str, ...]) -> None:
    """What the last warmup held is free for this one's imports and copies; the rest of it is held again."""
    if "drain_heap" in chosen:
        from frostfork.steps import drain_heap

        drain_heap.release()
    if "drain_pools" in chosen:
        from frostfork.steps import drain_pools

        drain_pools.release()


def _step(name: str, ledger: Ledger | None, afresh: bool) -> Callable[[], report.Outcome]:
    """The step's own function; its module is imported only if it runs."""
    import importlib

    if name == "preload":
        from frostfork.preloader import preload

        return lambda: preload(ledger)
    function: Callable[..., report.Outcome] = getattr(
        importlib.import_module(f"frostfork.steps.{name}"), name
    )
    if name == "immortalize":
        return lambda: function(afresh=afresh)
    if name == "compact_code":
        return lambda: function({} if ledger is None else ledger.hot_code)
    return function


def _run(name: str, ledger: Ledger | None, strict: bool, afresh: bool) -> report.StepReport:
    before = time.perf_counter()
    try:
        done = _step(name, ledger, afresh)()
    except Exception as error:  # the process that warms up has other work to do, and goes on to it
        if strict:
            raise
        unsupported = isinstance(error, UnsupportedStepError)
        status, reason = (
            ("unsupported", str(error)) if unsupported else ("failed", f"{type(error).__name__}: {error}")
        )
        done = report.Outcome(0, "")
    else:
        status, reason = ("skipped" if done.idle else "done"), done.idle
    seconds = time.perf_counter() - before
    return report.StepReport(
        name, status, reason, seconds, done.count, done.unit, done.bytes, done.bytes_held, done.details
    )
