# SPDX-License-Identifier: Apache-2.0
"""The tests of CPython whose outcome a warmup changes for a reason that is no fault of it. As narrow as can be."""

from __future__ import annotations

import fnmatch
from typing import NamedTuple


class Allowed(NamedTuple):
    """Tests whose id matches `tests` (shell wildcards) may end as `warmed` in a warmed process."""

    tests: str
    warmed: str
    reason: str


_MOVED = "compares a code object with one that the module took out of its function before the code moved"

ALLOWED: tuple[Allowed, ...] = (
    Allowed("test.test_dis.InstructionTests.test_outer", "FAIL", _MOVED),
    Allowed("test.test_dis.InstructionTests.test_nested", "FAIL", _MOVED),
    Allowed("test.test_dis.BytecodeTests.test_explicit_first_line", "FAIL", _MOVED),
)


def reason(test: str, warmed: str) -> str | None:
    """Why this test may end so in a warmed process, or None."""
    for entry in ALLOWED:
        if entry.warmed == warmed and fnmatch.fnmatchcase(test, entry.tests):
            return entry.reason
    return None
