# SPDX-License-Identifier: Apache-2.0
"""What a step and a warmup say of themselves."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """What one step did.

    count: how many things it did it to; `unit` names them. bytes: their size.
    bytes_held: memory that this process will not give back because of it.
    idle: why there was nothing to do, or "" where something was done.
    details: further numbers, by name.
    """

    count: int  # type: ignore[assignment]  # tuple has a method of this name, which nobody needs here
    unit: str
    bytes: int = 0
    bytes_held: int = 0
    idle: str = ""
    details: dict[str, int] = {}  # noqa: RUF012 - never written to


class StepReport(NamedTuple):
    """One step of a warmup. status: "done", "skipped" (nothing to do, or not asked for), "unsupported" or "failed"."""

    name: str
    status: str
    reason: str
    seconds: float
    count: int  # type: ignore[assignment]  # tuple has a method of this name, which nobody needs here
    unit: str
    bytes: int
    bytes_held: int
    details: dict[str, int]


class WarmupReport(NamedTuple):
    """A warmup, step by step, in the order in which the steps ran."""

    steps: dict[str, StepReport]

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps.values())

    @property
    def bytes_held(self) -> int:
        """Memory that this process keeps for good from now on."""
        return sum(step.bytes_held for step in self.steps.values())
