# SPDX-License-Identifier: Apache-2.0
"""What is known of libraries and forks."""

from __future__ import annotations

from typing import NamedTuple


class Unsafe(NamedTuple):
    """A module, or a shared object, that a process must not have loaded when it forks."""

    pattern: str
    reason: str
    source: str


class Harmless(NamedTuple):
    """An effect of an import that the canary sees, and that does not matter."""

    pattern: str
    kind: str
    reason: str
    source: str


UNSAFE: tuple[Unsafe, ...] = ()
UNSAFE_LIBRARIES: tuple[Unsafe, ...] = ()
HARMLESS: tuple[Harmless, ...] = ()
