# SPDX-License-Identifier: Apache-2.0
"""When the DAG processor's parent is warmed up: the decision, with nothing in it that warms up."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from frostfork.airflow.warming import Warming
from frostfork.observe import CodeName, watch_code
from frostfork.preload import Ledger
from frostfork.steps.report import StepReport, WarmupReport

ALL = ("compact_code", "drain_heap", "immortalize")


class Watch(watch_code):
    """Sees what it is told to."""

    def __init__(self, sees: list[CodeName] | None) -> None:
        self._sees = sees
        self.running = False

    def start(self) -> bool:
        self.running = self._sees is not None
        return self.running

    def finish(self) -> list[CodeName]:
        self.running = False
        return self._sees or []


class Parent:
    """Counts its warmups, on a clock of its own."""

    def __init__(self, steps: tuple[str, ...] = ALL, sees: list[CodeName] | None = None) -> None:
        self.ledger = Ledger()
        self.now = 1000.0
        self.calls: list[dict[str, Any]] = []
        self.status = "done"
        self.fails = False
        self.watch = Watch(sees)
        self.warming = Warming(steps, self.ledger, run=self.run, watch=self.watch, clock=lambda: self.now)

    def run(self, ledger: Ledger, **how: Any) -> WarmupReport:
        assert ledger is self.ledger
        self.calls.append({**how, "code": list(ledger.hot_code)})
        if self.fails:
            raise MemoryError
        held = {"immortalize": 3 << 20, "drain_heap": 2 << 20}
        return WarmupReport(
            {
                name: StepReport(name, self.status, "", 0.5, 7, "things", 0, held.get(name, 0), {})
                for name in how["steps"]
            }
        )

    def learn(self, functions: int) -> None:
        for _ in range(functions):
            self.ledger.hot_code["file", len(self.ledger.hot_code), "name"] = 1

    def fork(self) -> int:
        """How many warmups that took."""
        before = len(self.calls)
        self.warming.run_if_due()
        return len(self.calls) - before


def test_before_the_first_fork_and_not_before_the_second() -> None:
    parent = Parent()
    assert [parent.fork(), parent.fork()] == [1, 0]
    assert parent.calls == [{"steps": (*ALL, "reserve", "freeze"), "afresh": False, "code": []}]


def test_without_any_step_the_parent_is_frozen_all_the_same() -> None:
    parent = Parent(())
    assert parent.fork() == 1
    assert parent.calls[0]["steps"] == ("reserve", "freeze")


def test_after_an_import_at_the_next_fork() -> None:
    parent = Parent()
    parent.fork()
    parent.warming.parsed(True, 5)
    parent.warming.parsed(False, 5)
    assert [parent.fork(), parent.fork()] == [1, 0]


def test_many_functions_are_worth_it_at_once_and_a_few_after_a_while() -> None:
    parent = Parent()
    parent.fork()
    parent.learn(5)
    assert parent.fork() == 0
    parent.now += 61
    assert [parent.fork(), parent.fork()] == [1, 0]
    parent.now += 1000
    assert parent.fork() == 0  # nothing is new
    parent.learn(200)
    assert parent.fork() == 1


def test_an_import_while_the_manager_is_watched_begins_the_watch_again() -> None:
    parent = Parent(sees=[("manager", 1, "loop")])
    for _ in range(11):
        parent.warming.parsed(False, 40)
    assert parent.watch.running
    parent.warming.parsed(True, 40)
    assert not parent.watch.running
    assert parent.fork() == 1  # nothing is watched, so what was imported is warmed up
    for _ in range(10):
        parent.warming.parsed(False, 40)
    assert not parent.watch.running
    parent.warming.parsed(False, 40)
    assert parent.watch.running


def test_once_the_managers_own_code_is_known_and_its_caches_are_full() -> None:
    parent = Parent(sees=[("manager", 1, "loop")])
    parent.learn(1)
    for _ in range(10):
        parent.warming.parsed(False, 40)
    assert not parent.watch.running
    parent.warming.parsed(False, 40)
    assert parent.watch.running
    assert parent.fork() == 0  # watched code would not be moved
    for _ in range(12):
        parent.warming.parsed(False, 40)
    assert not parent.watch.running  # long before the end: while it runs, children copy more
    assert parent.fork() == 1
    parent.calls.clear()
    for _ in range(17):
        parent.warming.parsed(False, 40)
    assert parent.calls == []
    parent.warming.parsed(False, 40)
    (call,) = parent.calls
    assert call["afresh"]
    assert call["code"] == [("file", 0, "name"), ("manager", 1, "loop")]  # the manager's own lies behind
    for _ in range(500):
        parent.warming.parsed(False, 40)
    assert len(parent.calls) == 1


def test_an_import_begins_the_count_again() -> None:
    parent = Parent(sees=[])
    for _ in range(50):
        for _ in range(9):
            parent.warming.parsed(False, 4)
        parent.warming.parsed(True, 4)
    assert parent.calls == []


@pytest.mark.parametrize("steps", [ALL, ("immortalize",)])
def test_a_manager_whose_code_cannot_be_watched_is_warmed_up_afresh_too(steps: tuple[str, ...]) -> None:
    parent = Parent(steps, sees=None)
    for _ in range(100):
        parent.warming.parsed(False, 4)
    assert [call["afresh"] for call in parent.calls] == [True]


def test_a_failure_is_logged_and_not_repeated_at_every_fork(caplog: pytest.LogCaptureFixture) -> None:
    parent = Parent()
    parent.fails = True
    with caplog.at_level(logging.WARNING, "frostfork.airflow"):
        assert [parent.fork(), parent.fork()] == [1, 0]
    assert "could not warm up" in caplog.text


def test_a_failed_step_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    parent = Parent(("collapse",))
    parent.status = "failed"
    with caplog.at_level(logging.WARNING, "frostfork.airflow"):
        parent.fork()
    assert "could not collapse" in caplog.text


def test_summary() -> None:
    """What drain_heap holds does not add up over runs; what is immortal does."""
    parent = Parent()
    for _ in range(3):
        parent.warming.parsed(True, 5)
        parent.fork()
    said = parent.warming.summary()
    assert said.startswith("frostfork warmed up 3 times in 7.5 s")
    assert "immortalize 21 things" in said
    assert "11 MB" in said


def test_complete_once_it_was_warmed_up_afresh() -> None:
    parent = Parent(sees=None)
    for files in range(4):
        parent.warming.parsed(True, files + 1)
    for _ in range(12):
        parent.warming.parsed(False, 4)
    assert not parent.warming.is_complete
    parent.warming.parsed(False, 4)
    assert parent.warming.is_complete
    parent.warming.parsed(True, 5)
    assert parent.warming.is_complete  # what is imported later is warmed up by itself
