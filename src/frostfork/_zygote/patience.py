# SPDX-License-Identifier: Apache-2.0
"""How long poll() waits."""

from __future__ import annotations

LONGEST_SECONDS = 2_000_000.0  # poll() takes milliseconds as a C int: 24 days


def milliseconds(seconds: float | None) -> int | None:
    """For poll(), not less than the seconds; None for ever. What is longer than poll() can is as long as it can."""
    return None if seconds is None else max(0, int(min(seconds, LONGEST_SECONDS) * 1000 + 0.999))
