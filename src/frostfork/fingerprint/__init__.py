# SPDX-License-Identifier: Apache-2.0
"""What a process looks like before and after an import.

A probe looks at one thing. Its values are compared first, and put into words only where they differ. The quick probes
take some 40 microseconds together, so a canary can afford them at the beginning and the end of every import, those
within others included, and so knows whose own code did something.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from frostfork.fingerprint import interpreter, kernel, randomness
from frostfork.fingerprint.interpreter import watch_registrations
from frostfork.fingerprint.library import library_probes
from frostfork.fingerprint.probe import Effect, Probe

__all__ = ["QUICK", "Effect", "Probe", "compare", "deep_probes", "take", "watch_registrations"]

QUICK = (*kernel.PROBES, *interpreter.PROBES, *randomness.QUICK)


def deep_probes(unsafe_libraries: Iterable[tuple[str, str]]) -> tuple[Probe, ...]:
    """What is looked at less often, for one canary: it remembers what there was when it began."""
    return (*library_probes(unsafe_libraries), *randomness.DEEP)


def take(probes: tuple[Probe, ...]) -> list[Any]:
    """Look at everything."""
    return [probe.take() for probe in probes]


def compare(probes: tuple[Probe, ...], before: list[Any], after: list[Any]) -> list[Effect]:
    """Everything that differs, in words."""
    found: list[Effect] = []
    for probe, old, new in zip(probes, before, after, strict=True):
        if old != new:
            found += probe.explain(old, new)
    return found
