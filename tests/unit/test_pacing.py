# SPDX-License-Identifier: Apache-2.0
"""How many children are in flight: a manager and its children on a clock that is only counted."""

from __future__ import annotations

import itertools
import random
from statistics import fmean

import pytest

from frostfork.airflow.pacing import Pace

RESULT = 0.04  # seconds that the manager needs for one
PLENTY = 99  # of processors


class Loop:
    """Airflow's turns: start, wait for a child, store what is ready. A child takes `child` seconds, less by jitter."""

    def __init__(self, child: float, slots: int, *, processors: int = PLENTY, jitter: float = 0.0) -> None:
        self.now = 0.0
        self.waited: list[float] = []  # from a child's start until its result was taken
        self._pace = Pace(slots, processors, lambda: self.now)
        self._child, self._slots, self._jitter = child, slots, jitter
        self._children: list[tuple[int, float, float]] = []  # in flight: number, start, end
        self._numbers = itertools.count()
        self._random = random.Random(7)

    def run(self, seconds: float = 100.0) -> None:
        while self.now < seconds:
            self._fill(self._pace.waiting(len(self._children)))
            assert len(self._children) <= self._slots
            self._wait()
            self._store()

    def _fill(self, limit: int) -> None:
        while len(self._children) < limit:
            seconds = self._child * self._random.uniform(1 - self._jitter, 1)
            self._children.append((next(self._numbers), self.now, self.now + seconds))

    def _wait(self) -> None:
        until = min(end for _, _, end in self._children)
        if len(self._children) < self._slots:
            until = min(until, self.now + self._pace.wait())
        self.now = max(self.now, until)

    def _store(self) -> None:
        ready = [child for child in self._children if child[2] <= self.now]
        if not ready:
            return
        self._children = [child for child in self._children if child[2] > self.now]
        self._fill(self._pace.ready({number: self.now - start for number, start, _ in ready}))
        for _, start, _ in ready:
            self.waited.append(self.now - start)
            self.now += RESULT
        self._pace.stored(len(ready), RESULT * len(ready))


def most(child: float, slots: int) -> float:
    """Results in a hundred seconds, if neither the manager nor a slot is ever without work."""
    return 100.0 / max(RESULT, child / slots)


@pytest.mark.parametrize("processors", [1, 2, PLENTY])
def test_slow_children_fill_every_slot(processors: int) -> None:
    loop = Loop(3.0, 8, processors=processors)
    loop.run()
    assert len(loop.waited) > 0.9 * most(3.0, 8)


@pytest.mark.parametrize("processors", [1, 2, PLENTY])
def test_quick_children_come_one_at_a_time_and_the_manager_never_waits(processors: int) -> None:
    loop = Loop(0.03, 8, processors=processors)
    loop.run()
    assert len(loop.waited) > 0.99 * most(0.03, 8)
    assert fmean(loop.waited) == pytest.approx(RESULT, rel=0.05)


@pytest.mark.parametrize("jitter", [0.0, 0.5])
@pytest.mark.parametrize("slots", [2, 8, 32])
@pytest.mark.parametrize("child", [0.041, 0.049, 0.051, 0.06, 0.1, 0.2, 0.5, 1.0])
def test_no_more_than_a_quarter_of_the_time_is_lost(child: float, slots: int, jitter: float) -> None:
    loop = Loop(child, slots, jitter=jitter)
    loop.run()
    assert len(loop.waited) > 0.74 * most(child * (1 - jitter / 2), slots)


def test_a_second_child_waits_for_a_processor_unless_the_first_takes_long() -> None:
    alone, together = Loop(0.06, 2, processors=2), Loop(0.06, 2, processors=4)
    alone.run()
    together.run()
    assert fmean(alone.waited) == pytest.approx(0.06, rel=0.05)
    assert fmean(together.waited) > 0.07
    slow = Loop(0.3, 2, processors=2)
    slow.run()
    assert len(slow.waited) > 0.8 * most(0.3, 2)


def test_one_result_that_took_long_does_not_hold_up_the_next_children() -> None:
    pace = Pace(8, PLENTY, lambda: 0.0)
    for seconds in (0.04, 0.04, 5.0, 0.04):
        pace.stored(1, seconds)
    assert pace.wait() == pytest.approx(0.01)


def a_pace(child: float) -> Pace:
    """It knows twenty files, and one whose result takes ten times as long to store."""
    pace = Pace(8, PLENTY, lambda: 0.0)
    for at in range(20):
        pace.ready({f"{at}.py": child})
        pace.stored_one(f"{at}.py", RESULT)
        pace.stored(1, RESULT)
    pace.stored_one("large.py", 10 * RESULT)
    return pace


def test_quick_children_are_not_started_while_a_large_result_is_stored() -> None:
    assert a_pace(0.03).ready({"large.py": 0.3}) == 0
    assert a_pace(0.03).ready({"1.py": 0.03}) > 0
    assert a_pace(0.03).ready({"new.py": 0.03}) > 0
    assert a_pace(0.2).ready({"large.py": 0.3}) > 0


def test_however_quick_children_are_they_parse_while_a_result_is_stored() -> None:
    loop = Loop(0.005, 8)
    loop.run()
    assert len(loop.waited) > 0.99 * most(0.005, 8)


def test_the_largest_result_is_stored_last() -> None:
    assert sorted(["large.py", "new.py", "1.py"], key=a_pace(0.03).expected)[-1] == "large.py"


@pytest.mark.parametrize(
    ("file", "in_flight", "held"),
    [
        ("large.py", [0.01], True),
        ("large.py", [], False),
        ("large.py", [0.1], False),  # who knows when that will be done
        ("large.py", [0.01, 0.1], True),
        ("1.py", [0.01], False),
        ("new.py", [0.01], False),
    ],
)
def test_a_large_result_waits_for_what_is_nearly_there(file: str, in_flight: list[float], held: bool) -> None:
    others = dict(enumerate(in_flight))
    assert (a_pace(0.03).hold([file], others) > 0) == held
    assert a_pace(0.03).hold([file], others) <= 0.1
    assert a_pace(0.3).hold([file], others) == 0
