# SPDX-License-Identifier: Apache-2.0
"""When a worker has done enough."""

from __future__ import annotations

import random

import pytest

from frostfork import ConfigurationError, RecyclePolicy
from frostfork.recycle import Limits


def test_what_is_not_limited_is_never_exceeded() -> None:
    assert RecyclePolicy().limits(random.Random(1)) == Limits()
    assert Limits().exceeded(10**9, 10**12, 1e9) is None


def test_each_limit_has_its_reason() -> None:
    limits = RecyclePolicy(max_tasks=3, max_private_bytes=1000, max_age=2.0, jitter=0).limits(
        random.Random(1)
    )
    assert limits == Limits(3, 1000, 2.0)
    assert limits.exceeded(2, 999, 1.9) is None
    assert limits.exceeded(2, None, 1.9) is None
    assert "3 tasks" in str(limits.exceeded(3, 0, 0.0))
    assert "1,000 private bytes" in str(limits.exceeded(0, 1000, 0.0))
    assert "2.0 s old" in str(limits.exceeded(0, 0, 2.0))


def test_jitter_spreads_limits_below_what_is_asked() -> None:
    chance = random.Random(1)
    found = [RecyclePolicy(max_tasks=1000, max_age=100.0, jitter=0.2).limits(chance) for _ in range(200)]
    tasks = [each.tasks or 0 for each in found]
    assert min(tasks) >= 800 and max(tasks) <= 1000 and max(tasks) - min(tasks) > 150
    assert all(80 <= (each.age or 0) <= 100 for each in found)
    assert RecyclePolicy(max_tasks=1, jitter=0.9).limits(chance).tasks == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tasks": 0},
        {"max_tasks": 1.5},
        {"max_private_bytes": -1},
        {"max_age": 0},
        {"max_age": float("nan")},
        {"jitter": 1},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RecyclePolicy(**wrong)
