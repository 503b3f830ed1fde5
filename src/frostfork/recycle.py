# SPDX-License-Identifier: Apache-2.0
"""When a worker has done enough and another takes its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frostfork import _settings
from frostfork.errors import ConfigurationError

if TYPE_CHECKING:
    from random import Random


@dataclass(frozen=True)
class Limits:
    """The limits of one worker; None for what is not limited."""

    tasks: int | None = None
    private_bytes: int | None = None
    age: float | None = None

    def any(self) -> bool:
        return self.tasks is not None or self.private_bytes is not None or self.age is not None

    def exceeded(self, tasks: int, private_bytes: int | None, age: float) -> str | None:
        """Why a worker with so many tasks, private bytes (None: unknown) and seconds is to go; None if it may stay."""
        if self.tasks is not None and tasks >= self.tasks:
            return f"did {tasks} tasks, limit {self.tasks}"
        if (
            self.private_bytes is not None
            and private_bytes is not None
            and private_bytes >= self.private_bytes
        ):
            return f"has {private_bytes:,} private bytes, limit {self.private_bytes:,}"
        if self.age is not None and age >= self.age:
            return f"is {age:.1f} s old, limit {self.age:.1f} s"
        return None


@dataclass(frozen=True)
class RecyclePolicy:
    """End a worker after so many tasks, private bytes or seconds, and fork another.

    max_private_bytes counts what the worker has alone (Private_Clean + Private_Dirty), as measured in the worker. Pages
    that it shares with the zygote do not count, so a worker is not over its limit at birth.
    jitter: each worker's limits lie by up to this share below these, at random, so that workers that began together do
    not all go together.
    """

    max_tasks: int | None = None
    max_private_bytes: int | None = None
    max_age: float | None = None
    jitter: float = 0.1

    def __post_init__(self) -> None:
        _settings.whole("max_tasks", self.max_tasks, 1, or_none=True)
        _settings.whole("max_private_bytes", self.max_private_bytes, 1, or_none=True)
        _settings.seconds("max_age", self.max_age, or_none=True)
        if self.max_age is not None and not math.isfinite(self.max_age):
            raise ConfigurationError(f"max_age is {self.max_age!r}; allowed are None and seconds above 0")
        if not isinstance(self.jitter, (int, float)) or not 0 <= self.jitter < 1:
            raise ConfigurationError(f"jitter is {self.jitter!r}; allowed are shares from 0 to below 1")

    def limits(self, random: Random) -> Limits:
        """The limits of a new worker."""

        def below(most: float) -> float:
            return most * (1 - self.jitter * random.random())

        return Limits(
            None if self.max_tasks is None else max(1, math.ceil(below(self.max_tasks))),
            None if self.max_private_bytes is None else max(1, math.ceil(below(self.max_private_bytes))),
            None if self.max_age is None else below(self.max_age),
        )
